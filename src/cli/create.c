/* create.c - `sosia create`: a folder with a spec, from another spec or from options. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "block/create.h"
#include "block/size.h"
#include "catalog/store.h"
#include "cli/vms.h"
#include "spec/edit.h"

#define OWN_DISK "disks/disk" /* the names of disks that are made here begin so */

/* The text that grows. */
struct making {
    const char *name;
    char *text;
    struct vm_draft draft;
};

static int replace(struct making *m, int rc, char *now)
{
    if (rc)
        return rc;
    free(m->text);
    m->text = now;
    return 0;
}

static int edit(struct making *m, const char *set, struct error *e)
{
    char *now = NULL;
    int rc = spec_edit_set(m->name, m->text, set, &now, e);
    return replace(m, rc, now);
}

/* "key" = a text, which is quoted. */
static int edit_text(struct making *m, const char *key, const char *value, struct error *e)
{
    size_t n = strlen(value);
    CLEANUP_FREE char *set = malloc(strlen(key) + 2 * n + 4);
    if (!set)
        return error_set(e, ERR_NOMEM, "out of memory");
    char *p = set + sprintf(set, "%s=\"", key);
    for (const char *s = value; *s; s++) {
        if (*s == '"' || *s == '\\')
            *p++ = '\\';
        *p++ = *s;
    }
    memcpy(p, "\"", 2);
    return edit(m, set, e);
}

static int edit_number(struct making *m, const char *key, const char *value, struct error *e)
{
    char set[80];
    snprintf(set, sizeof set, "%s=%.60s", key, value);
    return edit(m, set, e);
}

static int absolute(struct making *m, const char *base, struct error *e)
{
    char *now = NULL;
    int rc = vm_spec_absolute(m->name, m->text, base, NULL, &now, e);
    return replace(m, rc, now);
}

/* A copy of the spec file, as it would be read where it is. */
static int take_spec(struct making *m, const char *path, struct error *e)
{
    size_t len;
    char real[PATH_MAX];
    int rc = store_read(AT_FDCWD, path, 1024 * 1024, &m->text, &len, e);
    if (rc)
        return error_set(e, ERR_SPEC, "%s: cannot read the spec file", path);
    if (!realpath(path, real))
        return error_file(e, errno, "%s: cannot find it", path);
    return absolute(m, dirname(real), e);
}

static int start_text(struct making *m, struct error *e)
{
    if (asprintf(&m->text,
                 "# The VM \"%s\". The keys: sosia.yaml(5), `sosia spec`. To change one:\n"
                 "# sosia set %s KEY=VALUE, or sosia edit %s\nmemory: 512M\n",
                 m->name, m->name, m->name) < 0) {
        m->text = NULL;
        return error_set(e, ERR_NOMEM, "out of memory");
    }
    return 0;
}

/* The options that stand for a key each, and --set. */
static int apply_options(struct making *m, const struct cli_args *a, struct error *e)
{
    static const enum cli_opt keys[] = {CLI_KERNEL, CLI_INITRD, CLI_CMDLINE, CLI_CDROM};
    char here[PATH_MAX];
    int rc = 0;
    for (unsigned i = 0; !rc && i < ARRAY_LEN(keys); i++)
        if (cli_has(a, keys[i]))
            rc = edit_text(m, cli_options[keys[i]].name, a->value[keys[i]], e);
    if (!rc && cli_has(a, CLI_MEMORY))
        rc = edit_number(m, "memory", a->value[CLI_MEMORY], e);
    if (!rc && cli_has(a, CLI_CPUS))
        rc = edit_number(m, "cpus", a->value[CLI_CPUS], e);
    for (unsigned i = 0; !rc && i < a->ngiven; i++)
        if (a->given[i].opt == CLI_SET)
            rc = edit(m, a->given[i].value, e);
    if (rc)
        return rc;
    if (!getcwd(here, sizeof here))
        return error_file(e, errno, "the current folder");
    return absolute(m, here, e);
}

static int new_disk(struct making *m, unsigned n, uint64_t size, char **name, struct error *e)
{
    CLEANUP_FREE char *path = NULL;
    struct output out;
    struct image_create c = {.format = format_find("qcow2"), .size = size};
    if (asprintf(name, OWN_DISK "%u.qcow2", n) < 0 ||
        asprintf(&path, "%s/%s", m->draft.path, *name) < 0)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = image_create(&out, path, &c, e);
    return rc ? rc : output_commit(&out, e);
}

static int old_disk(const char *path, char **name, struct error *e)
{
    char real[PATH_MAX];
    bool remote = url_is_remote(path);
    if (!remote && !realpath(path, real))
        return error_file(e, errno, "--disk %s: not a size (20G), and no file", path);
    *name = strdup(remote ? path : real);
    return *name ? 0 : error_set(e, ERR_NOMEM, "out of memory");
}

static int add_disks(struct making *m, const struct cli_args *a, struct error *e)
{
    CLEANUP_FREE char *list = NULL;
    unsigned n = 0;
    int rc = 0;
    if (!cli_has(a, CLI_DISK))
        return 0;
    for (unsigned i = 0; !rc && i < a->ngiven; i++) {
        CLEANUP_FREE char *name = NULL;
        char *longer = NULL;
        uint64_t size;
        if (a->given[i].opt != CLI_DISK)
            continue;
        if (strpbrk(a->given[i].value, "\"\\"))
            return error_set(e, ERR_USAGE, "--disk %s: quotes and backslashes are for --set disks=",
                             a->given[i].value);
        rc = size_parse(a->given[i].value, &size) ? new_disk(m, n, size, &name, e)
                                                  : old_disk(a->given[i].value, &name, e);
        if (!rc &&
            asprintf(&longer, "%s%s\"%s\"", list ? list : "disks=[", list ? ", " : "", name) < 0)
            rc = error_set(e, ERR_NOMEM, "out of memory");
        if (rc)
            break;
        free(list);
        list = longer;
        n++;
    }
    CLEANUP_FREE char *set = NULL;
    if (!rc && asprintf(&set, "%s]", list) < 0)
        rc = error_set(e, ERR_NOMEM, "out of memory");
    return rc ? rc : edit(m, set, e);
}

/* The folder is to be called as the VM. */
static void name_place(const struct making *m, struct error *e)
{
    size_t n = strlen(m->draft.path);
    char rest[sizeof e->where];
    if (strncmp(e->where, m->draft.path, n) != 0)
        return;
    memcpy(rest, e->where + n, sizeof rest - n);
    snprintf(e->where, sizeof e->where, "%s%.100s", m->name, rest);
}

/* What is there after all is a spec that could be run. */
static int check(const struct making *m, struct error *e)
{
    CLEANUP_FREE char *path = NULL;
    struct spec s;
    if (asprintf(&path, "%s/" VM_SPEC, m->draft.path) < 0)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = spec_load_text(path, m->text, strlen(m->text), &s, e);
    if (!rc) {
        rc = spec_check(&s, e);
        spec_fini(&s);
    }
    if (rc)
        name_place(m, e);
    return rc;
}

static int make(struct catalog *c, struct making *m, const struct cli_args *a, struct error *e)
{
    struct vm_state state;
    int rc = a->npos > 1 ? take_spec(m, a->pos[1], e) : start_text(m, e);
    if (!rc)
        rc = apply_options(m, a, e);
    if (!rc)
        rc = catalog_lock(c, e);
    if (!rc)
        rc = vm_draft_begin(c, &m->draft, a->pos[0], e);
    if (rc)
        return rc;
    rc = add_disks(m, a, e);
    if (!rc)
        rc = check(m, e);
    if (!rc)
        rc = vm_state_new(&state, e);
    if (!rc) {
        rc = vm_draft_commit(c, &m->draft, m->text, &state, e);
        vm_state_fini(&state);
    }
    vm_draft_end(c, &m->draft);
    return rc;
}

int cli_create(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    struct making m = {.name = a->pos[0]};
    int rc = catalog_check_name(a->pos[0], e);
    if (!rc)
        rc = catalog_open(&c, true, e);
    if (rc)
        return rc;
    rc = make(&c, &m, a, e);
    free(m.text);
    if (!rc)
        rc = vm_open(c.vms, a->pos[0], VM_FIND_READ, &vm, e);
    if (!rc) {
        rc = vms_done(a, &vm, e, "created %s in %s", vm.name, vm.path);
        vm_close(&vm);
    }
    catalog_close(&c);
    return rc;
}
