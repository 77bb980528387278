/*
 * console.h - the far end of a device where there is no terminal: output goes to a log, input comes
 * from whoever is attached.
 *
 * Whoever shows the console reads the log: so any number may look, none of them can make the guest
 * wait, and nothing is kept in memory for them. The log is bounded: when it is full, it becomes the
 * old log and starts anew. What cannot be written (a full disk) is lost, and said once.
 *
 * Invariants of the ring as in writer.h.
 */
#ifndef SOSIA_CHAR_CONSOLE_H
#define SOSIA_CHAR_CONSOLE_H

#include <pthread.h>
#include <uv.h>

#include "base/error.h"
#include "char/char.h"

#define CHAR_CONSOLE_LOG   (16ull * 1024 * 1024) /* bytes of the log */
#define CHAR_CONSOLE_INPUT 4096u                 /* bytes of input at a time */

struct char_console;

struct char_console_config {
    int log, old; /* stay the caller's; `old` -1: none. Regular files, opened for writing */
    uint64_t max; /* 0: CHAR_CONSOLE_LOG */
    /* Input has been delivered to the device. On the loop's thread, device lock not held. */
    void (*delivered)(void *arg);
    void *arg;
};

/* ERR_NOMEM, ERR_IO. */
int char_console_open(struct char_console **c, uv_loop_t *loop, pthread_mutex_t *dev_lock,
                      const struct char_console_config *cfg, struct error *e);
struct char_out char_console_out(struct char_console *c);
struct char_ready char_console_ready(struct char_console *c);
/* For wiring: the device's side. Before the loop runs, or with the device lock held. */
void char_console_set_in(struct char_console *c, struct char_in in);

/* Up to CHAR_CONSOLE_INPUT bytes for the device; `delivered` is called when it has them all. False:
 * the last input is not delivered yet. On the loop's thread, device lock not held. */
bool char_console_input(struct char_console *c, const uint8_t *bytes, size_t n);

/* As char_terminal_close(). */
void char_console_close(struct char_console *c);

#endif
