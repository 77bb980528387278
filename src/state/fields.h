/*
 * fields.h - a struct to and from the stream's bytes, by its field table (base/field.h).
 *
 *   struct := u16 version, field..., u8 0
 *   field  := u8 length of the name (1..63), name, u8 type, u32 count, payload
 *   type   := bits 0-1: log2 of an integer's size; bit 2: signed; bit 3: structs;
 *             bit 7: readers that do not know the field may ignore it
 *   payload:= count integers | u32 bytes of what follows, count structs
 *
 * A reader takes fields in any order, an integer of any size whose value fits, and an older
 * version: a field that is missing keeps its value after a reset if the version that wrote the
 * struct did not have it yet. Everything else that is not as the table says is refused.
 */
#ifndef SOSIA_STATE_FIELDS_H
#define SOSIA_STATE_FIELDS_H

#include "base/field.h"
#include "state/codec.h"

#define STATE_MAX_DEPTH 8u /* of structs in structs */

/* Appends *obj. Failing is in out->failed. */
void state_save_fields(const struct field_table *t, void *obj, struct state_out *out);

/* Reads one struct. ERR_FORMAT, and *obj is not to be used any more; the message begins with the
 * names that lead to the place. */
int state_load_fields(const struct field_table *t, void *obj, struct state_in *in, struct error *e);

#endif
