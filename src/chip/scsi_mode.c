/* scsi_mode.c - what a logical unit says about itself and how it can be set: INQUIRY (SPC-4, 6.4)
 * with the vital product data pages, MODE SENSE and MODE SELECT. */
#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "chip/atapi_reply.h"
#include "chip/scsi_core.h"

#define VENDOR         "SOSIA"
#define REVISION       "1.0"
#define PHYSICAL_BLOCK (4 * KIB) /* the host's page: less costs it a read */
#define ABSENT         0x7f      /* peripheral qualifier 3: no unit can be here */

static bool is_disk(const struct scsi_req *r)
{
    return r->unit->drive.kind == IDE_DISK;
}

/* ---- vital product data: the pages' data, without their header; returns its length ---- */

static unsigned put_text(uint8_t *p, const char *s, unsigned len)
{
    size_t n = strlen(s);
    for (unsigned i = 0; i < len; i++)
        p[i] = i < n ? (uint8_t)s[i] : ' ';
    return len;
}

static unsigned page_serial(const struct scsi_unit *u, uint8_t *p)
{
    return put_text(p, u->drive.serial, (unsigned)strlen(u->drive.serial));
}

static uint64_t hash(const char *s)
{
    uint64_t h = 0xcbf29ce484222325;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3; /* FNV-1a */
    return h;
}

/* 7.8.6: names of the unit: vendor and serial number; and a number in the range for local use (NAA
 * 3) that is made of the serial number. */
static unsigned page_identification(const struct scsi_unit *u, uint8_t *p)
{
    unsigned serial = (unsigned)strlen(u->drive.serial);
    p[0] = 2; /* ASCII */
    p[1] = 1; /* T10 vendor */
    p[3] = (uint8_t)(8 + serial);
    put_text(p + 4, VENDOR, 8);
    put_text(p + 12, u->drive.serial, serial);
    uint8_t *naa = p + 12 + serial;
    naa[0] = 1; /* binary */
    naa[1] = 3;
    naa[3] = 8;
    store_be64(naa + 4, (hash(u->drive.serial) & ~(0xfull << 60)) | 3ull << 60);
    return 12 + serial + 12;
}

/* SBC-3, 6.5.3 */
static unsigned page_limits(const struct scsi_unit *u, uint8_t *p)
{
    uint32_t physical = (uint32_t)(PHYSICAL_BLOCK / u->block_size);
    p[0] = 1; /* WSNZ: WRITE SAME wants a number of blocks */
    store_be16(p + 2, (uint16_t)physical);
    if (!u->drive.blk->readonly) {
        store_be32(p + 16, SCSI_MAX_UNMAP);
        store_be32(p + 20, SCSI_MAX_UNMAP_RANGE);
        store_be32(p + 24, physical);
        store_be32(p + 28, 1u << 31); /* which the first one begins */
    }
    store_be64(p + 32, SCSI_MAX_SAME);
    return 60;
}

static unsigned page_characteristics(const struct scsi_unit *u, uint8_t *p)
{
    store_be16(p, 1); /* does not rotate */
    return 60;
}

/* SBC-3, 6.5.4: thin; what is read after unmapping is not promised. */
static unsigned page_provisioning(const struct scsi_unit *u, uint8_t *p)
{
    bool thin = !u->drive.blk->readonly;
    p[1] = thin ? 0xe0 : 0; /* UNMAP, WRITE SAME of both lengths */
    p[2] = thin ? 2 : 0;
    return 4;
}

static const struct {
    uint8_t code;
    bool disk; /* only */
    unsigned (*put)(const struct scsi_unit *u, uint8_t *p);
} pages[] = {{0x80, false, page_serial},
             {0x83, false, page_identification},
             {0xb0, true, page_limits},
             {0xb1, true, page_characteristics},
             {0xb2, true, page_provisioning}};

static int vital_product_data(struct scsi_req *r)
{
    uint8_t p[128] = {is_disk(r) ? 0x00 : 0x05, r->cdb[2]};
    unsigned n = 0;
    bool found = r->cdb[2] == 0x00; /* the list of pages */
    if (found)
        p[4 + n++] = 0x00;
    for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
        if (pages[i].disk && !is_disk(r))
            continue;
        if (r->cdb[2] == 0x00)
            p[4 + n++] = pages[i].code;
        if (r->cdb[2] != pages[i].code)
            continue;
        n = pages[i].put(r->unit, p + 4);
        found = true;
    }
    if (!found)
        return SENSE_CDB_FIELD;
    store_be16(p + 2, (uint16_t)n);
    return scsi_reply(r, p, n + 4, load_be16(r->cdb + 3));
}

int scsi_inquiry(struct scsi_req *r)
{
    uint8_t p[36] = {0};
    if (r->cdb[1] & ~1u)
        return SENSE_CDB_FIELD;
    if (r->cdb[1] & 1)
        return r->absent ? SENSE_CDB_FIELD : vital_product_data(r);
    if (r->cdb[2])
        return SENSE_CDB_FIELD;
    p[0] = r->absent ? ABSENT : is_disk(r) ? 0x00 : 0x05;
    p[1] = is_disk(r) ? 0 : 0x80; /* removable */
    p[2] = 6;                     /* SPC-4 */
    p[3] = 0x12;                  /* hierarchical addresses, response format 2 */
    p[4] = sizeof p - 5;
    p[7] = 0x02; /* command queueing */
    put_text(p + 8, VENDOR, 8);
    put_text(p + 16, r->unit->drive.model, 16);
    put_text(p + 32, REVISION, 4);
    return scsi_reply(r, p, sizeof p, load_be16(r->cdb + 3));
}

/* ---- mode pages, SPC-4, 6.11 and 7.5; SBC-3, 6.4 ---- */

#define PAGE_CACHING 0x08u
#define PAGE_CONTROL 0x0au
#define PAGE_ALL     0x3fu
#define CACHING_LEN  20u
#define CACHING_WCE  0x04u

enum { PC_CURRENT, PC_CHANGEABLE, PC_DEFAULT, PC_SAVED };

static unsigned put_caching(const struct scsi_unit *u, unsigned pc, uint8_t *p)
{
    p[0] = PAGE_CACHING;
    p[1] = CACHING_LEN - 2;
    bool on = pc == PC_CURRENT ? u->write_cache : true;
    p[2] = on && !u->drive.blk->readonly ? CACHING_WCE : 0;
    return CACHING_LEN;
}

static unsigned put_control(unsigned pc, uint8_t *p)
{
    p[0] = PAGE_CONTROL;
    p[1] = 10;
    if (pc != PC_CHANGEABLE)
        p[3] = 0x10; /* commands may be reordered */
    return 12;
}

/* SBC-3, 6.4.2: number and length of blocks. */
static unsigned put_block_descriptor(const struct scsi_unit *u, uint8_t *p)
{
    store_be32(p, (uint32_t)min_u64(scsi_blocks(u), UINT32_MAX));
    store_be32(p + 4, u->block_size);
    return 8;
}

/* A CD-ROM drive answers as on ATAPI. */
static int cd_mode_sense(struct scsi_req *r, bool ten)
{
    uint8_t p[IDE_REPLY_SIZE] = {0};
    uint32_t n = (ten ? atapi_mode_sense10 : atapi_mode_sense6)(&r->unit->drive, r->cdb, p);
    if (!n)
        return SENSE_CDB_FIELD;
    return scsi_reply(r, p, n, ten ? load_be16(r->cdb + 7) : r->cdb[4]);
}

int scsi_mode_sense(struct scsi_req *r)
{
    const struct scsi_unit *u = r->unit;
    bool ten = r->cdb[0] == 0x5a, descriptor = !(r->cdb[1] & 8);
    unsigned page = r->cdb[2] & 0x3f, pc = r->cdb[2] >> 6, head = ten ? 8 : 4, n = head;
    uint8_t p[64] = {0};
    if (!is_disk(r))
        return cd_mode_sense(r, ten);
    if (pc == PC_SAVED)
        return SENSE_SAVING;
    if (r->cdb[3] && r->cdb[3] != 0xff) /* subpages */
        return SENSE_CDB_FIELD;
    if (descriptor)
        n += put_block_descriptor(u, p + n);
    unsigned before = n;
    if (page == PAGE_CACHING || page == PAGE_ALL)
        n += put_caching(u, pc, p + n);
    if (page == PAGE_CONTROL || page == PAGE_ALL)
        n += put_control(pc, p + n);
    if (n == before)
        return SENSE_CDB_FIELD;
    uint8_t specific = u->drive.blk->readonly ? 0x90 : 0x10; /* write-protected; FUA */
    if (ten) {
        store_be16(p, (uint16_t)(n - 2));
        p[3] = specific;
        p[7] = descriptor ? 8 : 0;
    } else {
        p[0] = (uint8_t)(n - 1);
        p[2] = specific;
        p[3] = descriptor ? 8 : 0;
    }
    return scsi_reply(r, p, n, ten ? load_be16(r->cdb + 7) : r->cdb[4]);
}

/* The list: header, block descriptors, one caching page, of which the write cache can be changed.
 */
static bool find_caching(const uint8_t *p, unsigned len, bool ten, const uint8_t **page)
{
    unsigned head = ten ? 8 : 4;
    if (len < head)
        return false;
    unsigned at = head + (ten ? load_be16(p + 6) : p[3]);
    *page = p + at;
    return at + CACHING_LEN == len && (p[at] & 0x7f) == PAGE_CACHING &&
           p[at + 1] == CACHING_LEN - 2;
}

int scsi_mode_select(struct scsi_req *r)
{
    struct scsi_unit *u = r->unit;
    bool ten = r->cdb[0] == 0x55;
    unsigned len = ten ? load_be16(r->cdb + 7) : r->cdb[4];
    const uint8_t *page;
    uint8_t p[128];
    if (r->cdb[1] & 1)
        return SENSE_SAVING;
    if (!(r->cdb[1] & 0x10)) /* pages in the standard's format */
        return SENSE_CDB_FIELD;
    if (!len)
        return 0;
    if (len > sizeof p)
        return SENSE_PARAMETER_LENGTH;
    if (!scsi_take(r, p, len))
        return 0;
    if (!find_caching(p, len, ten, &page))
        return SENSE_PARAMETER_FIELD;
    u->write_cache = page[2] & CACHING_WCE;
    if (u->write_cache || u->drive.blk->readonly)
        return 0;
    return scsi_submit(r, BLK_FLUSH, 0, 0); /* what is in the cache */
}
