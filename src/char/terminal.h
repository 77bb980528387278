/*
 * terminal.h - standard input and output as the far end of a device.
 *
 * Input: a terminal is set to raw mode, so that every key reaches the guest; Ctrl-A is the escape
 * (Ctrl-A h lists the keys). A pipe or file works as well, with the same escape; its end leaves the
 * VM running. Output goes through a char_writer. The loop's thread does all reading, writing and
 * calling.
 */
#ifndef SOSIA_CHAR_TERMINAL_H
#define SOSIA_CHAR_TERMINAL_H

#include <pthread.h>
#include <uv.h>

#include "base/error.h"
#include "char/char.h"

struct char_terminal_hooks {
    /* On the loop's thread, device lock not held. */
    void (*quit)(void *arg);  /* Ctrl-A x */
    void (*power)(void *arg); /* Ctrl-A p: the power button */
    /* Ctrl-A s: fills in the guest's text screen, lines that end with '\n', NUL-terminated. */
    void (*screen)(void *arg, char *buf, size_t size);
    void (*engine)(void *arg); /* Ctrl-A e: another engine */
    void (*save)(void *arg);   /* Ctrl-A z: save the state, and leave */
    void *arg;
};

struct char_terminal;

/* On standard input and output. Reads nothing before the loop runs. ERR_IO, ERR_NOMEM, ERR_BUSY. */
int char_terminal_open(struct char_terminal **t, uv_loop_t *loop, pthread_mutex_t *dev_lock,
                       const struct char_terminal_hooks *hooks, struct error *e);
/* The same on other descriptors, which stay the caller's. in < 0: no input. */
int char_terminal_open_fds(struct char_terminal **t, uv_loop_t *loop, int in, int out,
                           pthread_mutex_t *dev_lock, const struct char_terminal_hooks *hooks,
                           struct error *e);

/* For the device: where it writes, and whom it tells that it can take input again. */
struct char_out char_terminal_out(struct char_terminal *t);
struct char_ready char_terminal_ready(struct char_terminal *t);
/* For wiring: the device's side. Before the loop runs, or with the device lock held. */
void char_terminal_set_in(struct char_terminal *t, struct char_in in);

/* Tells the user one line, on standard error. On the loop's thread. */
void char_terminal_say(const struct char_terminal *t, const char *line);

/* Writes all buffered output out, restores the terminal, and frees *t when the loop has run once
 * more (until uv_run(loop, UV_RUN_DEFAULT) returns). On the loop's thread, device lock not held,
 * when no vCPU runs any more. NULL is allowed. */
void char_terminal_close(struct char_terminal *t);

#endif
