/*
 * ahci.h - a serial ATA controller with the programming interface AHCI 1.3.1, as Intel's ICH9 has
 * one: six ports, each a disk, a CD-ROM drive, or nothing. Pure core. Sources: Serial ATA
 * AHCI 1.3.1 (clauses without a name are its); Serial ATA 3.0 for the frames (FIS); ACS-3.
 *
 * A port runs the commands of chip/ide.h's drives, one at a time, their data being copied between
 * the drive's buffer and the command's scatter list. Queued commands (NCQ) bypass that: the guest's
 * memory is the request's, and up to 32 are in flight.
 *
 * Everything in the guest's memory is read once, into a local. A scatter list costs one step for at
 * least two bytes of data, a command list has 32 entries: no loop depends on the guest alone.
 *
 * Requests in flight write the guest's memory, so PxCMD.CR and GHC.HR read as 1 until the last one
 * is back. Invariants: `ci` holds commands not yet begun and the one in `slot`; `sact` those whose
 * end the guest does not know; ncq[n].busy requests in flight, of which `stale` ones have no
 * command any more.
 */
#ifndef SOSIA_CHIP_AHCI_H
#define SOSIA_CHIP_AHCI_H

#include "chip/ide.h"

#define AHCI_PORTS   6
#define AHCI_SLOTS   32
#define AHCI_BAR_LEN 0x1000u
#define AHCI_PIECES  256 /* of memory in one request; longer lists take several */

/* A scatter list (4.2.3.3) and how far it is used up. */
struct ahci_list {
    gpa_t table;
    uint32_t next, entries;
    gpa_t addr;
    uint32_t count; /* bytes left at addr */
    uint32_t moved; /* PRDBC */
};

struct ahci_ncq {
    struct ahci_port *port;
    unsigned slot;
    bool busy, stale, write, fua;
    uint64_t offset, len; /* of the disk: what is left */
    struct ahci_list list;
    struct blk_req io;
    struct iovec iov[AHCI_PIECES];
};

struct ahci_port {
    struct ahci *hba;
    unsigned n;
    struct ide_channel ide; /* drive[0], or none */
    gpa_t clb, fb;
    uint32_t is, ie, cmd, sctl, serr, sact, ci;
    int slot;     /* of the command that the drive runs, or -1 */
    uint8_t last; /* slot begun last, PxCMD.CCS */
    bool stalled; /* after an error, until the guest stops the port (6.2.2) */
    bool running; /* ahci_port_run() is at work */
    bool srst;    /* between the two frames of a software reset */
    bool offline; /* PxSCTL.DET holds the link, or a reset waits for requests */
    bool packet;  /* the command packet is due */
    gpa_t table;  /* of the command in `slot` */
    struct ahci_list list;
    struct ahci_ncq *ncq; /* AHCI_SLOTS of them; NULL: no disk */
    unsigned inflight;
};

struct ahci {
    struct space *mem;
    struct pin irq;
    uint32_t ghc, is;
    bool dma; /* the bus lets the controller reach memory */
    bool resetting;
    struct ahci_port port[AHCI_PORTS];
};

/* ERR_NOMEM. */
int ahci_init(struct ahci *h, struct space *mem, struct pin irq, struct error *e);
extern const struct field_table ahci_fields;
void ahci_fini(struct ahci *h); /* after blk_close() of the disks */
void ahci_power_on(struct ahci *h);

/* Before the guest runs; as ide_attach_*(). ERR_NOMEM. */
int ahci_attach_disk(struct ahci *h, unsigned port, struct blk *blk, const char *model,
                     const char *serial, struct error *e);
void ahci_attach_cdrom(struct ahci *h, unsigned port, struct blk *blk, const char *model,
                       const char *serial);

/* Bus mastering was switched. */
void ahci_set_dma(struct ahci *h, bool on);

extern const struct io_ops ahci_ops; /* AHCI_BAR_LEN bytes; dev: the controller */

#endif
