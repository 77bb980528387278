/* create.c - new images. */
#define _GNU_SOURCE
#include "block/create.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/suggest.h"
#include "block/chain.h"
#include "block/io/file.h"

#define MAX_OPTIONS 64

const struct format *format_by_suffix(const char *path)
{
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    if (!dot || (slash && dot < slash) || !dot[1])
        return NULL;
    size_t n = strlen(++dot);
    for (const struct format *const *f = formats; *f; f++)
        for (const char *s = (*f)->suffixes; s && *s; s += strspn(s, " ")) {
            size_t len = strcspn(s, " ");
            if (len == n && strncasecmp(s, dot, n) == 0)
                return *f;
            s += len;
        }
    return NULL;
}

static const char *nth_option(const void *list, size_t i)
{
    return ((const struct format_option *)list)[i].name;
}

static int set_option(const struct format *f, const char *text, const char **value, struct error *e)
{
    char name[64];
    const char *eq = strchr(text, '=');
    if (!eq || (size_t)(eq - text) >= sizeof name)
        return error_set(e, ERR_USAGE, "--option needs NAME=VALUE, not '%.60s'", text);
    snprintf(name, sizeof name, "%.*s", (int)(eq - text), text);
    for (int i = 0; f->options && f->options[i].name && i < MAX_OPTIONS; i++)
        if (strcmp(f->options[i].name, name) == 0) {
            value[i] = eq + 1;
            return 0;
        }
    if (!f->options)
        return error_set(e, ERR_USAGE, "the format %s has no options", f->name);
    const char *near = suggest(name, nth_option, f->options);
    return error_set(e, ERR_USAGE, "the format %s has no option '%s'; %s%s", f->name, name,
                     near ? "did you mean " : "`sosia disk create --help` lists them",
                     near ? near : "");
}

static bool inside(const char *real, const char *folder)
{
    size_t n = strlen(folder);
    return strncmp(real, folder, n) == 0 && (real[n] == '/' || (n == 1 && real[1]));
}

/* That the backing file is one that will be opened; its size and format. */
static int look_at_backing(const char *path, const struct image_create *c, uint64_t *size,
                           const char **format, struct error *e)
{
    CLEANUP_FREE char *full = chain_join(path, c->backing);
    CLEANUP_FREE char *copy = strdup(path);
    CLEANUP_FREE char *folder = copy ? realpath(dirname(copy), NULL) : NULL;
    CLEANUP_FREE char *real = full ? realpath(full, NULL) : NULL;
    if (!real || !folder)
        return error_errno(e, ERR_IO, errno,
                           "%s: cannot find the backing file (its name starts at the new image's "
                           "folder)",
                           full ? full : c->backing);
    if (!c->allow_outside && !inside(real, folder))
        return error_set(e, ERR_FORMAT,
                         "the backing file %.300s is not in the new image's folder, so no VM would "
                         "open it by default; if it is meant, say --backing-anywhere, and "
                         "'backing: anywhere' in the spec file",
                         real);
    struct image_options o = {.format = c->backing_format,
                              .readonly = true,
                              .unlocked = true,
                              .allow_outside = c->allow_outside};
    struct node *n = NULL;
    int rc = image_open(full, &o, &n, e);
    if (rc)
        return error_prefix(e, "backing file");
    *size = node_size(n);
    *format = n->ops->name;
    node_close(n);
    return 0;
}

/* The separate file for the data that some images have, which lies in the image's folder. */
static int make_data_file(const char *path, const struct format *f, const char *const *value,
                          struct error *e)
{
    struct node *n = NULL;
    for (int i = 0; f->options && f->options[i].name && i < MAX_OPTIONS; i++) {
        if (strcmp(f->options[i].name, "data_file") != 0 || !value[i] || !value[i][0])
            continue;
        CLEANUP_FREE char *full = chain_join(path, value[i]);
        if (!full)
            return error_set(e, ERR_NOMEM, "out of memory");
        int rc = file_open(full, &(struct file_options){.create = true}, &n, e);
        node_close(n);
        return rc ? error_prefix(e, "data file") : 0;
    }
    return 0;
}

static int write_image(struct node *file, const char *path, const struct image_create *c,
                       struct error *e)
{
    const char *value[MAX_OPTIONS] = {NULL};
    struct format_create fc = {.size = c->size,
                               .backing = c->backing,
                               .backing_format = c->backing_format,
                               .value = value};
    const char *found = NULL;
    uint64_t size = 0;
    int rc = 0;
    for (unsigned i = 0; !rc && i < c->noptions; i++)
        rc = set_option(c->format, c->option[i], value, e);
    if (!rc && c->backing && !c->as_stored)
        rc = look_at_backing(path, c, &size, &found, e);
    if (rc)
        return rc;
    fc.size = fc.size ? fc.size : size;
    if (c->backing && !c->as_stored && !fc.backing_format)
        fc.backing_format = found;
    if (fc.size == 0)
        return error_set(e, ERR_USAGE, "a disk has at least one byte");
    rc = c->format->create(file, &fc, e);
    if (!rc && node_flush(file))
        rc = error_set(e, ERR_IO, "cannot write the new image");
    return rc ? rc : make_data_file(path, c->format, value, e);
}

int image_create(struct output *o, const char *path, const struct image_create *c, struct error *e)
{
    struct node *file = NULL;
    if (!c->format->create)
        return error_set(e, ERR_USAGE, "images of the format %s can only be read; choose another",
                         c->format->name);
    int rc = output_begin(o, path, c->replace, &file, e);
    if (rc)
        return rc;
    rc = write_image(file, path, c, e);
    node_close(file);
    if (rc)
        output_abort(o);
    return rc;
}
