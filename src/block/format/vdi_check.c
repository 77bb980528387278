/*
 * vdi_check.c - damage and lost space of vdi images.
 *
 * Errors: entries of the map that refer to nothing, two that refer to the same place, a header that
 * counts too few places. Space is lost by places that no entry refers to: crashes leave them, and
 * other programs count them as errors.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "block/format/vdi_int.h"

static void say(struct format_check *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct format_check *out, const char *format, ...)
{
    char line[160];
    va_list ap;
    if (!out->say)
        return;
    va_start(ap, format);
    vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    out->say(out->ctx, line);
}

/* Whole places in the file. */
static uint64_t places(const struct vdi *v)
{
    return (node_size(v->below) - v->data_at) / v->block;
}

static bool is_there(const struct vdi *v, uint32_t entry)
{
    return entry < v->blocks && entry < places(v);
}

/* Looks at all entries as they are in the file. Gives each that shares a place one of its own in
 * `to`. */
static void look_at_map(struct vdi *v, bool fix, struct format_check *out, uint32_t *to)
{
    uint32_t place = 0;
    for (uint32_t b = 0; b < v->blocks; b++) {
        uint32_t entry = load_le32(v->a.file + b * 4ull);
        to[b] = UNALLOCATED;
        if (vdi_is_place(v->a.map[b]))
            out->allocated++;
        if (!vdi_is_place(entry) || vdi_is_place(v->a.map[b]))
            continue;
        out->errors++;
        if (!is_there(v, entry)) {
            say(out, "block %u: its place %u is not in the file; it reads as zeroes", b, entry);
            v->a.dirty[b / PER_SECTOR] |= fix;
            continue;
        }
        say(out, "block %u: shares place %u with another block", b, entry);
        while (place < v->blocks && v->a.used[place])
            place++;
        to[b] = place < v->blocks ? place++ : UNALLOCATED;
    }
    out->total = v->blocks;
}

static uint64_t highest(const struct vdi *v)
{
    uint32_t end = v->blocks;
    while (end > 0 && !v->a.used[end - 1])
        end--;
    return end;
}

/* Places that nothing refers to, up to the end of the file or of what the header counts. */
static uint64_t lost(const struct vdi *v, uint64_t allocated)
{
    uint64_t end = max_u64(highest(v), max_u64(v->count, places(v)));
    return end - allocated;
}

/* Moves the last blocks to the places that nothing refers to. */
static int close_gaps(struct vdi *v, uint64_t allocated, struct error *e)
{
    uint32_t *to = malloc(v->blocks * sizeof *to), place = 0;
    if (!to)
        return error_set(e, ERR_NOMEM, "out of memory");
    for (uint32_t b = 0; b < v->blocks; b++) {
        to[b] = UNALLOCATED;
        if (!vdi_is_place(v->a.map[b]) || v->a.map[b] < allocated)
            continue;
        while (v->a.used[place])
            place++; /* below `allocated`: there are as many as blocks above */
        to[b] = place++;
    }
    int rc = vdi_relocate(v, to);
    free(to);
    return rc ? error_errno(e, ERR_IO, -rc, "cannot move blocks") : vdi_trim(v, e);
}

static int repair(struct vdi *v, unsigned fix, struct format_check *out, const uint32_t *to,
                  struct error *e)
{
    uint64_t errors = out->errors;
    int rc = 0;
    if ((fix & FORMAT_FIX_ERRORS) && errors) {
        rc = vdi_relocate(v, to);
        if (rc)
            return error_errno(e, ERR_IO, -rc, "cannot repair the block map");
        rc = v->count < highest(v) ? vdi_trim(v, e) : 0;
        if (rc)
            return rc;
        out->errors_fixed = errors;
    }
    uint64_t allocated = 0;
    for (uint32_t p = 0; p < v->blocks; p++)
        allocated += v->a.used[p];
    if ((fix & FORMAT_FIX_LEAKS) && out->errors == out->errors_fixed &&
        (out->leaks || v->count != allocated)) {
        rc = close_gaps(v, allocated, e);
        out->leaks_fixed = rc ? 0 : out->leaks;
    }
    return rc;
}

int vdi_check(struct node *n, unsigned fix, struct format_check *out, struct error *e)
{
    struct vdi *v = vdi_of(n);
    uint32_t *to = malloc(v->blocks * sizeof *to);
    if (!to)
        return error_set(e, ERR_NOMEM, "out of memory");
    pthread_mutex_lock(&v->flush);
    look_at_map(v, fix & FORMAT_FIX_ERRORS, out, to);
    if (v->count < highest(v)) {
        say(out, "the header counts %u places, but %llu are in use", v->count,
            (unsigned long long)highest(v));
        out->errors++;
    }
    out->leaks = lost(v, out->allocated);
    if (out->leaks)
        say(out, "%llu places are not in use", (unsigned long long)out->leaks);
    out->end = vdi_place_at(v, (uint32_t)highest(v));
    int rc = fix ? repair(v, fix, out, to, e) : 0;
    pthread_mutex_unlock(&v->flush);
    free(to);
    return rc;
}
