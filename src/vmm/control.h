/*
 * control.h - the control socket of a running VM: QMP's wire format on a unix socket.
 *
 * QEMU's QMP specification (docs/interop/qmp-spec): a greeting, qmp_capabilities, then one JSON
 * object for each command, answered in order; events in between. Commands with names of QEMU's do
 * what QEMU's do; our own begin with x-sosia-.
 *
 * A client is untrusted input: a message has at most CONTROL_MESSAGE bytes, what waits to be read
 * by it at most CONTROL_BACKLOG (then it is cut off), and there are at most CONTROL_CLIENTS: one
 * who has not negotiated makes room for the next. All runs on the event loop's thread, a few
 * commands at a time, and nothing waits for a client.
 */
#ifndef SOSIA_VMM_CONTROL_H
#define SOSIA_VMM_CONTROL_H

#include <jansson.h>

#include "base/error.h"
#include "base/types.h"

#define CONTROL_CLIENTS 16
#define CONTROL_MESSAGE (64u * 1024)
#define CONTROL_BACKLOG (256u * 1024)

struct vm;
struct control;

/* Takes over `listener`, a listening socket. `events` (-1: none): a file that gets each event as a
 * line; stays the caller's. ERR_NOMEM, ERR_HOST. */
int control_open(struct control **out, struct vm *vm, int listener, int events, struct error *e);
void control_close(struct control *c);

/* Tells everybody. Takes over `data` (NULL: none). NULL for `c` is allowed. */
void control_event(struct control *c, const char *name, json_t *data);
/* All vCPUs are parked: commands that wait for that are carried out. NULL is allowed. */
void control_parked(struct control *c);
/* The last input of the console has been delivered (char/console.h). */
void control_delivered(void *control);

#endif
