/*
 * powercut.h - a layer that is a disk with a volatile write cache, and whose power fails. For tests
 * of what promises to survive that.
 *
 * What was written and not flushed is kept aside. When the power fails, each sector of it holds,
 * at random, what was last flushed or what any of the writes since put there, independent of the
 * others: writes are lost, come out of order, or are torn between sectors; a sector never is. A
 * discard takes effect at once, which is the worst that it may do.
 */
#ifndef SOSIA_BLOCK_LAYER_POWERCUT_H
#define SOSIA_BLOCK_LAYER_POWERCUT_H

#include "block/node.h"

/* Takes over `child` when it succeeds. ERR_NOMEM. */
int powercut_open(struct node *child, struct node **out, struct error *e);
/* The power fails now: the child gets what survives, and every later operation is -EIO. */
void powercut_cut(struct node *n, uint64_t seed);
/* The power fails at the operation after `ops` others (of those that change something, and
 * flushes), which is then -EIO, too, but may have been done in part. */
void powercut_arm(struct node *n, uint64_t ops, uint64_t seed);
bool powercut_is_cut(struct node *n);

#endif
