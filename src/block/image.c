/*
 * image.c - opening an image with all the files that it is made of. See image.h for the rules.
 */
#define _GNU_SOURCE
#include "block/image.h"

#include <ctype.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "block/format/formats.h"
#include "block/io/file.h"
#include "block/io/iscsi.h"
#include "block/io/nbd.h"

/* One member of the chain that is being opened; they live on the stack, the first one lowest. */
struct link {
    struct format_opener opener; /* what its format gets to see */
    const struct link *above;    /* the image that names this one; NULL: the first */
    const struct image_options *o;
    const char *folder; /* of the first, without symbolic links */
    bool *told;         /* the error says already which image names the file that it is about */
    bool may_name;
    dev_t dev;
    ino_t ino;
};

int image_probe(struct node *file, const char *path, const struct format **out, struct error *e)
{
    uint8_t head[FORMAT_PROBE];
    int rc = node_read(file, head, sizeof head, 0);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "%s: cannot read it", path);
    *out = format_probe(head, node_size(file));
    return 0;
}

/* Of the chain's members so far, whether one is this very file. */
static int refuse_loop(const struct link *l, const char *path, struct error *e)
{
    for (const struct link *a = l->above; a; a = a->above)
        if (a->dev == l->dev && a->ino == l->ino)
            return error_set(e, ERR_FORMAT,
                             "%s: is its own backing file, by way of those that it names; the "
                             "image is damaged or was rebased by mistake",
                             path);
    return 0;
}

static int open_named(const struct format_opener *o, const char *from, const char *name,
                      const char *format, bool readonly, unsigned depth, struct node **out,
                      struct error *e);

static int find_format(const struct link *l, struct node *file, const char *path, const char *name,
                       const struct format **out, bool *guessed, struct error *e)
{
    char names[256];
    *guessed = !name || !name[0] || strcmp(name, "auto") == 0;
    if (*guessed)
        return image_probe(file, path, out, e);
    *out = format_find(name);
    if (*out)
        return 0;
    format_names(names, sizeof names);
    return error_set(e, ERR_FORMAT, "%s: %s unknown format; there are: %s", path,
                     l->above ? "the image that names it says that it has an" : "has an", names);
}

/* What only a user may name: remote disks, besides files. */
static int open_named_by_user(const char *path, const struct file_options *fo, struct node **out,
                              struct error *e)
{
    if (url_is_nbd(path))
        return nbd_open(path, fo->readonly, out, e);
    if (url_is_iscsi(path))
        return iscsi_open(path, fo->readonly, out, e);
    return file_open(path, fo, out, e);
}

/* Opens the file at `path` and, if its format has one, its chain. */
static int open_link(struct link *l, const char *path, const char *format, bool readonly,
                     struct node **out, struct error *e)
{
    const bool unlocked = l->o->unlocked;
    const struct format *f = NULL;
    struct node *file = NULL;
    struct stat st;
    bool guessed = false;
    const char *at = !l->above && l->o->at ? l->o->at : path;
    if (stat(at, &st) == 0) { /* if not, file_open() says why */
        l->dev = st.st_dev;
        l->ino = st.st_ino;
        int rc = refuse_loop(l, path, e);
        if (rc)
            return rc;
    }
    struct file_options fo = {.readonly = readonly || unlocked, .unlocked = unlocked};
    int rc = l->above ? file_open(at, &fo, &file, e) : open_named_by_user(at, &fo, &file, e);
    if (rc)
        return rc;
    if (format && strcmp(format, "file") == 0 && l->above) {
        *out = file;
        return 0;
    }
    rc = find_format(l, file, path, format, &f, &guessed, e);
    if (!rc) {
        l->opener = (struct format_opener){.open = open_named,
                                           .allow_outside = l->o->allow_outside,
                                           .depth = l->above ? l->above->opener.depth + 1 : 0};
        l->may_name = !guessed || !l->above || l->o->allow_outside;
        struct format_open fopen = {.path = path,
                                    .readonly = fo.readonly,
                                    .check = l->o->check && !l->above,
                                    .no_backing = l->o->no_backing,
                                    .snapshot = l->above ? NULL : l->o->snapshot,
                                    .opener = &l->opener,
                                    .guessed = guessed};
        rc = fopen.snapshot && !f->snapshots
                 ? error_set(e, ERR_STATE, "%s: images of the format %s have no snapshots", path,
                             f->name)
                 : f->open(file, &fopen, out, e);
    }
    if (rc)
        node_close(file);
    return rc;
}

/* A name from an image must be a plain one: what is shown to the user is what is opened. */
static int check_name(const char *from, const char *name, struct error *e)
{
    if (!name[0] || strlen(name) >= PATH_MAX)
        return error_set(e, ERR_FORMAT, "%s: names a file with an impossible name", from);
    for (const char *c = name; *c; c++)
        if (iscntrl((unsigned char)*c))
            return error_set(e, ERR_FORMAT, "%s: names a file with control characters in its name",
                             from);
    size_t scheme = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789+-.");
    if (strncmp(name, "json:", 5) == 0 || (scheme && strncmp(name + scheme, "://", 3) == 0))
        return error_set(e, ERR_FORMAT,
                         "%s: names '%.200s', which is no file; only files are supported here",
                         from, name);
    return 0;
}

/* The file that `name` stands for, without symbolic links; allocated. */
static int find_file(const struct link *l, const char *from, const char *name, char **out,
                     struct error *e)
{
    CLEANUP_FREE char *copy = strdup(from);
    CLEANUP_FREE char *joined = NULL;
    if (!copy || asprintf(&joined, "%s/%s", dirname(copy), name) < 0)
        return error_set(e, ERR_NOMEM, "%s: out of memory", from);
    CLEANUP_FREE char *real = realpath(name[0] == '/' ? name : joined, NULL);
    if (!real)
        return error_errno(e, ERR_IO, errno, "%s: the file that it names cannot be found: '%.200s'",
                           from, name[0] == '/' ? name : joined);
    size_t n = strlen(l->folder);
    bool inside = strncmp(real, l->folder, n) == 0 && (real[n] == '/' || (n == 1 && real[1]));
    if (!inside && !l->o->allow_outside)
        return error_set(e, ERR_FORMAT,
                         "%s: names the file '%.200s', which is not in the image's folder; an "
                         "image could name any file of the host. If it is meant, say so with "
                         "'backing: anywhere'",
                         from, real);
    *out = real;
    real = NULL;
    return 0;
}

static int open_named(const struct format_opener *o, const char *from, const char *name,
                      const char *format, bool readonly, unsigned depth, struct node **out,
                      struct error *e)
{
    /* CONTAINER_OF for a const */
    const struct link *above = (const void *)((const char *)o - offsetof(struct link, opener));
    struct link l = {.above = above, .o = above->o, .folder = above->folder, .told = above->told};
    *l.told = true;
    if (o->depth + 1 >= FORMAT_MAX_DEPTH || depth > FORMAT_MAX_DEPTH)
        return error_set(e, ERR_LIMIT,
                         "%s: the chain of backing files has more than %d members; shorten it",
                         from, FORMAT_MAX_DEPTH);
    if (!above->may_name)
        return error_set(e, ERR_FORMAT,
                         "%s: names a file, but nobody says what format it has itself: a guest "
                         "could have written that name into a raw disk. State the format in the "
                         "image above it, or use 'backing: anywhere'",
                         from);
    CLEANUP_FREE char *path = NULL;
    int rc = check_name(from, name, e);
    if (!rc)
        rc = find_file(above, from, name, &path, e);
    if (rc)
        return rc;
    *l.told = false;
    rc = open_link(&l, path, format, readonly, out, e);
    if (rc && !*l.told) {
        *l.told = true;
        error_prefix(e, "%s names a file that cannot be used", from);
    }
    return rc;
}

int image_open(const char *path, const struct image_options *o, struct node **out, struct error *e)
{
    CLEANUP_FREE char *copy = strdup(path);
    if (!copy)
        return error_set(e, ERR_NOMEM, "%s: out of memory", path);
    CLEANUP_FREE char *folder = realpath(dirname(copy), NULL);
    bool told = false;
    struct link l = {.o = o, .folder = folder ? folder : "/nonexistent", .told = &told};
    return open_link(&l, path, o->format, o->readonly, out, e);
}
