/*
 * size.h - sizes as people write them: "20G", "512M", "1.5T", "4096".
 */
#ifndef SOSIA_BLOCK_SIZE_H
#define SOSIA_BLOCK_SIZE_H

#include "base/types.h"

/* A whole or decimal number and K, M, G, T, P or E (powers of 1024; "GiB" and "GB" mean the same);
 * without a unit, bytes. False: it is no size, no whole number of bytes, or beyond 2^63 - 1. */
bool size_parse(const char *text, uint64_t *bytes);
/* "20 GiB", "1.5 MiB", "512 bytes": for people, rounded. */
const char *size_format(char buf[32], uint64_t bytes);

#endif
