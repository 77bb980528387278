/*
 * crash.h - what the parts of the crash test share: the kinds of images, one that is being tested,
 * and how failures are told.
 */
#ifndef TESTS_CRASH_CRASH_H
#define TESTS_CRASH_CRASH_H

#include "block/format.h"
#include "block/image.h"
#include "model.h"

#define MAX_KIND_OPTIONS 5

struct kind {
    const char *name, *format;
    const char *option[MAX_KIND_OPTIONS]; /* NAME=VALUE, of create */
    const char *base;                     /* the format of its backing file; NULL: it has none */
    bool lazy;                            /* after a crash the image is repaired by opening it */
    bool fixed;                           /* its size cannot be changed */
    bool data_file;                       /* its data lies in a file of its own, "data" */
};

extern const struct kind kinds[];
extern const unsigned nkinds;

/* An image of a kind, "disk", over "base" if it has one, and maybe an overlay over it, "top". */
extern struct rig {
    const struct kind *kind;
    const char *sosia; /* the program */
    char folder[96];
    struct model *m; /* of the topmost */
    struct node *node;
    uint64_t seed, rng;
    bool layered; /* there is "top" */
    bool qemu;    /* qemu-img is installed */
    bool often;   /* it is asked each time, not now and then */
    unsigned cuts, kills;
} rig;

/* Ends the test, which has failed. */
__attribute__((noreturn, format(printf, 1, 2))) void crash_fail(const char *fmt, ...);
uint64_t rig_rnd(uint64_t n);

/* ---- image.c ---- */

/* A fresh image of a kind; what there was is removed. */
void rig_create(const struct kind *k);
/* "disk" or "top": the topmost. */
const char *rig_top(void);
const char *rig_path(const char *name, char out[192]);
/* Opens the topmost as rig.node. */
void rig_open(void);
void rig_close(void);
/* Makes "top" over "disk"; -1: it failed, as after a cut. */
int rig_overlay(void);
/* Nobody uses the topmost; it is the first if "top" is removed, whose contents are in "disk". */
void rig_remove_top(void);
/* After a crash: all images open, have no errors, and what was durable is there. */
void rig_verify(void);
/* The images named in the folder that hidden files of interrupted work took. */
void rig_sweep(void);

/* ---- life.c ---- */

/* Random operations, until one fails or `ops` are done. */
int life_run(unsigned ops);
int life_write(uint64_t first, uint64_t n, unsigned flags);
int life_flush(void);
int life_discard(uint64_t first, uint64_t n);
int life_resize(void); /* at random */
int life_resize_to(uint64_t size);

/* ---- power.c, kill.c: each is a test point of `times` crashes ---- */

void power_self_test(void);
void power_every_moment(void); /* of one kind, in turn */
void power_writes(const struct kind *k, unsigned times);
void power_overlays(const struct kind *k, unsigned times);
void power_merges(const struct kind *k, unsigned times);
void power_compacts(const struct kind *k, unsigned times);
void power_resizes(const struct kind *k, unsigned times);
void kill_writes(const struct kind *k, unsigned times);
void kill_tool(const struct kind *k, unsigned times);

#endif
