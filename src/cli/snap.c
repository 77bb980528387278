/* snap.c - `sosia snap`: its table of verbs; take, restore, rm. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/suggest.h"
#include "catalog/launch.h"
#include "cli/life.h"
#include "cli/snap.h"

struct snap_verb {
    const char *name, *args, *summary;
    int min, max; /* behind the VM */
    enum vm_find find;
    int (*run)(const struct snap_call *c, struct error *e);
};

/* As text, or as JSON with `more` (NULL: nothing; taken over). */
static int done_with(const struct snap_call *c, const char *name, const char *said, json_t *more,
                     struct error *e)
{
    if (!cli_has(c->a, CLI_JSON)) {
        json_decref(more);
        fprintf(stderr, "%s: %s %s\n", c->vm->name, name, said);
        return 0;
    }
    json_t *o = vms_json(c->vm);
    json_object_set_new(o, "snapshot", json_string(name));
    json_object_update(o, more);
    json_decref(more);
    return cli_print_json(o, e);
}

static int done(const struct snap_call *c, const char *name, const char *said, struct error *e)
{
    return done_with(c, name, said, NULL, e);
}

/* ---- take ---- */

/* s1, s2 ...: the first number behind all that there are. */
static int invent_name(const struct vm *vm, char out[VM_NAME_MAX + 1], struct error *e)
{
    struct vm_names list;
    unsigned long last = 0;
    int rc = vm_snapshot_list(vm, &list, e);
    for (size_t i = 0; i < list.n; i++) {
        const char *digits = list.name[i] + 1;
        size_t n = strlen(digits);
        if (list.name[i][0] == 's' && n && n < 10 && strspn(digits, "0123456789") == n)
            last = max_u64(last, strtoul(digits, NULL, 10));
    }
    catalog_list_free(&list);
    snprintf(out, VM_NAME_MAX + 1, "s%lu", last + 1);
    return rc;
}

/* A state fits the spec that the VM was started with only. */
static int refuse_changed_spec(const struct vm *vm, const struct vm_status *s, struct error *e)
{
    struct stat st;
    if (fstatat(vm->dir, VM_SPEC, &st, 0) < 0 || st.st_mtim.tv_sec <= s->started)
        return 0;
    return error_set(e, ERR_STATE,
                     "%s was started before its spec was changed, and its state fits the old one; "
                     "`sosia restart %s` first, or stop it",
                     vm->name, vm->name);
}

static int take_running(const struct snap_call *c, const char *name, struct error *e)
{
    struct vm_status s;
    int64_t pause_ns = 0;
    char said[80];
    vm_status_read(c->vm, &s);
    int rc = refuse_changed_spec(c->vm, &s, e);
    if (!rc)
        rc = vm_snapshot_take_live(c->vm, name, &pause_ns, e);
    if (rc)
        return rc;
    snprintf(said, sizeof said, "is taken; the guest stood still for %lld ms",
             (long long)(pause_ns / 1000000));
    return done_with(c, name, said, json_pack("{s:I}", "pause-ns", (json_int_t)pause_ns), e);
}

static int take(const struct snap_call *c, struct error *e)
{
    struct vm_status s;
    char name[VM_NAME_MAX + 1];
    int rc = 0;
    if (c->npos == 0)
        rc = invent_name(c->vm, name, e);
    else if (strlen(c->pos[0]) <= VM_NAME_MAX)
        snprintf(name, sizeof name, "%s", c->pos[0]);
    else
        rc = snapshot_check_name(c->pos[0], e);
    if (rc)
        return rc;
    vm_status_read(c->vm, &s);
    if (s.run == VM_PAUSED)
        return error_set(e, ERR_STATE, "%s is paused; `sosia resume %s` first", c->vm->name,
                         c->vm->name);
    if (s.run == VM_RUNNING)
        return take_running(c, name, e);
    rc = vm_snapshot_take(c->vm, name, e);
    return rc ? rc : done(c, name, "is taken", e);
}

/* ---- restore ---- */

static int make_room(const struct snap_call *c, struct error *e)
{
    struct vm_status s;
    const char *name = c->vm->name;
    vm_status_read(c->vm, &s);
    if (vm_is_alive(&s) && cli_has(c->a, CLI_FORCE))
        return life_pull_plug(c->vm, e);
    if ((!vm_is_alive(&s) && s.run != VM_SUSPENDED) || cli_has(c->a, CLI_FORCE))
        return 0;
    return error_set(e, ERR_STATE,
                     "%s is %s, and what it has done since would be lost; `sosia snap restore -f` "
                     "stops it",
                     name, vm_run_words[s.run]);
}

static int restore(const struct snap_call *c, struct error *e)
{
    struct snapshot s;
    int rc = vm_snapshot_load(c->vm, c->pos[0], &s, e); /* before anything is stopped */
    if (rc)
        return rc;
    enum snapshot_of of = s.of;
    snapshot_fini(&s);
    rc = make_room(c, e);
    if (!rc)
        rc = vm_snapshot_restore(c->vm, c->pos[0], e);
    if (!rc && of == SNAPSHOT_RUNNING)
        rc = life_launch(c->vm, e);
    static const char *const said[] = {"is restored; the VM is stopped",
                                       "is restored; the VM is suspended",
                                       "is restored; the VM goes on from there"};
    return rc ? rc : done(c, c->pos[0], said[of], e);
}

static int drop(const struct snap_call *c, struct error *e)
{
    int rc = 0;
    for (int i = 0; i < c->npos && !rc; i++) {
        rc = vm_snapshot_remove(c->vm, c->pos[i], e);
        if (!rc && !cli_has(c->a, CLI_JSON))
            rc = done(c, c->pos[i], "is removed", e);
    }
    return rc || !cli_has(c->a, CLI_JSON) ? rc : cli_print_json(vms_json(c->vm), e);
}

/* ---- the table ---- */

static const struct snap_verb verbs[] = {
    {"take", "VM [NAME]", "keep what a VM is now: its disks, its spec, and its state if it runs", 0,
     1, VM_FIND_CHANGE, take},
    {"ls", "VM", "list a VM's snapshots", 0, 0, VM_FIND_READ, snap_ls},
    {"tree", "VM", "show which snapshot came from which", 0, 0, VM_FIND_READ, snap_tree},
    {"restore", "VM NAME [-f]", "go back to a snapshot; what was not in one is lost", 1, 1,
     VM_FIND_CHANGE, restore},
    {"diff", "VM NAME [NAME]", "show what two snapshots differ in, or one and the disks now", 1, 2,
     VM_FIND_READ, snap_diff},
    {"rm", "VM NAME...", "remove snapshots, and what only they need", 1, 1 << 20, VM_FIND_CHANGE,
     drop},
};

static const char *nth_verb(const void *list, size_t i)
{
    return i < ARRAY_LEN(verbs) ? ((const struct snap_verb *)list)[i].name : NULL;
}

void cli_snap_list(FILE *out)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        fprintf(out, "  %-8s%-16s %s\n", verbs[i].name, verbs[i].args, verbs[i].summary);
}

static const struct snap_verb *find_verb(const char *name, struct error *e)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    const char *near = suggest(name, nth_verb, verbs);
    error_set(e, ERR_USAGE, "snap: unknown verb \"%.40s\"; %s%s%s", name,
              near ? "did you mean \"" : "`sosia help snap` lists them", near ? near : "",
              near ? "\"?" : "");
    return NULL;
}

int cli_snap(const struct cli_args *a, struct error *e)
{
    struct catalog cat;
    struct vm vm;
    const struct snap_verb *v = find_verb(a->pos[0], e);
    struct snap_call c = {.a = a, .vm = &vm, .npos = a->npos - 2, .pos = a->pos + 2};
    if (!v)
        return ERR_USAGE;
    if (c.npos < v->min || c.npos > v->max)
        return error_set(e, ERR_USAGE, "snap %s: %s; usage: sosia snap %s %s", v->name,
                         c.npos < v->min ? "which snapshot?" : "unexpected argument", v->name,
                         v->args);
    int rc = vms_open(&cat, a->pos[1], v->find, &vm, e);
    if (rc)
        return rc;
    rc = v->run(&c, e);
    vm_close(&vm);
    catalog_close(&cat);
    return rc;
}
