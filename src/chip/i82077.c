/*
 * i82077.c - the 82077AA's registers, phases, and the commands that move no data. See i82077.h.
 *
 * A command goes through its phases: COMMAND bytes come in through the data register, EXECUTE, then
 * RESULT bytes go out. Commands without a result return to COMMAND at once.
 */
#include "chip/i82077.h"

#include <string.h>

#include "chip/i82077_data.h"

#define MSR_RQM  0x80
#define MSR_DIO  0x40
#define MSR_NDMA 0x20
#define MSR_BUSY 0x10

#define DSR_RESET 0x80
#define RATE      0x03
#define ST3_BASE  0x28 /* two-sided, ready */
#define ST3_WP    0x40
#define ST3_T0    0x10
#define RATE_250K 2
#define MAX_TRACK 83 /* where the heads meet the stop */
#define MAX_STEPS 79 /* RECALIBRATE gives up after so many */

static const struct i82077_geometry geometries[] = {
    {360 * 1024, 40, 2, 9, 1 << 1 | 1 << 2, 1}, /* at 300 kb/s in a 1.2 MB drive */
    {720 * 1024, 80, 2, 9, 1 << 2, 3},          {1200 * 1024, 80, 2, 15, 1 << 0, 2},
    {1440 * 1024, 80, 2, 18, 1 << 0, 4},        {2880 * 1024, 80, 2, 36, 1 << 3, 5},
};

#define GEOMETRY_1440K (&geometries[3])

void i82077_raise(struct i82077 *f, bool level)
{
    f->interrupt = level;
    pin_set(&f->irq, level && (f->dor & DOR_DMAGATE));
}

void i82077_finish(struct i82077 *f, unsigned len, bool interrupt)
{
    f->phase = len ? I82077_RESULT : I82077_COMMAND;
    f->result_pos = 0;
    f->result_len = len;
    if (interrupt)
        i82077_raise(f, true);
}

void i82077_step_to(struct i82077 *f, unsigned drive, unsigned track)
{
    f->pcn[drive] = (uint8_t)track;
    if (drive > 1 || !f->drive[drive].present)
        return;
    struct i82077_drive *d = &f->drive[drive];
    uint8_t to = (uint8_t)min_u64(track, MAX_TRACK);
    if (to != d->track && d->blk)
        d->changed = false;
    d->track = to;
}

static void end_seek(struct i82077 *f, unsigned drive, uint8_t st0)
{
    f->seek_busy |= 1u << drive;
    f->seek_st0[drive] = st0 | (uint8_t)drive;
    i82077_finish(f, 0, true);
}

static void do_seek(struct i82077 *f)
{
    unsigned drive = f->command[1] & 3;
    i82077_step_to(f, drive, f->command[2]);
    end_seek(f, drive, ST0_SEEK_END | (f->command[1] & 4));
}

/* Opcode bit 6: inwards, to higher tracks. */
static void do_relative_seek(struct i82077 *f)
{
    unsigned drive = f->command[1] & 3, by = f->command[2], at = f->pcn[drive];
    unsigned to = f->command[0] & 0x40 ? (at + by) & 0xff : at > by ? at - by : 0;
    i82077_step_to(f, drive, to);
    end_seek(f, drive, ST0_SEEK_END | (f->command[1] & 4));
}

static void do_recalibrate(struct i82077 *f)
{
    unsigned drive = f->command[1] & 3;
    bool present = drive < 2 && f->drive[drive].present;
    unsigned from = present ? f->drive[drive].track : MAX_STEPS + 1;
    i82077_step_to(f, drive, from > MAX_STEPS ? from - MAX_STEPS : 0);
    f->pcn[drive] = 0;
    bool found = from <= MAX_STEPS; /* an absent drive never signals track 0 */
    end_seek(f, drive, ST0_SEEK_END | (found ? 0 : ST0_ABNORMAL | ST0_EQUIP));
}

static void invalid(struct i82077 *f)
{
    f->result[0] = ST0_INVALID;
    i82077_finish(f, 1, false);
}

static void do_sense_interrupt(struct i82077 *f)
{
    i82077_raise(f, false);
    if (f->reset_sense) {
        unsigned drive = 4 - f->reset_sense--;
        f->result[0] = ST0_POLLING | (uint8_t)drive;
        f->result[1] = f->pcn[drive];
    } else if (f->seek_busy) {
        unsigned drive = (unsigned)__builtin_ctz(f->seek_busy);
        f->seek_busy &= ~(1u << drive);
        f->result[0] = f->seek_st0[drive];
        f->result[1] = f->pcn[drive];
    } else {
        invalid(f);
        return;
    }
    i82077_finish(f, 2, false);
}

static void do_sense_drive(struct i82077 *f)
{
    unsigned drive = f->command[1] & 3;
    uint8_t st3 = ST3_BASE | (f->command[1] & 7);
    if (drive < 2 && f->drive[drive].present) {
        const struct i82077_drive *d = &f->drive[drive];
        st3 |= d->track == 0 ? ST3_T0 : 0;
        st3 |= d->blk && d->blk->readonly ? ST3_WP : 0;
    }
    f->result[0] = st3;
    i82077_finish(f, 1, false);
}

static void do_specify(struct i82077 *f)
{
    f->srt_hut = f->command[1];
    f->hlt_nd = f->command[2];
    i82077_finish(f, 0, false);
}

static void do_configure(struct i82077 *f)
{
    f->config = f->command[2] & 0x7f;
    f->precomp = f->command[3];
    i82077_finish(f, 0, false);
}

/* OW (bit 7) lets the drive bits be changed. */
static void do_perpendicular(struct i82077 *f)
{
    uint8_t val = f->command[1];
    f->perpendicular = val & 0x80 ? val & 0x3f : (f->perpendicular & 0x3c) | (val & 3);
    i82077_finish(f, 0, false);
}

static void do_lock(struct i82077 *f)
{
    f->lock = f->command[0] & 0x80;
    f->result[0] = (uint8_t)(f->lock << 4);
    i82077_finish(f, 1, false);
}

static void do_version(struct i82077 *f)
{
    f->result[0] = 0x90; /* enhanced controller */
    i82077_finish(f, 1, false);
}

static void do_dumpreg(struct i82077 *f)
{
    memcpy(f->result, f->pcn, 4);
    f->result[4] = f->srt_hut;
    f->result[5] = f->hlt_nd;
    f->result[6] = f->x.eot;
    f->result[7] = (uint8_t)(f->lock << 7 | f->perpendicular);
    f->result[8] = f->config;
    f->result[9] = f->precomp;
    i82077_finish(f, 10, false);
}

/* Table 5-1. `mask` covers the bits of the first byte that select the command. */
static const struct command {
    uint8_t mask, opcode, len;
    void (*run)(struct i82077 *f);
} commands[] = {
    {0x1f, 0x06, 9, i82077_start_read},    /* READ DATA */
    {0x1f, 0x0c, 9, i82077_start_read},    /* READ DELETED DATA */
    {0x9f, 0x02, 9, i82077_start_read},    /* READ TRACK */
    {0x3f, 0x05, 9, i82077_start_write},   /* WRITE DATA */
    {0x3f, 0x09, 9, i82077_start_write},   /* WRITE DELETED DATA */
    {0x1f, 0x16, 9, i82077_start_verify},  /* VERIFY */
    {0xbf, 0x0d, 6, i82077_start_format},  /* FORMAT TRACK */
    {0xbf, 0x0a, 2, i82077_start_read_id}, /* READ ID */
    {0xff, 0x07, 2, do_recalibrate},
    {0xff, 0x08, 1, do_sense_interrupt},
    {0xff, 0x03, 3, do_specify},
    {0xff, 0x04, 2, do_sense_drive},
    {0xff, 0x0f, 3, do_seek},
    {0xbf, 0x8f, 3, do_relative_seek},
    {0xff, 0x0e, 1, do_dumpreg},
    {0xff, 0x10, 1, do_version},
    {0xff, 0x13, 4, do_configure},
    {0xff, 0x12, 2, do_perpendicular},
    {0x7f, 0x14, 1, do_lock},
};

static const struct command *find_command(uint8_t byte)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if ((byte & commands[i].mask) == commands[i].opcode)
            return &commands[i];
    return NULL;
}

static void command_byte(struct i82077 *f, uint8_t val)
{
    if (!f->command_len) {
        const struct command *c = find_command(val);
        if (!c) {
            invalid(f);
            return;
        }
        f->command_need = c->len;
    }
    f->command[f->command_len++] = val;
    if (f->command_len < f->command_need)
        return;
    f->command_len = 0;
    find_command(f->command[0])->run(f);
}

static void data_write(struct i82077 *f, uint8_t val)
{
    if (f->phase == I82077_COMMAND) {
        command_byte(f, val);
    } else if (f->phase == I82077_EXECUTE && f->pio_len && !f->pio_out) {
        i82077_raise(f, false);
        f->buf[f->pio_pos++] = val;
        if (f->pio_pos == f->pio_len)
            i82077_pio_done(f);
    }
}

static uint8_t data_read(struct i82077 *f)
{
    uint8_t val = 0;
    if (f->phase == I82077_RESULT) {
        if (!f->result_pos)
            i82077_raise(f, false);
        val = f->result[f->result_pos++];
        if (f->result_pos == f->result_len)
            f->phase = I82077_COMMAND;
    } else if (f->phase == I82077_EXECUTE && f->pio_len && f->pio_out) {
        i82077_raise(f, false);
        val = f->buf[f->pio_pos++];
        if (f->pio_pos == f->pio_len)
            i82077_pio_done(f);
    }
    return val;
}

static uint8_t main_status(const struct i82077 *f)
{
    uint8_t val = f->seek_busy;
    if (!(f->dor & DOR_RESET))
        return 0;
    switch (f->phase) {
    case I82077_COMMAND:
        return val | MSR_RQM | (f->command_len ? MSR_BUSY : 0);
    case I82077_RESULT:
        return val | MSR_RQM | MSR_DIO | MSR_BUSY;
    default:
        val |= MSR_BUSY;
        if (f->pio_len)
            val |= MSR_RQM | MSR_NDMA | (f->pio_out ? MSR_DIO : 0);
        return val;
    }
}

/* Ends whatever is under way. LOCK keeps what CONFIGURE set (3.4). */
static void stop(struct i82077 *f)
{
    f->phase = I82077_COMMAND;
    f->command_len = 0;
    f->pio_len = 0;
    f->stale = f->inflight;
    f->deferred = false;
    f->reset_sense = 0;
    f->seek_busy = 0;
    f->perpendicular &= 0x3c;
    if (!f->lock) {
        f->config = CONFIG_EFIFO;
        f->precomp = 0;
    }
    i82077_raise(f, false);
}

/* After a reset, polling finds that every drive's ready line changed. */
static void start_polling(struct i82077 *f)
{
    if (f->config & CONFIG_POLL)
        return;
    f->reset_sense = 4;
    i82077_raise(f, true);
}

static void write_dor(struct i82077 *f, uint8_t val)
{
    bool was_running = f->dor & DOR_RESET;
    f->dor = val;
    if (was_running && !(val & DOR_RESET))
        stop(f);
    else if (!was_running && (val & DOR_RESET))
        start_polling(f);
    i82077_raise(f, f->interrupt);
}

static void write_dsr(struct i82077 *f, uint8_t val)
{
    f->rate = val & RATE;
    if ((val & DSR_RESET) && (f->dor & DOR_RESET)) { /* this one releases itself */
        stop(f);
        start_polling(f);
    }
}

/* DSKCHG comes from the drive that is selected and spinning. */
static uint8_t digital_input(const struct i82077 *f)
{
    unsigned drive = f->dor & 3;
    if (drive > 1 || !(f->dor & 0x10u << drive) || !f->drive[drive].present)
        return 0;
    return f->drive[drive].changed || !f->drive[drive].blk ? 0x80 : 0;
}

/* Offsets from 0x3f2: DOR, TDR, MSR/DSR, data. */
static uint64_t low_read(void *dev, uint64_t off, unsigned size)
{
    struct i82077 *f = dev;
    switch (off) {
    case 0:
        return f->dor;
    case 1:
        return f->tdr;
    case 2:
        return main_status(f);
    default:
        return f->dor & DOR_RESET ? data_read(f) : 0;
    }
}

static void low_write(void *dev, uint64_t off, uint64_t val64, unsigned size)
{
    struct i82077 *f = dev;
    uint8_t val = (uint8_t)val64;
    switch (off) {
    case 0:
        write_dor(f, val);
        break;
    case 1:
        f->tdr = val & 3;
        break;
    case 2:
        write_dsr(f, val);
        break;
    default:
        if (f->dor & DOR_RESET)
            data_write(f, val);
    }
}

static uint64_t high_read(void *dev, uint64_t off, unsigned size)
{
    return digital_input(dev);
}

static void high_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct i82077 *f = dev;
    f->rate = val & RATE;
}

static void i82077_reset(void *dev)
{
    struct i82077 *f = dev;
    f->lock = false;
    stop(f);
    f->dor = f->tdr = 0;
    f->rate = RATE_250K;
    f->srt_hut = f->hlt_nd = f->perpendicular = 0;
    memset(f->pcn, 0, sizeof f->pcn);
    f->x.eot = 0;
    i82077_raise(f, false);
}

int i82077_insert(struct i82077 *f, struct blk *disk, struct error *e)
{
    const struct i82077_geometry *g = NULL;
    for (size_t i = 0; disk && i < ARRAY_LEN(geometries); i++)
        if (geometries[i].size == disk->size)
            g = &geometries[i];
    if (disk && !g)
        return error_set(e, ERR_FORMAT,
                         "a floppy image has 360, 720, 1200, 1440 or 2880 KiB, not %llu bytes",
                         (unsigned long long)disk->size);
    struct i82077_drive *d = &f->drive[0];
    d->blk = disk;
    d->geometry = g ? g : GEOMETRY_1440K;
    d->changed = true;
    return 0;
}

uint8_t i82077_cmos_type(const struct i82077 *f)
{
    return f->drive[0].geometry->cmos_type;
}

int i82077_init(struct i82077 *f, struct i8237 *dma, struct blk *disk, struct pin irq,
                struct error *e)
{
    *f = (struct i82077){.dma = dma, .irq = irq};
    f->drive[0].present = true;
    int r = i82077_insert(f, disk, e);
    if (r < 0)
        return r;
    i82077_reset(f);
    return 0;
}

static const struct io_ops low_ops = {"i82077", 1, low_read, low_write};
static const struct io_ops high_ops = {"i82077-dir", 1, high_read, high_write};

/* 0x3f0 and 0x3f1 do not exist in AT mode, 0x3f6 is the disk controller's. */
static const struct chip_range ranges[] = {
    {true, 0x3f2, 4, &low_ops},
    {true, 0x3f7, 1, &high_ops},
    {0},
};

/* ---- state ---- */

static int check_phase(const struct i82077 *f, struct error *e)
{
    const struct command *c = find_command(f->command[0]);
    bool ok = false;
    switch (f->phase) {
    case I82077_COMMAND:
        ok = !f->command_len || (c && f->command_need == c->len && f->command_len < c->len);
        break;
    case I82077_RESULT:
        ok = !f->command_len && f->result_pos < f->result_len;
        break;
    case I82077_EXECUTE: /* no request is in flight, so the guest's data are awaited */
        ok = !f->command_len && f->pio_pos < f->pio_len && f->pio_out == (f->x.op == I82077_READ) &&
             f->x.op != I82077_VERIFY;
        break;
    }
    return ok ? 0 : error_set(e, ERR_FORMAT, "phase: does not agree with what was transferred");
}

static int post_load(void *dev, struct error *e)
{
    struct i82077 *f = dev;
    const struct i82077_transfer *x = &f->x;
    i82077_data_loaded(f);
    if (x->wrote && (x->drive >= ARRAY_LEN(f->drive) || !f->drive[x->drive].blk))
        return error_set(e, ERR_FORMAT, "x: wrote: there is no such drive");
    return check_phase(f, e);
}

static const struct field drive_fields[] = {
    FIELD_NONE(struct i82077_drive, present),
    FIELD_NONE(struct i82077_drive, blk),
    FIELD_NONE(struct i82077_drive, geometry), /* of the medium */
    FIELD(struct i82077_drive, track, .max = MAX_TRACK),
    FIELD(struct i82077_drive, changed),
};
static const struct field_table drive_table =
    FIELD_TABLE(struct i82077_drive, "i82077_drive", drive_fields);

static const struct field transfer_fields[] = {
    FIELD(struct i82077_transfer, op, .max = I82077_FORMAT),
    FIELD(struct i82077_transfer, drive, .max = 3),
    FIELD(struct i82077_transfer, head, .max = 1),
    FIELD(struct i82077_transfer, c),
    FIELD(struct i82077_transfer, h),
    FIELD(struct i82077_transfer, r),
    FIELD(struct i82077_transfer, n),
    FIELD(struct i82077_transfer, eot),
    FIELD(struct i82077_transfer, multi_track),
    FIELD(struct i82077_transfer, deleted),
    FIELD(struct i82077_transfer, counted),
    FIELD(struct i82077_transfer, left, .max = 256),
    FIELD(struct i82077_transfer, tc),
    FIELD(struct i82077_transfer, wrote),
    FIELD(struct i82077_transfer, filler),
    FIELD(struct i82077_transfer, st0),
    FIELD(struct i82077_transfer, st1),
    FIELD(struct i82077_transfer, st2),
};
static const struct field_table transfer_table =
    FIELD_TABLE(struct i82077_transfer, "i82077_transfer", transfer_fields);

static const struct field fields[] = {
    FIELD_STRUCTS(struct i82077, drive, drive_table),
    FIELD_NONE(struct i82077, dma),
    FIELD_NONE(struct i82077, irq),
    FIELD(struct i82077, dor),
    FIELD(struct i82077, tdr),
    FIELD(struct i82077, rate, .max = 3),
    FIELD(struct i82077, interrupt),
    FIELD(struct i82077, srt_hut),
    FIELD(struct i82077, hlt_nd),
    FIELD(struct i82077, config),
    FIELD(struct i82077, precomp),
    FIELD(struct i82077, perpendicular),
    FIELD(struct i82077, lock),
    FIELD_ARRAY(struct i82077, pcn),
    FIELD(struct i82077, reset_sense, .max = 4),
    FIELD(struct i82077, seek_busy, .max = 15),
    FIELD_ARRAY(struct i82077, seek_st0),
    FIELD(struct i82077, phase, .max = I82077_RESULT),
    FIELD_ARRAY(struct i82077, command),
    FIELD_ARRAY(struct i82077, result),
    FIELD(struct i82077, command_len, .max = 8),
    FIELD(struct i82077, command_need, .max = 9),
    FIELD(struct i82077, result_pos, .max = 10),
    FIELD(struct i82077, result_len, .max = 10),
    FIELD_STRUCT(struct i82077, x, transfer_table),
    FIELD_ARRAY(struct i82077, buf),
    FIELD(struct i82077, pio_pos, .max = I82077_SECTOR),
    FIELD(struct i82077, pio_len, .max = I82077_SECTOR),
    FIELD(struct i82077, pio_out),
    FIELD_NONE(struct i82077, req), /* the disks are drained before the state is saved */
    FIELD_NONE(struct i82077, iov),
    FIELD_NONE(struct i82077, inflight),
    FIELD_NONE(struct i82077, stale),
    FIELD_NONE(struct i82077, deferred),
};
static const struct field_table table =
    FIELD_TABLE(struct i82077, "i82077", fields, .post_load = post_load);

const struct chip_desc i82077_desc = {"i82077", i82077_reset, ranges, &table};
