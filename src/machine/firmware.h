/*
 * firmware.h - finding and loading firmware images (SeaBIOS, the VGA BIOS).
 *
 * Images are not part of Sosia: they come from the distribution's packages. A folder named by the
 * environment variable SOSIA_FIRMWARE_DIR is searched first.
 */
#ifndef SOSIA_MACHINE_FIRMWARE_H
#define SOSIA_MACHINE_FIRMWARE_H

#include "base/error.h"
#include "mem/ram.h"

/* The path of image `name` (a plain file name) in `path`. ERR_HOST if it is nowhere, with what
 * to install; ERR_LIMIT if a path does not fit. */
int firmware_find(const char *name, char *path, size_t cap, struct error *e);

/* Finds `name` and loads it into the ROM area at RAM offset *roff.
 * A system image is 64 KiB to 1 MiB, a multiple of 64 KiB, and *len its size. An expansion ROM (it
 * begins with 55 AA) is at most 128 KiB; *len is its size rounded up to a power of two, as a BAR
 * needs it, and the rest is zero. ERR_HOST, ERR_IO, ERR_FORMAT, ERR_LIMIT. */
int firmware_load(const char *name, struct ram *ram, uint64_t *roff, uint64_t *len,
                  struct error *e);

#endif
