/*
 * iscsi.h - a logical unit of an iSCSI target as a node.
 */
#ifndef SOSIA_BLOCK_IO_ISCSI_H
#define SOSIA_BLOCK_IO_ISCSI_H

#include "block/node.h"

/* Logs in to `url`: iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN. ERR_IO, ERR_LIMIT, ERR_SPEC,
 * ERR_NOMEM. */
int iscsi_open(const char *url, bool readonly, struct node **out, struct error *e);

#endif
