/*
 * control_int.h - between control.c (sockets, messages), control_cmd.c (commands), control_keys.c
 * (the keyboard) and monitor.c (`info ...`).
 */
#ifndef SOSIA_VMM_CONTROL_INT_H
#define SOSIA_VMM_CONTROL_INT_H

#include <uv.h>

#include "vmm/control.h"
#include "vmm/vm.h"

struct client;

#define CONTROL_LATER 1 /* the answer comes by control_reply() */

/* One command that is being carried out. */
struct control_call {
    struct control *c;
    struct client *client;
    json_t *args; /* an object, borrowed */
    json_t *ret;  /* the answer; NULL: {} */
    struct error e;
};

struct control_command {
    const char *name;
    const char *args; /* "name:s other?:i": kinds s i o(bject) a(rray) b(ool); '?' may be missing */
    int (*run)(struct control_call *call); /* 0, CONTROL_LATER or ERR_* */
    /* Instead of `run`, or after it returned CONTROL_LATER: when all vCPUs are parked. */
    int (*parked)(struct control_call *call);
};
extern const struct control_command control_commands[]; /* ends with a NULL name */

/* Descriptors that come with a command are its own. */
#define CONTROL_FILES (SPEC_MAX_DISKS + 1)

#define CONTROL_KEYS 4096
struct control_keys {
    uint16_t key[CONTROL_KEYS]; /* Linux key codes; bit 15: released */
    size_t head, used;
    unsigned patience; /* ticks without a key taken */
    struct client *owner;
    uv_timer_t timer;
};

struct control {
    struct vm *vm;
    int events;
    uint64_t events_size;
    uv_pipe_t listener;
    uint8_t chunk[4096];
    struct client *client[CONTROL_CLIENTS];
    uint64_t clients;       /* that have come since the start */
    struct client *typist;  /* whose console input is on its way */
    struct client *snapper; /* whose snapshot is being taken */
    struct control_keys keys;
    unsigned closing; /* handles that are not closed yet */
};

struct client {
    struct control *c;
    uint64_t number; /* in the order that they came */
    uv_pipe_t pipe;
    bool negotiated, closing, skipping;    /* skipping: garbage, up to the end of the line */
    bool later;                            /* a command of it waits */
    const struct control_command *command; /* which one */
    json_t *args, *id;                     /* of that one */
    int file[CONTROL_FILES];               /* received, and not used */
    unsigned files;
    size_t len;
    char buf[CONTROL_MESSAGE];
};

/* Ends a command that was to be answered later: call->ret, or call->e if `rc` is negative. */
void control_reply(struct client *cl, struct control_call *call, int rc);
void control_send_error(struct client *cl, json_t *id, const char *class, const char *text);

/* control_keys.c: characters of a US keyboard, or names of keys ("ctrl", "a", "f1": QEMU's
 * QKeyCode).
 */
bool control_key_code(const char *name, uint16_t *key);
bool control_char_keys(char ch, uint16_t *key, bool *shift);
/* Queues presses and releases; false: no room. */
bool control_keys_add(struct control *c, const uint16_t *events, size_t n);
/* The client gets its answer when all are taken. */
void control_keys_start(struct control *c, struct client *owner);

/* monitor.c: the answer to `info WHAT`, allocated; all vCPUs are parked. ERR_USAGE. */
int monitor_info(struct vm *vm, const char *line, char **out, struct error *e);

#endif
