/*
 * piix4pm.h - power management of the Intel 82371AB (PIIX4): the ACPI register block with its timer
 * and SCI, and the APM control port. Source: 82371AB datasheet (290562), chapter 7 "Power
 * Management Register Descriptions"; ACPI specification 2.0, chapter 4.
 *
 * The block's place in the port space is set in PCI configuration space: pci/piix4pm_pci.h.
 */
#ifndef SOSIA_CHIP_PIIX4PM_H
#define SOSIA_CHIP_PIIX4PM_H

#include "base/clock.h"
#include "chip/chip.h"
#include "chip/pin.h"

#define PIIX4PM_SIZE     64u
#define PIIX4PM_TIMER_HZ 3579545u

/* Offsets in the block, which the FADT repeats. */
enum {
    PIIX4PM_STS = 0x00, /* PM1a event: status, then enable */
    PIIX4PM_EN = 0x02,
    PIIX4PM_CNT = 0x04,   /* PM1a control */
    PIIX4PM_TMR = 0x08,   /* 24 bits */
    PIIX4PM_GPSTS = 0x0c, /* GPE0: status, then enable */
    PIIX4PM_GPEN = 0x0e,
};

/* The SMI command port and the values by which the guest takes over and hands back ACPI. A PC's SMM
 * handler would do it; here the chip does. */
#define PIIX4PM_APMC         0xb2u
#define PIIX4PM_ACPI_ENABLE  0xf1u
#define PIIX4PM_ACPI_DISABLE 0xf0u
#define PIIX4PM_SLP_TYP_S5   0u /* soft off; 1 would be suspend to RAM, which is refused */

struct piix4pm {
    struct timerq *tq;
    struct timer overflow;
    struct pin sci;
    void (*power_off)(void *ctx);
    void *ctx;
    uint16_t sts, en, cnt, gpsts, gpen;
    ns_t toggle; /* when bit 23 of the timer changes for the first time since TMROF_STS was cleared
                  */
    uint8_t apmc, apms;
};

/* Ranges: the APM ports. */
extern const struct chip_desc piix4pm_desc;
/* The ACPI block, PIIX4PM_SIZE ports. */
extern const struct io_ops piix4pm_ops;

/* sci: interrupt 9. power_off is called once the guest enters S5; the machine should stop. */
int piix4pm_init(struct piix4pm *p, struct timerq *tq, const struct pin *sci,
                 void (*power_off)(void *ctx), void *ctx, struct error *e);
void piix4pm_fini(struct piix4pm *p);
void piix4pm_reset(struct piix4pm *p);

/* Someone pushed the power button: the guest is asked to shut down. */
void piix4pm_power_button(struct piix4pm *p);

/* What firmware does before it boots a kernel: hands ACPI over (sets SCI_EN). */
void piix4pm_acpi_enable(struct piix4pm *p, bool on);

#endif
