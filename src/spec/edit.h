/*
 * edit.h - changes to the text of a spec that leave everything else as the user wrote it: comments,
 * order, layout.
 *
 * The bytes of one value are found by the parser's marks and replaced. The result is parsed again
 * and compared with what was asked for, value by value; only a text that passes is handed out.
 */
#ifndef SOSIA_SPEC_EDIT_H
#define SOSIA_SPEC_EDIT_H

#include "base/error.h"
#include "base/types.h"

/* `*out`: the text with "key=value" applied, as spec_load() applies an override; nothing after the
 * '=' removes the key. The key must exist in the schema, the value need not make sense. `path` is
 * for messages. ERR_SPEC, ERR_NOMEM. */
int spec_edit_set(const char *path, const char *text, const char *set, char **out, struct error *e);

/* Asked for each file that a spec names. `key`: "kernel", "disks" ... `*to` (allocated) is what to
 * write instead; leave it NULL to keep the name. 0 or ERR_*. */
struct spec_path {
    const char *key, *path;
    unsigned index;     /* of a disk */
    bool written;       /* the guest may write to it */
    const char *format; /* of a disk, if it is stated */
};
typedef int spec_path_fn(void *ctx, const struct spec_path *p, char **to, struct error *e);
int spec_edit_paths(const char *path, const char *text, spec_path_fn *fn, void *ctx, char **out,
                    struct error *e);

#endif
