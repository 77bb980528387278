/*
 * ide.h - an IDE channel: two drives, each a disk (ATA) or a CD-ROM (ATAPI), behind one set of
 * command block registers. Pure core: no clock, lock or thread; disk I/O through block.h.
 * Sources: ATA/ATAPI-7 (T13 1532D) volumes 1 and 2; MMC-3 and SPC-2 for packets. What serial ATA
 * adds to the drives is there for AHCI ports, whose `link` takes the cable's place (ahci.h).
 *
 * Ownership: a channel has one request in flight at most, and `buf` belongs to it. A reset does not
 * wait for it: the request turns stale, its result is ignored, and the next command that needs the
 * disk stays busy until it is back.
 */
#ifndef SOSIA_CHIP_IDE_H
#define SOSIA_CHIP_IDE_H

#include "base/field.h"
#include "block/block.h"
#include "chip/pin.h"
#include "mem/space.h"

#define IDE_BUF_SIZE   (256 * KIB)
#define IDE_REPLY_SIZE 512u
#define IDE_SECTOR     512u
#define IDE_CD_SECTOR  2048u

enum ide_kind { IDE_NONE, IDE_DISK, IDE_CDROM };

/* Command block registers, by offset from the channel's first port. */
enum ide_reg {
    IDE_DATA,
    IDE_FEATURE, /* read: error */
    IDE_COUNT,   /* packet: interrupt reason */
    IDE_LBA0,
    IDE_LBA1, /* packet: byte count */
    IDE_LBA2,
    IDE_DEVICE,
    IDE_STATUS, /* write: command */
    IDE_REGS,
};

struct ide_geometry {
    uint16_t cyls;
    uint8_t heads, sectors; /* per cylinder 1..16, per track 1..255 */
};

/* The state of a CD-ROM drive that is not in the registers. */
struct ide_cd {
    uint8_t key, asc, ascq; /* sense data of the last command */
    bool attention;         /* the medium may have changed: one UNIT ATTENTION is due */
    bool locked;            /* PREVENT MEDIUM REMOVAL */
    bool tray_open;
    uint8_t event; /* media event to report: 0 none, 2 new medium, 3 removed */
};

/* What READ LOG EXT tells of the queued command that failed last (ACS-3, 9.13). */
struct ata_ncq_error {
    uint8_t tag, status, error, device;
    uint64_t lba;
    uint16_t count;
};

struct ide_drive {
    enum ide_kind kind;
    bool sata; /* on an AHCI port */
    struct ata_ncq_error ncq_error;
    unsigned unit;   /* 0 master, 1 slave */
    struct blk *blk; /* CD-ROM: NULL without a medium */
    char model[41], serial[21];
    uint8_t reg[IDE_STATUS][2]; /* as written: [0] the last value, [1] the one before (LBA48) */
    uint8_t status, error;
    uint64_t sectors; /* disk: of 512 bytes */
    struct ide_geometry native, current;
    uint8_t multiple; /* sectors in a block of READ/WRITE MULTIPLE; 0: disabled */
    uint8_t mode;     /* transfer mode as in SET FEATURES 03h */
    bool write_cache, look_ahead, smart, standby;
    struct ide_cd cd;
};

/* The bus master. move() carries up to n bytes between `buf` and the guest's scatter list and
 * returns how many; fewer than n: the list has ended, and ide_dma_start() will say when there is
 * another. */
struct ide_dma {
    size_t (*move)(void *ctx, uint8_t *buf, size_t n, bool to_guest);
    void *ctx;
};

/* A port that plays the host's part itself: it carries the blocks of PIO commands like those of DMA
 * ones, command packets included, and takes the ends of commands in the place of INTRQ. */
struct ide_link {
    /* The registers tell how the command ended. Not `told`: with the last block of a PIO command,
     * of which a drive on a cable does not inform the host further. NULL: a cable. */
    void (*ended)(void *ctx, bool told);
    void *ctx;
};

enum ide_dir { IDE_IDLE, IDE_IN, IDE_OUT }; /* IN: to the guest */

struct ide_channel;
typedef void ide_step(struct ide_channel *ch);

/* The data phase of the command in progress. */
struct ide_xfer {
    enum ide_dir dir;
    bool dma;
    bool packet;     /* interrupt reason and byte count accompany each block */
    bool quiet;      /* no interrupt for the next block (first of a write, command packet) */
    bool flush;      /* the data must be durable before the command is done */
    bool host_turn;  /* data (IN) or room (OUT) is there for the guest */
    uint64_t offset; /* disk: where `data` comes from or goes to */
    uint64_t left;   /* disk: bytes from `offset` on that the command still covers */
    uint8_t *data;   /* ch->buf or ch->reply */
    uint32_t len, pos;
    uint32_t block;     /* PIO: bytes in a block, the amount between two interrupts */
    uint32_t block_end; /* PIO: end of the present block in `data` */
    ide_step *done;     /* all data went over */
};

struct ide_channel {
    struct ide_drive drive[2];
    struct pin irq;
    struct ide_dma dma;
    struct ide_link link;
    bool dma_ready; /* the bus master is started and has not run out of list */
    uint8_t sel;    /* the selected drive */
    uint8_t control;
    bool irq_pending;
    struct ide_drive *active; /* whose command is in progress, or NULL */
    struct ide_xfer xfer;
    uint8_t reply[IDE_REPLY_SIZE];
    uint8_t *buf;
    uint32_t saved; /* bytes of it that belong to the saved state */

    struct blk_req req;
    struct iovec iov;
    bool io_busy, io_stale;
    void (*io_next)(struct ide_channel *ch, int result);
    ide_step *deferred;           /* starts when the stale request is back */
    uint32_t trim_next, trim_end; /* DATA SET MANAGEMENT: ranges of `buf` that are left */
};

/* An empty channel; `irq` is INTRQ (IRQ 14 or 15). ERR_NOMEM. */
int ide_init(struct ide_channel *ch, struct pin irq, struct error *e);
extern const struct field_table ide_fields, ide_drive_fields;
void ide_fini(struct ide_channel *ch); /* after blk_close() of the drives' disks */
void ide_reset(struct ide_channel *ch);

/* Before the guest runs. `serial` up to 20 characters, `model` up to 40. */
void ide_attach_disk(struct ide_channel *ch, unsigned unit, struct blk *blk, const char *model,
                     const char *serial);
/* blk is NULL for an empty drive. */
void ide_attach_cdrom(struct ide_channel *ch, unsigned unit, struct blk *blk, const char *model,
                      const char *serial);
/* Exchanges the medium (NULL: takes it out); the guest is told. The old one may be closed
 * afterwards, without the device lock. */
void ide_cdrom_change(struct ide_channel *ch, unsigned unit, struct blk *blk);

/* The bus master was started or stopped by the guest. */
void ide_dma_start(struct ide_channel *ch);
void ide_dma_stop(struct ide_channel *ch);

extern const struct io_ops ide_command_ops; /* 8 ports; dev: the channel */
extern const struct io_ops ide_control_ops; /* 1 port: device control, alternate status */

#endif
