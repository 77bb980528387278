/* import_disk.c - see import.h: disks stay where they are, get an overlay, or are copied. */
#define _GNU_SOURCE
#include "cli/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "block/copy.h"
#include "cli/disk.h"
#include "spec/schema.h"

#define OWN_DISK "disks/disk%u.qcow2"

static int make_absolute(const char *base, char **path, struct error *e)
{
    char *joined;
    if (!*path || (*path)[0] == '/' || url_is_remote(*path))
        return 0;
    if (asprintf(&joined, "%s/%s", base, *path) < 0)
        return error_set(e, ERR_NOMEM, "out of memory");
    free(*path);
    *path = joined;
    return 0;
}

static int make_all_absolute(struct spec *s, const char *base, struct error *e)
{
    char **const paths[] = {&s->kernel, &s->initrd, &s->cdrom, &s->floppy, &s->serial_file};
    int rc = 0;
    for (unsigned i = 0; !rc && i < ARRAY_LEN(paths); i++)
        rc = make_absolute(base, paths[i], e);
    for (unsigned i = 0; !rc && i < s->ndisk; i++)
        rc = make_absolute(base, &s->disk[i].file, e);
    return rc;
}

/* The image's format. It may name other files in its own folder only: this is the last time that
 * somebody looks, an overlay elsewhere has to be allowed files anywhere. */
static int look(const struct spec_disk *d, const struct format **f, struct error *e)
{
    struct node *n = NULL;
    struct image_options o = {.format = spec_format_words[d->format], .unlocked = true};
    int rc = image_open(d->file, &o, &n, e);
    if (rc)
        return rc;
    *f = format_find(n->ops->name);
    if (!*f)
        *f = format_find("raw");
    node_close(n);
    return 0;
}

static int plan_disk(struct import_plan *p, struct import *m, unsigned i, struct error *e)
{
    struct spec_disk *d = &m->spec.disk[i];
    struct import_step *step = &p->step[i];
    const struct format *f;
    struct error why = {0};
    int rc = look(d, &f, &why);
    if (rc && p->copy) {
        *e = why;
        return rc;
    }
    if (rc) {
        import_drop(m, d->file, "named in the spec%s, but cannot be used now: %s",
                    m->overlay[i] ? " as read only" : "", why.msg);
        d->readonly |= m->overlay[i];
        return 0;
    }
    bool overlay = !d->readonly && (!f->create || m->overlay[i]);
    if (!p->copy && !overlay)
        return 0;
    char *own;
    if (asprintf(&own, OWN_DISK, i) < 0)
        return error_set(e, ERR_NOMEM, "out of memory");
    *step = (struct import_step){d->file, f->name, !p->copy};
    d->file = own;
    d->format = 0;
    if (p->copy) {
        import_took(m, step->from, "copied to %s", own);
        return 0;
    }
    d->backing = SPEC_BACKING_ANYWHERE;
    import_took(m, step->from, "never written to; what changes goes to %s, so it must stay", own);
    return 0;
}

int import_plan(struct import_plan *p, struct import *m, const char *base, struct error *e)
{
    int rc = make_all_absolute(&m->spec, base, e);
    for (unsigned i = 0; !rc && i < m->spec.ndisk; i++)
        if (m->spec.disk[i].media == SPEC_MEDIA_DISK)
            rc = plan_disk(p, m, i, e);
    return rc;
}

static int copy_image(const struct import_step *s, const char *path, struct error *e)
{
    struct node *from = NULL;
    struct image_options o = {.format = s->format, .readonly = true};
    int rc = image_open(s->from, &o, &from, e);
    if (rc)
        return rc;
    struct image_create with = {.format = format_find("qcow2"), .size = node_size(from)};
    struct copy c = {.from = from, .progress = disk_progress};
    rc = copy_new(&c, path, &with, e);
    node_close(from);
    return rc;
}

static int make_overlay(const struct import_step *s, const char *path, struct error *e)
{
    struct output out;
    struct image_create c = {.format = format_find("qcow2"),
                             .backing = s->from,
                             .backing_format = s->format,
                             .allow_outside = true};
    int rc = image_create(&out, path, &c, e);
    return rc ? rc : output_commit(&out, e);
}

int import_make_disks(const struct import_plan *p, const char *path, struct error *e)
{
    int rc = 0;
    disk_progress_begin(); /* from here on there is something to remove */
    for (unsigned i = 0; !rc && i < SPEC_MAX_DISKS; i++) {
        CLEANUP_FREE char *own = NULL;
        if (!p->step[i].from)
            continue;
        if (asprintf(&own, "%s/" OWN_DISK, path, i) < 0) {
            own = NULL;
            rc = error_set(e, ERR_NOMEM, "out of memory");
        } else {
            rc = (p->step[i].overlay ? make_overlay : copy_image)(&p->step[i], own, e);
        }
    }
    disk_progress_end();
    return rc;
}

void import_plan_fini(struct import_plan *p)
{
    for (unsigned i = 0; i < SPEC_MAX_DISKS; i++)
        free(p->step[i].from);
    *p = (struct import_plan){0};
}
