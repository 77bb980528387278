/*
 * piix4smb.h - the SMBus host controller of the Intel 82371AB (PIIX4), on a bus without devices.
 * Source: 82371AB datasheet (290562), 7.3 "SMBus I/O Space Registers".
 *
 * Every transaction ends with the device error that a missing acknowledge is, so that probing
 * guests find an empty bus and do not wait for a controller.
 */
#ifndef SOSIA_CHIP_PIIX4SMB_H
#define SOSIA_CHIP_PIIX4SMB_H

#include "chip/chip.h"

#define PIIX4SMB_SIZE 16u

struct piix4smb {
    uint8_t status;
    uint8_t reg[PIIX4SMB_SIZE]; /* those that just hold what was written */
};

extern const struct io_ops piix4smb_ops; /* PIIX4SMB_SIZE ports */

extern const struct field_table piix4smb_fields;

void piix4smb_reset(struct piix4smb *s);

#endif
