/*
 * i82077.h - 82077AA floppy disk controller in PC AT mode, with one drive, A.
 *
 * Source: Intel 82077AA data sheet (290166-007). Mechanics take no time: a command is done when its
 * I/O is.
 */
#ifndef SOSIA_CHIP_I82077_H
#define SOSIA_CHIP_I82077_H

#include "block/block.h"
#include "chip/chip.h"
#include "chip/i8237.h"
#include "chip/pin.h"

#define I82077_SECTOR 512

struct i82077_geometry {
    uint32_t size; /* bytes */
    uint8_t tracks, heads, sectors;
    uint8_t rates;     /* a bit for each data rate code (DSR, CCR) at which it can be read */
    uint8_t cmos_type; /* of a drive for it: low or high nibble of CMOS byte 0x10 */
};

struct i82077_drive {
    bool present;
    struct blk *blk; /* NULL: empty */
    const struct i82077_geometry *geometry;
    uint8_t track; /* where the heads are */
    bool changed;  /* DSKCHG: set until a step with a disk in */
};

enum i82077_phase { I82077_COMMAND, I82077_EXECUTE, I82077_RESULT };

enum i82077_op { I82077_READ, I82077_VERIFY, I82077_WRITE, I82077_FORMAT };

/* A data transfer command under way. */
struct i82077_transfer {
    enum i82077_op op;
    unsigned drive;
    uint8_t head; /* the side that is read; H below is what the ID says */
    uint8_t c, h, r, n, eot;
    bool multi_track, deleted;
    bool counted;   /* VERIFY with a sector count; READ TRACK; FORMAT: */
    unsigned left;  /* sectors to go */
    bool tc;        /* terminal count was reached */
    bool wrote;     /* something is to be flushed */
    uint8_t filler; /* FORMAT */
    uint8_t st0, st1, st2;
};

struct i82077 {
    struct i82077_drive drive[2]; /* B is absent */
    struct i8237 *dma;
    struct pin irq; /* IRQ 6 */
    uint8_t dor, tdr, rate;
    bool interrupt;
    uint8_t srt_hut, hlt_nd, config, precomp, perpendicular;
    bool lock;
    uint8_t pcn[4];
    unsigned reset_sense; /* "ready changed" statuses that SENSE INTERRUPT still has to report */
    uint8_t seek_busy;    /* a bit for each drive: seek ended, not sensed yet */
    uint8_t seek_st0[4];

    enum i82077_phase phase;
    uint8_t command[9], result[10];
    unsigned command_len, command_need, result_pos, result_len;
    struct i82077_transfer x;

    uint8_t buf[I82077_SECTOR];
    unsigned pio_pos, pio_len; /* non-DMA mode: bytes moved and to move; pio_len 0: not waiting */
    bool pio_out;              /* to the guest */
    struct blk_req req;
    struct iovec iov;
    bool inflight; /* req is with the back end */
    bool stale;    /* ... for a command that was reset meanwhile */
    bool deferred; /* a new command waits for that */
};

extern const struct chip_desc i82077_desc;

/* `disk`: drive A's medium, or NULL for an empty drive. It stays the caller's. 0 or ERR_FORMAT. */
int i82077_init(struct i82077 *f, struct i8237 *dma, struct blk *disk, struct pin irq,
                struct error *e);

/* Changes drive A's medium; NULL takes it out. The old one may be closed once its requests are
 * done, as blk_close() does. 0, or ERR_FORMAT if the image has no floppy's size: the drive is
 * unchanged then. */
int i82077_insert(struct i82077 *f, struct blk *disk, struct error *e);

/* Drive A's type for CMOS byte 0x10: that of its medium, 1.44 MB if empty. */
uint8_t i82077_cmos_type(const struct i82077 *f);

#endif
