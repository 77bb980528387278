/*
 * pci.h - conventional PCI: configuration mechanism #1, one bus, BARs, INTx, MSI-X.
 * Source: PCI Local Bus Specification 3.0.
 *
 * All functions are called with the device lock held. A function of a device embeds `struct
 * pci_dev`.
 */
#ifndef SOSIA_PCI_PCI_H
#define SOSIA_PCI_PCI_H

#include "base/field.h"
#include "chip/pin.h"
#include "mem/space.h"

#define PCI_DEVFN(dev, fn) (((dev) << 3) | (fn))
#define PCI_NUM_BARS       6

struct pci_bus;
struct pci_dev;

struct pci_bar {
    uint64_t size; /* power of two; 0: absent */
    bool port;     /* I/O space */
    bool wide;     /* 64-bit memory BAR: takes two slots */
    bool prefetch;
    unsigned region; /* in the memory or port space */
};

struct msix; /* msix.h */

struct pci_dev {
    const char *name;
    struct pci_bus *bus;
    uint8_t devfn;
    uint8_t cfg[256];   /* configuration space as read by the guest */
    uint8_t wmask[256]; /* bits that the guest may write */
    uint8_t saved[256]; /* cfg on its way to and from a saved state */
    uint8_t w1c[256];   /* bits that writing 1 clears (bits here are not in wmask) */
    struct pci_bar bar[PCI_NUM_BARS];
    struct pci_bar rom; /* expansion ROM: backed by RAM offset rom_roff */
    uint64_t rom_roff;
    uint8_t cap_last; /* offset of the capability added last; 0: none */
    uint8_t cap_free; /* where the next one goes; starts at 0x40 */
    bool intx_level;
    struct msix *msix;
    /* Hooks, each may be NULL. `written` runs after cfg[off, off+len) took a guest's write and BARs
     * were re-mapped; `reset` returns the function to power-on state (the core resets command, BARs
     * and MSI-X itself). */
    void (*written)(struct pci_dev *d, unsigned off, unsigned len);
    void (*reset)(struct pci_dev *d);
    /* Answers reads of registers that are not plain bytes (virtio's PCI_CFG window): true if taken.
     */
    bool (*cfg_read_hook)(struct pci_dev *d, unsigned off, unsigned size, uint32_t *val);
};

struct pci_bus {
    struct space *mem, *port;
    struct pci_dev *dev[256]; /* by devfn */
    uint32_t address;         /* CONFIG_ADDRESS, port 0xCF8 */
    /* INTA#..INTD# of a device changed: wiring routes it (PIIX3 PIRQ). pin 0 = INTA#. */
    void (*intx)(void *ctx, unsigned devfn, unsigned pin, bool level);
    void (*msi)(void *ctx, uint64_t addr, uint32_t data); /* a message-signalled interrupt */
    void *ctx;
    /* The byte port 0xCF9 lies within CONFIG_ADDRESS, which only answers dwords: who owns it (the
     * south bridge) takes byte accesses here, with off 0. NULL: nobody. */
    const struct io_ops *cf9;
    void *cf9_dev;
};

/* Priority of BARs in the address maps: RAM and the chips at fixed addresses (0) go first, so a BAR
 * that a guest points at them hides nothing. */
#define PCI_BAR_PRIO (-1)

/* Zeroes *b and maps 0xCF8/0xCFC into `port`; wiring then fills in intx, msi and ctx. */
int pci_bus_init(struct pci_bus *b, struct space *mem, struct space *port, struct error *e);
void pci_bus_reset(struct pci_bus *b);

struct pci_ids {
    uint16_t vendor, device, subvendor, subdevice;
    uint32_t class_rev; /* class, subclass, prog-if, revision as in dword 0x08 */
    uint8_t intx_pin;   /* 0 none, 1 INTA# ... */
    uint8_t header_type;
};

/* Zeroes *d, fills the header, puts the function at devfn. ERR_BUSY if the place is taken. */
int pci_dev_init(struct pci_bus *b, struct pci_dev *d, const char *name, unsigned devfn,
                 const struct pci_ids *ids, struct error *e);

/* size: power of two, >= 4 for ports, >= 16 for memory. */
int pci_bar_add(struct pci_dev *d, unsigned n, bool port, bool wide, bool prefetch, uint64_t size,
                const struct io_ops *ops, void *dev, struct error *e);
/* The expansion ROM's bytes live in the ROM area at roff; size is a power of two. */
int pci_rom_add(struct pci_dev *d, uint64_t roff, uint64_t size, struct error *e);

/* Adds a capability of `len` bytes; returns its offset in cfg, or ERR_LIMIT. */
int pci_cap_add(struct pci_dev *d, uint8_t id, unsigned len, struct error *e);

void pci_intx_set(struct pci_dev *d, bool level); /* honours the command register's INTx disable */
static inline bool pci_bus_master(const struct pci_dev *d)
{
    return d->cfg[4] & 4;
}

/* MSI-X: table and PBA in their own part of BAR `bar` (which the core adds, 4 KiB or larger). */
int pci_msix_add(struct pci_dev *d, unsigned bar, unsigned nvectors, struct error *e);
bool pci_msix_enabled(const struct pci_dev *d);
void pci_msix_notify(struct pci_dev *d, unsigned vector); /* honours masks; sets pending bits */
void pci_dev_fini(struct pci_dev *d);

/* The state of a function, which whoever embeds it has as the first of its fields, and of the bus,
 * which comes before them. */
extern const struct field_table pci_dev_fields, pci_bus_fields;

#endif
