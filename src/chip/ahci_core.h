/* ahci_core.h - what the parts of the AHCI controller share: ahci.c (the controller's registers),
 * ahci_port.c (a port's registers and commands), ahci_ncq.c (queued commands), ahci_fis.c (what is
 * read from and written to the guest's memory). */
#ifndef SOSIA_CHIP_AHCI_CORE_H
#define SOSIA_CHIP_AHCI_CORE_H

#include "chip/ahci.h"

/* PxIS, PxIE: 3.3.5 */
enum {
    IS_DHRS = 1 << 0,  /* register frame from the device */
    IS_PSS = 1 << 1,   /* PIO setup frame */
    IS_SDBS = 1 << 3,  /* set device bits frame */
    IS_DPS = 1 << 5,   /* an entry of the scatter list that asks for it */
    IS_PCS = 1 << 6,   /* PxSERR.DIAG.X */
    IS_OFS = 1 << 24,  /* the scatter list is too short */
    IS_IFS = 1 << 27,  /* fatal error of the interface */
    IS_HBFS = 1 << 29, /* fatal error of the host's bus: it is no memory */
    IS_TFES = 1 << 30, /* the drive reports an error */
};

/* PxCMD: 3.3.7 */
enum {
    CMD_ST = 1 << 0,
    CMD_SUD = 1 << 1,
    CMD_POD = 1 << 2,
    CMD_CLO = 1 << 3,
    CMD_FRE = 1 << 4,
    CMD_FR = 1 << 14,
    CMD_CR = 1 << 15,
    CMD_ATAPI = 1 << 24,
};

/* A command's header (4.2.2) and frame (Serial ATA 3.0, 10.3.4), as read. */
#define AHCI_CFIS_LEN 20u
struct ahci_command {
    bool atapi, clear_busy;
    uint16_t prdtl;
    gpa_t table;
    uint8_t fis[AHCI_CFIS_LEN];
};

/* ---- ahci.c ---- */

/* Brings the controller's interrupt up to date with its ports'. */
void ahci_update_irq(struct ahci *h);
/* A port's last request is back. */
void ahci_drained(struct ahci *h);

/* ---- ahci_port.c ---- */

/* Connects the drives' core, which is ready, with the port. */
extern const struct field_table ahci_port_fields;
void ahci_port_init(struct ahci_port *p, struct ahci *h, unsigned n);
uint32_t ahci_port_read(struct ahci_port *p, unsigned reg);
void ahci_port_write(struct ahci_port *p, unsigned reg, uint32_t val);
/* Starts what can be started. */
void ahci_port_run(struct ahci_port *p);
/* Events of PxIS. */
void ahci_port_event(struct ahci_port *p, uint32_t is);
/* An error after which the port does nothing until the guest stops it. */
void ahci_port_fatal(struct ahci_port *p, uint32_t is);
/* As after power-on, but for requests in flight, which turn stale. */
void ahci_port_reset(struct ahci_port *p);
/* The end of a reset: the drive sends its signature. */
void ahci_port_ready(struct ahci_port *p);

/* ---- ahci_ncq.c ---- */

/* Begins the queued command in the drive's registers. */
void ahci_ncq_start(struct ahci_port *p, unsigned slot, uint8_t cmd, const struct ahci_command *c);
/* No request in flight belongs to a command any more. */
void ahci_ncq_cancel(struct ahci_port *p);
bool ahci_ncq_busy(const struct ahci_port *p, unsigned slot);

/* ---- ahci_fis.c ---- */

/* False: the list or the table is not in memory. */
bool ahci_read_command(struct ahci_port *p, unsigned slot, struct ahci_command *c);
void ahci_write_count(struct ahci_port *p, unsigned slot, uint32_t bytes); /* PRDBC */
/* The next piece of memory. 1; 0: the list has ended; -1: it is not in memory. */
int ahci_list_next(struct ahci_port *p, struct ahci_list *l);
/* Frames from the drive; each leaves its registers. `interrupt` sets the event too. */
void ahci_post_registers(struct ahci_port *p, bool interrupt);
void ahci_post_pio_setup(struct ahci_port *p, uint32_t bytes);
void ahci_post_device_bits(struct ahci_port *p, uint32_t finished);

#endif
