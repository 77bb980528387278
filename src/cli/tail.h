/*
 * tail.h - reading a log that grows: from a place on, also when it starts anew.
 */
#ifndef SOSIA_CLI_TAIL_H
#define SOSIA_CLI_TAIL_H

#include <sys/types.h>

#include "catalog/catalog.h"

struct tail {
    int dir;
    const char *name;
    int fd; /* -1: the file is not there yet */
    off_t at;
};

void tail_open(struct tail *t, const struct vm *vm, const char *name);
void tail_close(struct tail *t);
/* Starts where the last `lines` lines begin. */
void tail_last(struct tail *t, unsigned lines);
/* What is there from here on, up to `size` bytes; 0: nothing now. */
size_t tail_read(struct tail *t, char *buf, size_t size);

#endif
