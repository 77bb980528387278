/* vmspec.c - see vmspec.h. */
#define _GNU_SOURCE
#include "catalog/vmspec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "catalog/saved.h"
#include "catalog/store.h"
#include "spec/edit.h"
#include "spec/source.h"

int vm_spec_text(const struct vm *vm, char **text, size_t *len, struct error *e)
{
    int rc = store_read(vm->dir, VM_SPEC, SPEC_MAX_TEXT, text, len, e);
    if (rc == ERR_NOTFOUND)
        return error_set(e, ERR_DAMAGED,
                         "%s/" VM_SPEC " is missing; restore it from a backup, or write a new one",
                         vm->path);
    return rc;
}

static char *spec_path(const struct vm *vm)
{
    char *path;
    return asprintf(&path, "%s/" VM_SPEC, vm->path) < 0 ? NULL : path;
}

int vm_spec_load(const struct vm *vm, const char *const *set, unsigned nset, struct spec *s,
                 struct error *e)
{
    CLEANUP_FREE char *path = spec_path(vm);
    CLEANUP_FREE const char **all = calloc(nset + 1ul, sizeof *all);
    char name[VM_NAME_MAX + 16];
    if (!path || !all)
        return error_set(e, ERR_NOMEM, "out of memory for the spec");
    snprintf(name, sizeof name, "name=\"%.*s\"", VM_NAME_MAX, vm->name);
    for (unsigned i = 0; i < nset; i++)
        all[i] = set[i];
    all[nset] = name;
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int rc = vm_spec_text(vm, &text, &len, e);
    return rc ? rc : spec_load(path, all, nset + 1, s, e);
}

int vm_spec_write(const struct vm *vm, const char *text, struct error *e)
{
    CLEANUP_FREE char *path = spec_path(vm);
    struct spec s;
    if (!path)
        return error_set(e, ERR_NOMEM, "out of memory for the spec");
    int rc = spec_load_text(path, text, strlen(text), &s, e);
    if (rc)
        return rc;
    rc = vm_saved_check_machine(vm, &s, e);
    spec_fini(&s);
    return rc ? rc : store_write(vm->dir, VM_SPEC, text, strlen(text), e);
}

struct absolute {
    const char *base;
    bool (*keep)(const char *path);
};

static int make_absolute(void *ctx, const struct spec_path *p, char **to, struct error *e)
{
    const struct absolute *a = ctx;
    if (p->path[0] == '/' || url_is_remote(p->path) || (a->keep && a->keep(p->path)))
        return 0;
    if (asprintf(to, "%s/%s", a->base, p->path) < 0) {
        *to = NULL;
        return error_set(e, ERR_NOMEM, "out of memory for the spec");
    }
    return 0;
}

int vm_spec_absolute(const char *name, const char *text, const char *base,
                     bool (*keep)(const char *path), char **out, struct error *e)
{
    struct absolute a = {base, keep};
    return spec_edit_paths(name, text, make_absolute, &a, out, e);
}
