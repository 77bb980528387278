/* snap_ls.c - `sosia snap ls` and `tree`. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "block/size.h"
#include "cli/snap.h"

struct row {
    struct snapshot s;
    struct error wrong; /* code 0: none */
    bool shown;
};

struct rows {
    struct row *row;
    size_t n;
    char current[VM_NAME_MAX + 1];
};

static void free_rows(struct rows *r)
{
    for (size_t i = 0; i < r->n; i++)
        snapshot_fini(&r->row[i].s);
    free(r->row);
    *r = (struct rows){0};
}

static int load_rows(const struct vm *vm, struct rows *r, struct error *e)
{
    struct vm_names list;
    *r = (struct rows){0};
    int rc = vm_snapshot_current(vm, r->current, e);
    if (!rc)
        rc = vm_snapshot_list(vm, &list, e);
    if (rc)
        return rc;
    r->row = calloc(list.n + 1, sizeof *r->row);
    if (!r->row)
        rc = error_set(e, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < list.n && !rc; i++) {
        struct row *w = &r->row[r->n];
        if (vm_snapshot_load(vm, list.name[i], &w->s, &w->wrong) == ERR_NOTFOUND)
            continue; /* gone meanwhile */
        snprintf(w->s.name, sizeof w->s.name, "%.*s", VM_NAME_MAX, list.name[i]);
        r->n++;
    }
    catalog_list_free(&list);
    return rc;
}

/* What a file takes on the host. */
static uint64_t taken(const struct vm *vm, const char *inside)
{
    struct stat st;
    return fstatat(vm->dir, inside, &st, 0) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static uint64_t state_size(const struct vm *vm, const struct snapshot *s)
{
    char path[sizeof VM_SNAPSHOTS + sizeof s->name + sizeof SNAPSHOT_STATE + 2];
    snprintf(path, sizeof path, VM_SNAPSHOTS "/%s/" SNAPSHOT_STATE, s->name);
    return taken(vm, path);
}

static uint64_t disks_size(const struct vm *vm, const struct snapshot *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s->ndisk; i++)
        sum += taken(vm, s->disk[i].layer);
    return sum;
}

/* ---- JSON ---- */

static json_t *row_json(const struct vm *vm, const struct row *r, bool current)
{
    const struct snapshot *s = &r->s;
    json_t *disks = json_array();
    for (size_t i = 0; i < s->ndisk; i++)
        json_array_append_new(
            disks, json_pack("{s:o, s:o, s:s}", "file", cli_json_text(s->disk[i].file), "layer",
                             cli_json_text(s->disk[i].layer), "format", s->disk[i].format));
    return json_pack("{s:s, s:o, s:b, s:I, s:s, s:I, s:I, s:o, s:o}", "name", s->name, "parent",
                     cli_json_text(s->parent[0] ? s->parent : NULL), "current", current, "created",
                     (json_int_t)s->created, "of", snapshot_words[s->of], "state-size",
                     (json_int_t)state_size(vm, s), "disks-size", (json_int_t)disks_size(vm, s),
                     "disks", disks, "problem", cli_json_text(r->wrong.code ? r->wrong.msg : NULL));
}

static int print_rows_json(const struct snap_call *c, const struct rows *r, struct error *e)
{
    json_t *all = json_array();
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(
            all, row_json(c->vm, &r->row[i], strcmp(r->row[i].s.name, r->current) == 0));
    return cli_print_json(json_pack("{s:s, s:o}", "vm", c->vm->name, "snapshots", all), e);
}

/* ---- text ---- */

static void add_row(struct table *t, const struct vm *vm, const struct row *r, bool current)
{
    char text[64], age[32];
    table_add(t, current ? "*" : "");
    table_add(t, r->s.name);
    table_add(t, r->wrong.code ? "damaged" : snapshot_words[r->s.of]);
    snprintf(text, sizeof text, "%s ago", vms_age(age, (int64_t)time(NULL) - r->s.created));
    table_add(t, r->wrong.code ? "-" : text);
    table_add(t, size_format(text, disks_size(vm, &r->s)));
    table_add(t, size_format(text, state_size(vm, &r->s)));
    table_add(t, r->s.parent[0] ? r->s.parent : "-");
}

int snap_ls(const struct snap_call *c, struct error *e)
{
    struct rows r;
    struct table t = {.columns = 7};
    static const char *const heads[] = {"", "NAME", "OF A VM", "TAKEN", "DISKS", "STATE", "PARENT"};
    int rc = load_rows(c->vm, &r, e);
    if (!rc && cli_has(c->a, CLI_JSON)) {
        rc = print_rows_json(c, &r, e);
    } else if (!rc) {
        for (unsigned i = 0; r.n && i < ARRAY_LEN(heads); i++)
            table_add(&t, heads[i]);
        for (size_t i = 0; i < r.n; i++)
            add_row(&t, c->vm, &r.row[i], strcmp(r.row[i].s.name, r.current) == 0);
        table_print(&t);
    }
    free_rows(&r);
    return rc;
}

static bool has_parent(const struct rows *r, const struct row *w)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->row[i].s.name, w->s.parent) == 0)
            return true;
    return false;
}

/* Each once, also if the files say that they are each other's parents. */
static void print_branch(struct rows *r, struct row *w, unsigned depth)
{
    if (w->shown)
        return;
    w->shown = true;
    printf("%*s%s (%s)%s\n", (int)(2 * depth), "", w->s.name,
           w->wrong.code ? "damaged" : snapshot_words[w->s.of],
           strcmp(w->s.name, r->current) == 0 ? "  <- the disks go on from here" : "");
    for (size_t i = 0; i < r->n && depth < 1000; i++)
        if (strcmp(r->row[i].s.parent, w->s.name) == 0)
            print_branch(r, &r->row[i], depth + 1);
}

int snap_tree(const struct snap_call *c, struct error *e)
{
    struct rows r;
    int rc = load_rows(c->vm, &r, e);
    if (!rc && cli_has(c->a, CLI_JSON)) {
        rc = print_rows_json(c, &r, e);
    } else if (!rc) {
        for (size_t i = 0; i < r.n; i++)
            if (!has_parent(&r, &r.row[i]))
                print_branch(&r, &r.row[i], 0);
        for (size_t i = 0; i < r.n; i++)
            print_branch(&r, &r.row[i], 0);
    }
    free_rows(&r);
    return rc;
}
