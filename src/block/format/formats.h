/*
 * formats.h - the formats that the table in format.c lists, one file (or a few) each.
 */
#ifndef SOSIA_BLOCK_FORMAT_FORMATS_H
#define SOSIA_BLOCK_FORMAT_FORMATS_H

#include "block/format.h"

extern const struct format format_qcow2;
extern const struct format format_raw;
extern const struct format format_vdi;
extern const struct format format_vmdk;

#endif
