/*
 * model.h - what each sector of a disk may hold after a crash.
 *
 * Each sector of a write is filled with a number of its own; 0 is zeroes. A sector holds what it
 * held at the last flush that was acknowledged, or anything that was written to it since. The model
 * lies in memory that a child shares: it is true whenever the child is killed, so what a write may
 * leave behind is noted before it, and what is durable after the flush.
 */
#ifndef TESTS_CRASH_MODEL_H
#define TESTS_CRASH_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "block/node.h"

#define SECTOR       512u
#define DISK_SIZE    (3 * MIB)
#define MAX_DISK     (5 * MIB)
#define MAX_SECTORS  (MAX_DISK / SECTOR)
#define ALTERNATIVES 6

struct sector_model {
    uint32_t durable, written[ALTERNATIVES];
    uint8_t n; /* of `written`, the newest last */
    bool busy; /* a write is in flight: a flush says nothing about it */
};

struct model {
    struct sector_model sector[MAX_SECTORS];
    uint64_t size, other_size; /* the other: while it changes; else the same */
    uint32_t stamp;            /* the last number given to a write */
    uint32_t foreign;          /* not 0: sectors may hold any number up to this (bench) */
    bool full;                 /* some sector has no room for one more */
};

/* Zeroes, all of it durable. */
void model_reset(struct model *m, uint64_t size);
uint32_t model_current(const struct model *m, uint64_t sector);
void model_write(struct model *m, uint64_t first, uint64_t n, uint32_t stamp);
/* A flush was acknowledged, or (`n` sectors alone) a write that is durable by itself. */
void model_flushed(struct model *m);
void model_durable(struct model *m, uint64_t first, uint64_t n, uint32_t stamp);
void model_busy(struct model *m, uint64_t first, uint64_t n, bool busy);
/* The size is about to change. */
void model_resize(struct model *m, uint64_t size);
/* A buffer of `n` sectors full of a number; allocated. */
uint32_t *model_fill(uint64_t n, uint32_t stamp);
/* The number that fills a sector; false: its words differ. */
bool model_stamp(const uint8_t *data, uint32_t *stamp);
/* Reads the disk: its size and each sector must be possible, and if `exact` the newest. From then
 * on only that is. False: *why says what is wrong. */
bool model_learn(struct model *m, struct node *n, bool exact, char why[160]);

#endif
