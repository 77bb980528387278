/* saved.c - see saved.h. */
#define _GNU_SOURCE
#include "catalog/saved.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "block/chain.h"
#include "catalog/status.h"

/* ---- the files that a guest's disks are ---- */

struct medium {
    char name[48]; /* "disk 0", "disk 1 member 2", "cdrom" */
    const char *path, *format;
    bool outside; /* of the image's folder may be what it rests on */
};
typedef int medium_fn(void *ctx, const struct medium *m, struct error *e);

static int each_disk(const struct spec_disk *d, unsigned n, medium_fn *fn, void *ctx,
                     struct error *e)
{
    struct medium m = {.format = spec_format_words[d->format],
                       .outside = d->backing == SPEC_BACKING_ANYWHERE};
    int rc = 0;
    if (d->raid == SPEC_RAID_NONE) {
        snprintf(m.name, sizeof m.name, "disk %u", n);
        m.path = d->file;
        return m.path ? fn(ctx, &m, e) : 0;
    }
    for (unsigned i = 0; i < d->members.n && !rc; i++) {
        snprintf(m.name, sizeof m.name, "disk %u member %u", n, i);
        m.path = d->members.path[i];
        rc = fn(ctx, &m, e);
    }
    return rc;
}

static int each_medium(const struct spec *s, medium_fn *fn, void *ctx, struct error *e)
{
    int rc = 0;
    for (unsigned n = 0; n < s->ndisk && !rc; n++)
        rc = each_disk(&s->disk[n], n, fn, ctx, e);
    if (!rc && s->cdrom)
        rc = fn(ctx, &(struct medium){"cdrom", s->cdrom, "raw", false}, e);
    if (!rc && s->floppy)
        rc = fn(ctx, &(struct medium){"floppy", s->floppy, "raw", false}, e);
    return rc;
}

/* NULL: there is nothing to be told of it: a remote disk, a device. By name, with a flag that the
 * sandbox lets through. */
static json_t *mark_of(const char *path)
{
    struct stat st;
    if (url_is_remote(path) || fstatat(AT_FDCWD, path, &st, AT_EMPTY_PATH) < 0 ||
        !S_ISREG(st.st_mode))
        return NULL;
    return json_pack("{s:I, s:I}", "size", (json_int_t)st.st_size, "mtime-ns",
                     (json_int_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
}

/* ---- noting ---- */

static int note(void *ctx, const struct medium *m, struct error *e)
{
    json_t *mark = mark_of(m->path);
    if (mark)
        json_object_set_new(ctx, m->name, mark);
    return 0;
}

json_t *vm_saved_note(const struct spec *s)
{
    struct error unused;
    CLEANUP_FREE char *machine = spec_hardware(s);
    json_t *files = json_object();
    each_medium(s, note, files, &unused);
    return json_pack("{s:s*, s:o}", "machine", machine, "files", files);
}

/* ---- the machine ---- */

/* The first lines that differ, without their ends. */
static void differing(const char *was, const char *is, char a[80], char b[80])
{
    for (;;) {
        size_t n = strcspn(was, "\n"), m = strcspn(is, "\n");
        if (n != m || memcmp(was, is, n) != 0 || !was[n] || !is[m]) {
            snprintf(a, 80, "%.*s", (int)n, was);
            snprintf(b, 80, "%.*s", (int)m, is);
            return;
        }
        was += n + 1;
        is += m + 1;
    }
}

int vm_saved_check_machine(const struct vm *vm, const struct spec *s, struct error *e)
{
    struct vm_status status;
    char then[80], now[80];
    json_t *saved = vm_status_saved(vm, &status);
    const char *was = json_string_value(json_object_get(saved, "machine"));
    CLEANUP_FREE char *is = spec_hardware(s);
    int rc = 0;
    if (status.run == VM_SUSPENDED && was && !is)
        rc = error_set(e, ERR_NOMEM, "out of memory");
    else if (status.run == VM_SUSPENDED && was && strcmp(was, is) != 0) {
        differing(was, is, then, now);
        rc = error_set(e, ERR_STATE,
                       "%s is suspended, and its state fits the machine that it was, with \"%s\", "
                       "not with \"%s\"; set that back, or throw the state away: `sosia stop -f "
                       "%s`",
                       vm->name, then[0] ? then : "fewer devices", now[0] ? now : "fewer devices",
                       vm->name);
    }
    json_decref(saved);
    return rc;
}

/* ---- the disks ---- */

/* Whether all of it shows what is below. */
static bool is_empty(const struct chain_link *l)
{
    const struct image_options o = {.format = l->format ? l->format->name : NULL,
                                    .readonly = true,
                                    .unlocked = true,
                                    .no_backing = true,
                                    .allow_outside = true};
    struct node *n = NULL;
    struct error unused;
    struct node_extent x = {.kind = NODE_HOLE};
    if (!l->backing || image_open(l->path, &o, &n, &unused))
        return false;
    for (uint64_t at = 0, size = node_size(n); at < size && x.kind == NODE_HOLE; at += x.len)
        if (node_map(n, at, size - at, &x))
            x.kind = NODE_DATA;
    node_close(n);
    return x.kind == NODE_HOLE;
}

/* The file that was noted is the image, or lies below overlays that nobody has written to. */
static bool is_as_noted(const struct medium *m, const json_t *was)
{
    struct chain chain = {0};
    struct error unused;
    json_t *is = mark_of(m->path);
    bool same = json_equal(is, was), above = true;
    json_decref(is);
    if (same)
        return true;
    if (chain_load(&chain, m->path, m->format, m->outside, &unused) == 0)
        for (unsigned i = 1; i < chain.n && above && !same; i++) {
            above = is_empty(&chain.link[i - 1]);
            is = mark_of(chain.link[i].path);
            same = above && json_equal(is, was);
            json_decref(is);
        }
    chain_free(&chain);
    return same;
}

struct checking {
    const struct vm *vm;
    const json_t *files;
};

static int check(void *ctx, const struct medium *m, struct error *e)
{
    const struct checking *c = ctx;
    const json_t *was = json_object_get(c->files, m->name);
    if (!was || is_as_noted(m, was))
        return 0;
    return error_set(e, ERR_DAMAGED,
                     "%s (%.200s) was changed since %s was suspended, whose guest has the old "
                     "contents in its memory and would damage the new; put the old file back, or "
                     "throw the state away: `sosia stop -f %s`",
                     m->name, m->path, c->vm->name, c->vm->name);
}

int vm_saved_check(const struct vm *vm, const struct spec *s, struct error *e)
{
    struct vm_status status;
    int rc = vm_saved_check_machine(vm, s, e);
    if (rc)
        return rc;
    json_t *saved = vm_status_saved(vm, &status);
    const struct checking c = {vm, json_object_get(saved, "files")};
    rc = status.run == VM_SUSPENDED ? each_medium(s, check, (void *)(uintptr_t)&c, e) : 0;
    json_decref(saved);
    return rc;
}
