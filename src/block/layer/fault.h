/*
 * fault.h - a layer whose operations fail, fall short or take long, by rules. For tests.
 */
#ifndef SOSIA_BLOCK_LAYER_FAULT_H
#define SOSIA_BLOCK_LAYER_FAULT_H

#include "block/node.h"

enum fault_op {
    FAULT_READ = 1u << 0,
    FAULT_WRITE = 1u << 1,
    FAULT_FLUSH = 1u << 2,
    FAULT_ZERO = 1u << 3,
    FAULT_DISCARD = 1u << 4,
};

enum fault_kind {
    FAULT_ERROR,   /* nothing is done */
    FAULT_SHORT,   /* READ, WRITE: the first half is done; the others: nothing */
    FAULT_LATENCY, /* it is done, later */
};

struct fault_rule {
    unsigned ops; /* enum fault_op */
    enum fault_kind kind;
    uint64_t from, to; /* operations that touch these bytes; `to` 0: any. Flushes touch none */
    unsigned skip;     /* so many of them go well first */
    unsigned times;    /* and so many are hit then; 0: all */
    int err;           /* ERROR, SHORT: an errno; 0: EIO */
    uint64_t ns;       /* LATENCY */
};

#define FAULT_RULES 16

/* Takes over `child` when it succeeds. ERR_NOMEM. */
int fault_open(struct node *child, struct node **out, struct error *e);
/* Any thread. The first rule that hits counts. ERR_LIMIT: there are FAULT_RULES already. */
int fault_add(struct node *n, const struct fault_rule *rule);
void fault_clear(struct node *n);
/* Operations that were hit so far. */
unsigned fault_hits(struct node *n);

#endif
