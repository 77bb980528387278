/*
 * i82077_data.h - private to the 82077AA: its data transfer commands (i82077_data.c), and what they
 * need of the register side (i82077.c).
 */
#ifndef SOSIA_CHIP_I82077_DATA_H
#define SOSIA_CHIP_I82077_DATA_H

#include "chip/i82077.h"

#define ST0_ABNORMAL 0x40
#define ST0_INVALID  0x80
#define ST0_POLLING  0xc0
#define ST0_SEEK_END 0x20
#define ST0_EQUIP    0x10

#define DOR_RESET    0x04 /* active low */
#define DOR_DMAGATE  0x08
#define CONFIG_EIS   0x40
#define CONFIG_POLL  0x10 /* 1: polling disabled */
#define CONFIG_EFIFO 0x20
#define SPECIFY_ND   0x01 /* non-DMA mode */

/* Drives the interrupt output. */
void i82077_raise(struct i82077 *f, bool level);

/* Enters the result phase with `len` bytes in f->result. */
void i82077_finish(struct i82077 *f, unsigned len, bool interrupt);

/* Moves a drive's heads, if it exists. */
void i82077_step_to(struct i82077 *f, unsigned drive, unsigned track);

/* f->command holds a complete command of this group. */
void i82077_start_read(struct i82077 *f);
void i82077_start_write(struct i82077 *f);
void i82077_start_verify(struct i82077 *f);
void i82077_start_format(struct i82077 *f);
void i82077_start_read_id(struct i82077 *f);

/* Makes the request ready for a state that was loaded. */
void i82077_data_loaded(struct i82077 *f);

/* The guest has moved all pio_len bytes. */
void i82077_pio_done(struct i82077 *f);

#endif
