/*
 * piix3.h - Intel 82371SB (PIIX3), function 0: the ISA bridge. Here: routing of PCI interrupts to
 * ISA interrupts, and the reset control register at port 0xCF9. The ISA chips are parts of their
 * own. Source: Intel 82371FB/82371SB datasheet (290550), 2.2.
 */
#ifndef SOSIA_PCI_PIIX3_H
#define SOSIA_PCI_PIIX3_H

#include "pci/pci.h"

#define PIIX3_PIRQS 4

struct piix3 {
    struct pci_dev pci;
    uint8_t reset_control;
    uint8_t asserted[256];       /* by devfn: bit n: INTA#+n is asserted */
    unsigned count[PIIX3_PIRQS]; /* asserted interrupts on each PIRQ line */
    uint16_t driven;             /* ISA interrupts held high */
    /* Level of an ISA interrupt (0-15), for the i8259 pair and the IOAPIC pin of the same number.
     * Wiring ORs it with what ISA devices drive. */
    void (*set_irq)(void *ctx, unsigned irq, bool level);
    void (*reset_request)(void *ctx); /* the guest asks for a reset of the machine */
    void *ctx;
};

/* How the slots are wired: the PIRQ line (0: PIRQA#) of a function's pin (0: INTA#). Firmware
 * assumes this; the ACPI _PRT must agree. */
static inline unsigned piix3_pirq(unsigned devfn, unsigned pin)
{
    return ((devfn >> 3) + 3 + pin) % PIIX3_PIRQS;
}

extern const struct field_table piix3_fields;

/* Puts the bridge at devfn and claims port 0xCF9. Wiring then fills in the callbacks, and passes
 * the bus' `intx` on to piix3_intx(). */
int piix3_init(struct piix3 *p, struct pci_bus *b, unsigned devfn, struct error *e);
void piix3_intx(struct piix3 *p, unsigned devfn, unsigned pin, bool level);

#endif
