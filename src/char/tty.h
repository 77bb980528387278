/*
 * tty.h - the user's terminal in raw mode, and back to what it was however the process ends.
 *
 * One terminal per process: signal handlers must find its settings. It is restored by
 * char_tty_restore(), at exit(), and before death by a signal that nobody else handles.
 */
#ifndef SOSIA_CHAR_TTY_H
#define SOSIA_CHAR_TTY_H

#include "base/error.h"

/* Raw mode: every key goes to the guest, nothing is echoed or translated. ERR_IO, ERR_BUSY. */
int char_tty_raw(int fd, struct error *e);
void char_tty_restore(void);

#endif
