/*
 * nbd.h - a remote disk by the NBD protocol as a node.
 */
#ifndef SOSIA_BLOCK_IO_NBD_H
#define SOSIA_BLOCK_IO_NBD_H

#include "block/node.h"

/* Connects to `uri`: nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, or nbds for TLS.
 * Waits for the server. ERR_IO, ERR_STATE (the export cannot be written), ERR_LIMIT, ERR_NOMEM. */
int nbd_open(const char *uri, bool readonly, struct node **out, struct error *e);

#endif
