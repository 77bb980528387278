/* ata_identify.c - what drives say about themselves: IDENTIFY (ATA/ATAPI-7 vol. 1, 6.17 and 6.18)
 * and the SMART tables. */
#include <string.h>

#include "base/endian.h"
#include "chip/ide_core.h"

#define MAX_MULTIPLE 16u
#define FIRMWARE     "1.0"

static void put(uint8_t *buf, unsigned word, uint16_t val)
{
    store_le16(buf + 2 * word, val);
}

static void put32(uint8_t *buf, unsigned word, uint32_t val)
{
    store_le32(buf + 2 * word, val);
}

/* Strings are padded with blanks, and the first character of a pair is in the upper byte. */
static void put_string(uint8_t *buf, unsigned word, const char *s, unsigned len)
{
    size_t n = strlen(s);
    for (unsigned i = 0; i < len; i++)
        buf[2 * word + (i ^ 1)] = i < n ? (uint8_t)s[i] : ' ';
}

/* Words 63 and 88: modes supported in the low byte, the selected one in the high byte. */
static void put_dma_modes(const struct ide_drive *d, uint8_t *buf)
{
    uint16_t mdma = 0x07, udma = 0x3f;
    if ((d->mode & 0xf8) == 0x20)
        mdma |= (uint16_t)(0x100u << (d->mode & 7));
    if ((d->mode & 0xf8) == 0x40)
        udma |= (uint16_t)(0x100u << (d->mode & 7));
    put(buf, 63, mdma);
    put(buf, 88, udma);
}

/* Serial ATA: what ACS-3 has in the places where there was nothing before. */
static void put_sata(const struct ide_drive *d, uint8_t *buf)
{
    bool disk = d->kind == IDE_DISK;
    put(buf, 75, disk ? 31 : 0);          /* queue depth less one */
    put(buf, 76, disk ? 0x010e : 0x000e); /* three speeds, queued commands */
    put(buf, 77, 0x0006);                 /* the third one now */
    put(buf, 80, 0x01f0);                 /* ATA/ATAPI-4 to ATA8-ACS */
    put(buf, 93, 0);                      /* no cable */
    put(buf, 222, 0x107f);                /* serial transport, SATA 3.0 */
}

/* Identity, timing and version words, which both kinds of drive have. */
static void put_common(const struct ide_drive *d, uint8_t *buf)
{
    memset(buf, 0, IDE_SECTOR);
    put_string(buf, 10, d->serial, 20);
    put_string(buf, 23, FIRMWARE, 8);
    put_string(buf, 27, d->model, 40);
    put(buf, 49, 0x0b00); /* IORDY, LBA, DMA */
    put(buf, 50, 0x4000);
    put(buf, 51, 0x0200); /* PIO mode 2 by default */
    put_dma_modes(d, buf);
    put(buf, 64, 0x0003); /* PIO modes 3 and 4 */
    for (unsigned w = 65; w <= 68; w++)
        put(buf, w, 120);                    /* cycle times, ns */
    put(buf, 80, 0x00f0);                    /* ATA/ATAPI-4 to -7 */
    put(buf, 93, d->unit ? 0x6b00 : 0x600b); /* 80-conductor cable, diagnostics passed */
    if (d->sata)
        put_sata(d, buf);
}

/* Word 255: the bytes of the sector add up to zero. */
static void put_checksum(uint8_t *buf)
{
    uint8_t sum = 0;
    buf[510] = 0xa5;
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + buf[i]);
    buf[511] = (uint8_t)-sum;
}

static void put_geometry(const struct ide_drive *d, uint8_t *buf)
{
    const struct ide_geometry *n = &d->native, *c = &d->current;
    put(buf, 1, n->cyls);
    put(buf, 3, n->heads);
    put(buf, 6, n->sectors);
    put(buf, 53, 0x0007); /* words 54-58, 64-70 and 88 are valid */
    put(buf, 54, c->cyls);
    put(buf, 55, c->heads);
    put(buf, 56, c->sectors);
    put32(buf, 57, (uint32_t)c->cyls * c->heads * c->sectors);
}

void ata_identify_disk(const struct ide_drive *d, uint8_t *buf)
{
    put_common(d, buf);
    put_geometry(d, buf);
    put(buf, 0, 0x0040); /* fixed disk */
    put(buf, 47, 0x8000 | MAX_MULTIPLE);
    if (d->multiple)
        put(buf, 59, 0x0100 | d->multiple);
    put32(buf, 60, (uint32_t)min_u64(d->sectors, 0x0fffffff));
    put(buf, 82, 0x4069); /* NOP, look-ahead, write cache, power management, SMART */
    put(buf, 83, 0x7400); /* FLUSH CACHE (EXT), 48-bit addresses */
    put(buf, 84, d->sata ? 0x4060 : 0x4040); /* FUA; general purpose logs */
    put(buf, 85,
        (uint16_t)(0x4008 | (d->look_ahead ? 0x40 : 0) | (d->write_cache ? 0x20 : 0) |
                   (d->smart ? 1 : 0)));
    put(buf, 86, 0x3400);
    put(buf, 87, d->sata ? 0x4060 : 0x4040);
    put(buf, 106, 0x6003); /* 2^3 sectors in a physical one: the host's page */
    put(buf, 209, 0x4000); /* which the first one begins */
    if (!d->blk->readonly) {
        put(buf, 105, ATA_TRIM_BLOCKS);
        put(buf, 169, 1); /* TRIM */
    }
    store_le64(buf + 200, d->sectors);
    put(buf, 217, 1); /* does not rotate */
    put_checksum(buf);
}

void ata_identify_packet(const struct ide_drive *d, uint8_t *buf)
{
    put_common(d, buf);
    put(buf, 0, 0x85c0);  /* CD-ROM, removable, DRQ within 50 us, 12-byte packets */
    put(buf, 53, 0x0006); /* words 64-70 and 88 are valid */
    put(buf, 82, 0x4218); /* NOP, DEVICE RESET, PACKET, power management */
    put(buf, 83, 0x4000);
    put(buf, 84, 0x4000);
    put(buf, 85, 0x4218);
    put(buf, 87, 0x4000);
    put_checksum(buf);
}

/* A drive that never wears out has no attributes, only the frame around them. */
void ata_smart_table(uint8_t *buf, bool thresholds)
{
    uint8_t sum = 0;
    memset(buf, 0, IDE_SECTOR);
    put(buf, 0, 1); /* revision */
    if (!thresholds)
        put(buf, 184, 0x0003); /* saves attributes before power modes change */
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + buf[i]);
    buf[511] = (uint8_t)-sum;
}

/* ACS-3, 9.2 and 9.13: the directory, and the queued command that failed. */
bool ata_log_page(const struct ide_drive *d, uint8_t log, uint8_t *buf)
{
    const struct ata_ncq_error *n = &d->ncq_error;
    uint8_t sum = 0;
    memset(buf, 0, IDE_SECTOR);
    switch (log) {
    case 0x00:
        put(buf, 0, 1);
        put(buf, 0x10, 1);
        return true;
    case 0x10:
        buf[0] = n->tag;
        buf[2] = n->status;
        buf[3] = n->error;
        for (unsigned i = 0; i < 3; i++) {
            buf[4 + i] = (uint8_t)(n->lba >> (8 * i));
            buf[8 + i] = (uint8_t)(n->lba >> (24 + 8 * i));
        }
        buf[7] = n->device;
        store_le16(buf + 12, n->count);
        for (unsigned i = 0; i < 511; i++)
            sum = (uint8_t)(sum + buf[i]);
        buf[511] = (uint8_t)-sum;
        return true;
    default:
        return false;
    }
}
