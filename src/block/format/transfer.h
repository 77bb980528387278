/*
 * transfer.h - moving a stretch of somebody's segments from a node below.
 */
#ifndef SOSIA_BLOCK_FORMAT_TRANSFER_H
#define SOSIA_BLOCK_FORMAT_TRANSFER_H

#include "block/iov.h"
#include "block/node.h"

/* Zeroes the next `len` bytes. */
void transfer_zero(struct iov_cursor *c, uint64_t len);
/* Reads what is at `offset` of a node below into the next `len` bytes; zeroes beyond its end, or
 * where the node is NULL. */
int transfer_read(struct node *n, struct iov_cursor *c, uint64_t offset, uint64_t len);
/* Copies into the next `len` bytes. */
void transfer_copy(struct iov_cursor *c, const uint8_t *from, uint64_t len);
/* Writes the next `len` bytes to `offset` of a node below. */
int transfer_write(struct node *n, struct iov_cursor *c, uint64_t offset, uint64_t len,
                   unsigned flags);

#endif
