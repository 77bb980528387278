/*
 * ata.c - the ATA commands. Clauses are of ATA/ATAPI-7 volume 1.
 *
 * One table says for each command code who runs it, on which kind of drive it exists, and in which
 * of the read/write families' variants it is. A code that a drive does not have is aborted.
 */
#include <string.h>

#include "base/checked.h"
#include "chip/ide_core.h"

#define MAX_MULTIPLE 16u

enum {
    F_DISK = 1,
    F_CD = 2,
    F_ANY = F_DISK | F_CD,
    F_EXT = 4, /* 48-bit addresses, 16-bit count */
    F_DMA = 8,
    F_WRITE = 16,
    F_MULTI = 32, /* blocks of several sectors */
    F_FUA = 64,
};

struct ata_op {
    void (*run)(struct ide_channel *ch, unsigned flags);
    unsigned flags;
};

/* ---- addresses ---- */

static uint32_t sector_count(const struct ide_drive *d, bool ext)
{
    uint32_t n = d->reg[IDE_COUNT][0];
    if (ext)
        n |= (uint32_t)d->reg[IDE_COUNT][1] << 8;
    return n ? n : ext ? 65536 : 256;
}

/* False: there is no such sector. */
static bool chs_to_lba(const struct ide_drive *d, uint64_t *lba)
{
    uint32_t sector = d->reg[IDE_LBA0][0], head = d->reg[IDE_DEVICE][0] & 0x0f;
    uint32_t cyl = d->reg[IDE_LBA1][0] | (uint32_t)d->reg[IDE_LBA2][0] << 8;
    const struct ide_geometry *g = &d->current;
    if (!sector || sector > g->sectors || head >= g->heads || cyl >= g->cyls)
        return false;
    *lba = ((uint64_t)cyl * g->heads + head) * g->sectors + sector - 1;
    return true;
}

/* The range a command names, checked against the disk. */
static bool decode_range(const struct ide_drive *d, bool ext, uint64_t *lba, uint32_t *count)
{
    *lba = 0;
    *count = sector_count(d, ext);
    if (ext || (d->reg[IDE_DEVICE][0] & DEV_LBA)) {
        for (unsigned i = 0; i < 3; i++) {
            *lba |= (uint64_t)d->reg[IDE_LBA0 + i][0] << (8 * i);
            if (ext)
                *lba |= (uint64_t)d->reg[IDE_LBA0 + i][1] << (24 + 8 * i);
        }
        if (!ext)
            *lba |= (uint64_t)(d->reg[IDE_DEVICE][0] & 0x0f) << 24;
    } else if (!chs_to_lba(d, lba)) {
        return false;
    }
    return range_within(*lba, *count, d->sectors);
}

/* Reports an address in the registers, both halves of them. */
static void put_lba(struct ide_drive *d, uint64_t lba, bool ext)
{
    for (unsigned i = 0; i < 3; i++) {
        d->reg[IDE_LBA0 + i][0] = (uint8_t)(lba >> (8 * i));
        d->reg[IDE_LBA0 + i][1] = ext ? (uint8_t)(lba >> (24 + 8 * i)) : 0;
    }
    if (!ext)
        d->reg[IDE_DEVICE][0] = (uint8_t)((d->reg[IDE_DEVICE][0] & 0xf0) | ((lba >> 24) & 0x0f));
}

static void abort_command(struct ide_channel *ch)
{
    ide_fail(ch, ER_ABRT);
}

/* The registers then name the first sector in doubt (6.x, error outputs). */
void ata_io_error(struct ide_channel *ch)
{
    struct ide_drive *d = ch->active;
    put_lba(d, ch->xfer.offset / IDE_SECTOR, true);
    ide_fail(ch, ch->xfer.dir == IDE_IN ? ER_UNC : ER_ABRT);
}

/* ---- reading and writing ---- */

static void read_write(struct ide_channel *ch, unsigned flags)
{
    struct ide_drive *d = ch->active;
    struct ide_xfer *x = &ch->xfer;
    uint64_t lba;
    uint32_t count;
    bool write = flags & F_WRITE;
    if ((write && d->blk->readonly) || ((flags & F_MULTI) && !d->multiple)) {
        abort_command(ch);
        return;
    }
    if (!decode_range(d, flags & F_EXT, &lba, &count)) {
        ide_fail(ch, ER_IDNF);
        return;
    }
    d->standby = false;
    x->dir = write ? IDE_OUT : IDE_IN;
    x->dma = flags & F_DMA;
    x->block = flags & F_MULTI ? d->multiple * IDE_SECTOR : IDE_SECTOR;
    x->quiet = write; /* the first block of a write is asked for without an interrupt */
    x->flush = write && (!d->write_cache || (flags & F_FUA));
    x->done = write || x->dma ? ide_finish : ide_finish_quiet;
    ide_xfer_disk(ch, lba * IDE_SECTOR, (uint64_t)count * IDE_SECTOR);
}

/* Every sector can be read: the file behind it says otherwise only when asked for data. */
static void verify(struct ide_channel *ch, unsigned flags)
{
    uint64_t lba;
    uint32_t count;
    if (decode_range(ch->active, flags & F_EXT, &lba, &count))
        ide_finish(ch);
    else
        ide_fail(ch, ER_IDNF);
}

static void flush(struct ide_channel *ch, unsigned flags)
{
    if (ch->active->blk->readonly)
        ide_finish(ch);
    else
        ide_flush(ch);
}

static void seek(struct ide_channel *ch, unsigned flags)
{
    uint64_t lba;
    uint32_t count;
    ch->active->reg[IDE_COUNT][0] = 1;
    if (decode_range(ch->active, false, &lba, &count))
        ide_finish(ch);
    else
        ide_fail(ch, ER_IDNF);
}

static void read_native_max(struct ide_channel *ch, unsigned flags)
{
    struct ide_drive *d = ch->active;
    uint64_t last = d->sectors ? d->sectors - 1 : 0;
    bool ext = flags & F_EXT;
    put_lba(d, ext ? last : min_u64(last, 0x0fffffff), ext);
    ide_finish(ch);
}

/* ---- identification ---- */

static void send_sector(struct ide_channel *ch)
{
    ch->xfer.dir = IDE_IN;
    ch->xfer.block = IDE_SECTOR;
    ch->xfer.done = ide_finish_quiet;
    ide_xfer_reply(ch, IDE_SECTOR);
}

/* A packet device aborts, with its signature, what only a disk has (6.17.5.2, 6.38). */
static void identify(struct ide_channel *ch, unsigned flags)
{
    if (ch->active->kind == IDE_CDROM) {
        ide_signature(ch->active);
        abort_command(ch);
        return;
    }
    ata_identify_disk(ch->active, ch->reply);
    send_sector(ch);
}

static void identify_packet(struct ide_channel *ch, unsigned flags)
{
    ata_identify_packet(ch->active, ch->reply);
    send_sector(ch);
}

/* Both drives test themselves, whichever was addressed (6.15). */
static void diagnostic(struct ide_channel *ch, unsigned flags)
{
    ide_cancel(ch);
    for (unsigned i = 0; i < 2; i++)
        ide_drive_reset(&ch->drive[i]);
    ch->sel = 0;
    ide_tell(ch);
}

/* ---- modes and features ---- */

static void initialize_parameters(struct ide_channel *ch, unsigned flags)
{
    struct ide_drive *d = ch->active;
    uint8_t sectors = d->reg[IDE_COUNT][0];
    uint8_t heads = (uint8_t)((d->reg[IDE_DEVICE][0] & 0x0f) + 1);
    if (!sectors) {
        abort_command(ch);
        return;
    }
    uint64_t cyls = min_u64(d->sectors / ((uint64_t)heads * sectors), 65535);
    d->current = (struct ide_geometry){(uint16_t)cyls, heads, sectors};
    ide_finish(ch);
}

static void set_multiple(struct ide_channel *ch, unsigned flags)
{
    uint8_t n = ch->active->reg[IDE_COUNT][0];
    if (n > MAX_MULTIPLE || (n & (n - 1))) {
        abort_command(ch);
        return;
    }
    ch->active->multiple = n;
    ide_finish(ch);
}

/* 6.49.1: the kind of mode in the upper bits, its number in the lower three. */
static bool mode_exists(uint8_t mode)
{
    switch (mode & 0xf8) {
    case 0x00:
        return mode <= 1;
    case 0x08:
        return (mode & 7) <= 4;
    case 0x20:
        return (mode & 7) <= 2;
    case 0x40:
        return (mode & 7) <= 5;
    default:
        return false;
    }
}

static bool set_feature(struct ide_drive *d)
{
    uint8_t mode = d->reg[IDE_COUNT][0];
    switch (d->reg[IDE_FEATURE][0]) {
    case 0x03:
        if (!mode_exists(mode))
            return false;
        d->mode = mode;
        return true;
    case 0x02:
    case 0x82:
        d->write_cache = d->reg[IDE_FEATURE][0] == 0x02;
        return d->kind == IDE_DISK;
    case 0x55:
    case 0xaa:
        d->look_ahead = d->reg[IDE_FEATURE][0] == 0xaa;
        return d->kind == IDE_DISK;
    case 0x66: /* power-on defaults survive a reset, or not: nothing here depends on it */
    case 0xcc:
        return true;
    default:
        return false;
    }
}

/* Switching the write cache off makes durable what is in it (6.49.3). */
static void set_features(struct ide_channel *ch, unsigned flags)
{
    struct ide_drive *d = ch->active;
    if (!set_feature(d))
        abort_command(ch);
    else if (d->reg[IDE_FEATURE][0] == 0x82 && !d->blk->readonly)
        ide_flush(ch);
    else
        ide_finish(ch);
}

static void succeed(struct ide_channel *ch, unsigned flags)
{
    ide_finish(ch);
}

static void stand_by(struct ide_channel *ch, unsigned flags)
{
    ch->active->standby = true;
    if (ch->active->kind == IDE_DISK)
        flush(ch, flags);
    else
        ide_finish(ch);
}

static void idle(struct ide_channel *ch, unsigned flags)
{
    ch->active->standby = false;
    ide_finish(ch);
}

static void check_power_mode(struct ide_channel *ch, unsigned flags)
{
    ch->active->reg[IDE_COUNT][0] = ch->active->standby ? 0x00 : 0xff;
    ide_finish(ch);
}

static void smart(struct ide_channel *ch, unsigned flags)
{
    struct ide_drive *d = ch->active;
    uint8_t feature = d->reg[IDE_FEATURE][0];
    bool key = d->reg[IDE_LBA1][0] == 0x4f && d->reg[IDE_LBA2][0] == 0xc2;
    if (!key || (!d->smart && feature != 0xd8)) {
        abort_command(ch);
        return;
    }
    switch (feature) {
    case 0xd0: /* READ DATA, and its thresholds */
    case 0xd1:
        ata_smart_table(ch->reply, feature == 0xd1);
        send_sector(ch);
        break;
    case 0xd8: /* ENABLE, DISABLE OPERATIONS */
    case 0xd9:
        d->smart = feature == 0xd8;
        ide_finish(ch);
        break;
    case 0xd2: /* attribute autosave: there are no attributes */
    case 0xda: /* RETURN STATUS: the key unchanged says that no threshold is exceeded */
        ide_finish(ch);
        break;
    default:
        abort_command(ch);
        break;
    }
}

/* ACS-3, 7.23 and 7.24. Only serial ATA has logs that anybody needs. */
static void read_log(struct ide_channel *ch, unsigned flags)
{
    struct ide_drive *d = ch->active;
    bool first = !d->reg[IDE_LBA1][0] && !d->reg[IDE_LBA1][1];
    if (!d->sata || !first || sector_count(d, true) != 1 ||
        !ata_log_page(d, d->reg[IDE_LBA0][0], ch->reply)) {
        abort_command(ch);
        return;
    }
    ch->xfer.dma = flags & F_DMA;
    send_sector(ch);
}

/* ACS-3, 7.5 */
static void data_set_management(struct ide_channel *ch, unsigned flags)
{
    const struct ide_drive *d = ch->active;
    uint32_t blocks = sector_count(d, true);
    if (d->blk->readonly || d->reg[IDE_FEATURE][0] != 1 || blocks > ATA_TRIM_BLOCKS) {
        abort_command(ch);
        return;
    }
    ch->xfer.dma = true;
    ata_trim(ch, blocks);
}

static void packet(struct ide_channel *ch, unsigned flags)
{
    atapi_packet(ch);
}

/* ---- queued commands; the port carries their data ---- */

/* ACS-3, 7.28 and 7.62: the count is in the feature registers, the tag in the count's. */
uint8_t ata_decode_queued(const struct ide_drive *d, uint8_t cmd, struct ata_queued *q)
{
    uint64_t lba = 0;
    for (unsigned i = 0; i < 3; i++)
        lba |= (uint64_t)d->reg[IDE_LBA0 + i][0] << (8 * i) | (uint64_t)d->reg[IDE_LBA0 + i][1]
                                                                  << (24 + 8 * i);
    uint32_t count = d->reg[IDE_FEATURE][0] | (uint32_t)d->reg[IDE_FEATURE][1] << 8;
    if (!count)
        count = 65536;
    *q = (struct ata_queued){.tag = d->reg[IDE_COUNT][0] >> 3,
                             .write = cmd == 0x61,
                             .offset = lba * IDE_SECTOR,
                             .len = (uint64_t)count * IDE_SECTOR};
    q->fua = q->write && (!d->write_cache || (d->reg[IDE_DEVICE][0] & 0x80));
    if (q->write && d->blk->readonly)
        return ER_ABRT;
    return range_within(lba, count, min_u64(d->sectors, d->blk->size / IDE_SECTOR)) ? 0 : ER_IDNF;
}

void ata_queued_failed(struct ide_drive *d, const struct ata_queued *q, uint8_t error)
{
    d->status = ST_DRDY | ST_ERR;
    d->error = error;
    d->ncq_error = (struct ata_ncq_error){.tag = (uint8_t)q->tag,
                                          .status = d->status,
                                          .error = error,
                                          .device = DEV_LBA,
                                          .lba = q->offset / IDE_SECTOR,
                                          .count = (uint16_t)(q->len / IDE_SECTOR)};
}

/* ---- dispatch ---- */

static const struct ata_op ops[256] = {
    [0x06] = {data_set_management, F_DISK | F_EXT | F_DMA},
    [0x10 ... 0x1f] = {succeed, F_DISK}, /* RECALIBRATE */
    [0x20 ... 0x21] = {read_write, F_DISK},
    [0x24] = {read_write, F_DISK | F_EXT},
    [0x25] = {read_write, F_DISK | F_EXT | F_DMA},
    [0x27] = {read_native_max, F_DISK | F_EXT},
    [0x29] = {read_write, F_DISK | F_EXT | F_MULTI},
    [0x2f] = {read_log, F_DISK | F_EXT},
    [0x30 ... 0x31] = {read_write, F_DISK | F_WRITE},
    [0x34] = {read_write, F_DISK | F_WRITE | F_EXT},
    [0x35] = {read_write, F_DISK | F_WRITE | F_EXT | F_DMA},
    [0x39] = {read_write, F_DISK | F_WRITE | F_EXT | F_MULTI},
    [0x3d] = {read_write, F_DISK | F_WRITE | F_EXT | F_DMA | F_FUA},
    [0x40 ... 0x41] = {verify, F_DISK},
    [0x42] = {verify, F_DISK | F_EXT},
    [0x47] = {read_log, F_DISK | F_EXT | F_DMA},
    [0x70] = {seek, F_DISK},
    [0x90] = {diagnostic, F_ANY},
    [0x91] = {initialize_parameters, F_DISK},
    [0x94] = {stand_by, F_ANY},
    [0x95] = {idle, F_ANY},
    [0x96] = {stand_by, F_ANY},
    [0x97] = {idle, F_ANY},
    [0x98] = {check_power_mode, F_ANY},
    [0x99] = {stand_by, F_ANY}, /* SLEEP */
    [0xa0] = {packet, F_CD},
    [0xa1] = {identify_packet, F_CD},
    [0xb0] = {smart, F_DISK},
    [0xc4] = {read_write, F_DISK | F_MULTI},
    [0xc5] = {read_write, F_DISK | F_WRITE | F_MULTI},
    [0xc6] = {set_multiple, F_DISK},
    [0xc8 ... 0xc9] = {read_write, F_DISK | F_DMA},
    [0xca ... 0xcb] = {read_write, F_DISK | F_WRITE | F_DMA},
    [0xce] = {read_write, F_DISK | F_WRITE | F_EXT | F_MULTI | F_FUA},
    [0xe0] = {stand_by, F_ANY},
    [0xe1] = {idle, F_ANY},
    [0xe2] = {stand_by, F_ANY},
    [0xe3] = {idle, F_ANY},
    [0xe5] = {check_power_mode, F_ANY},
    [0xe6] = {stand_by, F_ANY}, /* SLEEP */
    [0xe7] = {flush, F_DISK},
    [0xea] = {flush, F_DISK},
    [0xec] = {identify, F_ANY},
    [0xef] = {set_features, F_ANY},
    [0xf8] = {read_native_max, F_DISK},
};

void ata_command(struct ide_channel *ch, uint8_t cmd)
{
    const struct ata_op *op = &ops[cmd];
    unsigned kind = ch->active->kind == IDE_CDROM ? F_CD : F_DISK;
    if (op->run && (op->flags & kind)) {
        op->run(ch, op->flags);
        return;
    }
    if (kind == F_CD && (cmd == 0x20 || cmd == 0x21)) /* how old software tells (6.38) */
        ide_signature(ch->active);
    abort_command(ch);
}
