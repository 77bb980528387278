/* nvme_page.c - what the controller says about itself: Identify and Get Log Page. Clauses are NVMe
 * 1.4's. */
#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "chip/nvme_core.h"

#define MODEL    "SOSIA NVME DISK"
#define FIRMWARE "1.0"

#define PHYSICAL_BLOCK (4 * KIB)  /* the host's page: less costs it a read */
#define OPTIMAL_IO     (64 * KIB) /* the usual unit of allocation of thin images */

/* ---- Identify, 5.15 ---- */

static void put_text(uint8_t *p, const char *s, unsigned len)
{
    size_t n = strlen(s);
    for (unsigned i = 0; i < len; i++)
        p[i] = i < n ? (uint8_t)s[i] : ' ';
}

static void put_controller(const struct nvme *n, uint8_t *p)
{
    put_text(p + 4, n->serial, 20);
    put_text(p + 24, MODEL, 40);
    put_text(p + 64, FIRMWARE, 8);
    p[77] = NVME_MDTS;
    store_le32(p + 80, 0x00010400);
    store_le32(p + 92, 1u << 8); /* OAES: namespace attribute notices */
    p[111] = 1;                  /* an I/O controller */
    p[258] = 3;                  /* ACL, AERL: less one */
    p[259] = NVME_AERS - 1;
    p[260] = 0x03; /* one firmware slot, read-only */
    p[261] = 0x04; /* LPA: offsets and long lengths */
    p[262] = NVME_ERRORS - 1;
    store_le16(p + 266, 0x157); /* warning and critical temperatures: 70 and 100 degrees */
    store_le16(p + 268, 0x175);
    p[512] = 0x66; /* entries of 64 and 16 bytes */
    p[513] = 0x44;
    store_le32(p + 516, 1);                /* namespaces */
    store_le16(p + 520, 1 << 2 | 1 << 3);  /* Dataset Management, Write Zeroes */
    p[525] = n->cfg.blk->readonly ? 0 : 1; /* a volatile write cache */
    snprintf((char *)p + 768, 256, "nqn.2014-08.org.nvmexpress:sosia:%s", n->serial);
    store_le16(p + 2048, 1000); /* power state 0: 10 W */
}

static void put_namespace(const struct nvme *n, uint8_t *p)
{
    uint64_t blocks = nvme_blocks(n);
    uint32_t size = n->cfg.block_size;
    uint16_t physical = (uint16_t)(PHYSICAL_BLOCK / size - 1);
    for (unsigned at = 0; at <= 16; at += 8) /* size, capacity, use */
        store_le64(p + at, blocks);
    p[24] = 0x10;                              /* the preferred sizes are valid */
    p[33] = n->cfg.blk->readonly ? 0 : 1 << 3; /* Write Zeroes may deallocate */
    store_le16(p + 64, physical);              /* to write */
    store_le16(p + 66, physical);
    store_le16(p + 68, physical); /* to deallocate */
    store_le16(p + 70, physical);
    store_le16(p + 72, (uint16_t)(OPTIMAL_IO / size - 1));
    p[99] = n->cfg.blk->readonly;
    p[128 + 2] = size == 4096 ? 12 : 9;
}

static uint64_t hash(const char *s, uint64_t h)
{
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3; /* FNV-1a */
    return h;
}

/* A UUID that stays the same: made of the serial number (RFC 4122, version 4 in form). */
static void put_descriptors(const struct nvme *n, uint8_t *p)
{
    p[0] = 3;
    p[1] = 16;
    store_be64(p + 4, hash(n->serial, 0xcbf29ce484222325));
    store_be64(p + 12, hash(n->serial, 0x9ae16a3b2f90404f));
    p[4 + 6] = (uint8_t)((p[4 + 6] & 0x0f) | 0x40);
    p[4 + 8] = (uint8_t)((p[4 + 8] & 0x3f) | 0x80);
}

int nvme_identify(struct nvme_req *r)
{
    const struct nvme *n = r->n;
    uint8_t page[NVME_PAGE] = {0};
    uint32_t nsid = r->cmd.nsid;
    switch (r->cmd.dw10 & 0xff) {
    case 0x00: /* a namespace; for all of them: what they have in common */
        if (nsid != NVME_NSID && nsid != NVME_ALL)
            return SC_NAMESPACE;
        put_namespace(n, page);
        break;
    case 0x01:
        put_controller(n, page);
        break;
    case 0x02: /* active namespaces above nsid */
        if (nsid >= 0xfffffffe)
            return SC_NAMESPACE;
        if (nsid < NVME_NSID)
            store_le32(page, NVME_NSID);
        break;
    case 0x03:
        if (nsid != NVME_NSID)
            return SC_NAMESPACE;
        put_descriptors(n, page);
        break;
    default:
        return SC_FIELD;
    }
    return nvme_copy_out(r, page, sizeof page, sizeof page);
}

/* ---- logs, 5.14.1 ---- */

void nvme_note_error(struct nvme_req *r, int status)
{
    struct nvme *n = r->n;
    memmove(&n->error[1], &n->error[0], sizeof n->error - sizeof n->error[0]);
    n->error[0] = (struct nvme_error){.count = ++n->errors,
                                      .sq = (uint16_t)r->sq,
                                      .cid = r->cmd.cid,
                                      .status = (uint16_t)(status << 1),
                                      .lba = r->sq ? r->cmd.dw10 | (uint64_t)r->cmd.dw11 << 32 : 0,
                                      .nsid = r->cmd.nsid};
}

static unsigned log_errors(const struct nvme *n, uint8_t *p)
{
    for (unsigned i = 0; i < NVME_ERRORS; i++, p += 64) {
        const struct nvme_error *err = &n->error[i];
        store_le64(p, err->count);
        store_le16(p + 8, err->sq);
        store_le16(p + 10, err->cid);
        store_le16(p + 12, err->status);
        store_le16(p + 14, 0xffff); /* no parameter in particular */
        store_le64(p + 16, err->lba);
        store_le32(p + 24, err->nsid);
    }
    return NVME_ERRORS * 64;
}

/* Data is counted in thousands of sectors, rounded up. */
static uint64_t data_units(uint64_t bytes)
{
    return (bytes + 511999) / 512000;
}

static unsigned log_smart(const struct nvme *n, uint8_t *p)
{
    store_le16(p + 1, 303); /* Kelvin */
    p[3] = 100;             /* spare, and its threshold */
    p[4] = 10;
    store_le64(p + 32, data_units(n->read_bytes));
    store_le64(p + 48, data_units(n->written_bytes));
    store_le64(p + 64, n->reads);
    store_le64(p + 80, n->writes);
    store_le64(p + 112, 1); /* power cycles */
    store_le64(p + 176, n->errors);
    return 512;
}

static unsigned log_firmware(uint8_t *p)
{
    p[0] = 1; /* slot 1 is active */
    put_text(p + 8, FIRMWARE, 8);
    return 512;
}

static unsigned log_changed(struct nvme *n, uint8_t *p, bool retain)
{
    if (n->ns_changed)
        store_le32(p, NVME_NSID);
    if (!retain)
        n->ns_changed = false;
    return NVME_PAGE;
}

int nvme_get_log(struct nvme_req *r)
{
    struct nvme *n = r->n;
    const struct nvme_cmd *c = &r->cmd;
    uint8_t page[NVME_PAGE] = {0};
    uint64_t len = (((uint64_t)(c->dw11 & 0xffff) << 16 | c->dw10 >> 16) + 1) * 4;
    uint64_t off = c->dw12 | (uint64_t)c->dw13 << 32;
    unsigned size;
    switch (c->dw10 & 0xff) {
    case 0x01:
        size = log_errors(n, page);
        break;
    case 0x02:
        size = log_smart(n, page);
        break;
    case 0x03:
        size = log_firmware(page);
        break;
    case 0x04:
        size = log_changed(n, page, c->dw10 & 1u << 15);
        break;
    default:
        return SC_BAD_LOG;
    }
    if (off % 4 || off >= size)
        return SC_FIELD;
    return nvme_copy_out(r, page + off, min_u64(len, size - off), len);
}
