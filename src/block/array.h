/*
 * array.h - arrays of images: opening one by the names of its members, and making one.
 */
#ifndef SOSIA_BLOCK_ARRAY_H
#define SOSIA_BLOCK_ARRAY_H

#include "block/layer/raid.h"

struct array_options {
    unsigned level;     /* or RAID_ANY_LEVEL */
    const char *format; /* of all members; NULL or "auto": as when the array was made */
    bool readonly;
    bool degraded;      /* as raid_options' */
    bool allow_outside; /* as image_options' */
};

/* As image_open() and raid_open(). Members that cannot be opened are missing, no more. */
int array_open(const char *const *path, unsigned n, const struct array_options *o,
               struct node **out, struct error *e);

struct array_create {
    struct raid_create raid;
    const char *format;
    bool allow_outside;
    bool destroy; /* members may have contents that are lost */
};

/* ERR_STATE: they have. */
int array_create(const char *const *path, unsigned n, const struct array_create *c,
                 struct error *e);

#endif
