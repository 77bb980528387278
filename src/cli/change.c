/* change.c - `sosia rename`, `rm`, `recover`: what VMs are called, and the trash. */
#include <stdio.h>
#include <string.h>

#include "cli/vms.h"

int cli_rename(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    int rc = catalog_open(&c, true, e);
    if (!rc && (rc = catalog_lock(&c, e)))
        catalog_close(&c);
    if (rc)
        return rc;
    rc = catalog_find(&c, a->pos[0], VM_FIND_CHANGE, &vm, e);
    if (!rc)
        rc = catalog_rename(&c, &vm, a->pos[1], e);
    if (!rc) {
        char was[sizeof vm.name];
        memcpy(was, vm.name, sizeof was);
        snprintf(vm.name, sizeof vm.name, "%s", a->pos[1]);
        rc = vms_done(a, &vm, e, "%s is called %s now", was, vm.name);
    }
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}

/* One that is in the trash already. */
static int purge_trash(struct catalog *c, const char *ref, struct error *e)
{
    struct vm vm;
    int rc = catalog_find_trash(c, ref, &vm, e);
    if (rc)
        return rc;
    rc = catalog_purge(c, &vm, e);
    vm_close(&vm);
    return rc;
}

static int remove_one(struct catalog *c, const char *ref, bool purge, struct error *e)
{
    struct vm vm;
    int rc = catalog_find(c, ref, VM_FIND_CHANGE, &vm, e);
    if (rc == ERR_NOTFOUND && purge) {
        struct error first = *e;
        rc = purge_trash(c, ref, e);
        if (rc == ERR_NOTFOUND)
            *e = first;
        return rc;
    }
    if (rc)
        return rc;
    rc = catalog_remove(c, &vm, e);
    if (!rc && purge)
        rc = catalog_purge(c, &vm, e);
    vm_close(&vm);
    return rc;
}

int cli_rm(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    bool purge = cli_has(a, CLI_PURGE);
    int rc = catalog_open(&c, true, e);
    if (!rc && (rc = catalog_lock(&c, e)))
        catalog_close(&c);
    if (rc)
        return rc;
    json_t *gone = json_array();
    for (int i = 0; !rc && i < a->npos; i++) {
        rc = remove_one(&c, a->pos[i], purge, e);
        if (!rc)
            json_array_append_new(gone, cli_json_text(a->pos[i]));
        if (!rc && !cli_has(a, CLI_JSON))
            fprintf(stderr, purge ? "%s is gone\n" : "%s is in the trash\n", a->pos[i]);
    }
    if (!rc && cli_has(a, CLI_JSON))
        rc = cli_print_json(json_pack("{s:O}", purge ? "purged" : "removed", gone), e);
    json_decref(gone);
    catalog_close(&c);
    return rc;
}

static int list_trash(const struct cli_args *a, const struct catalog *c, struct error *e)
{
    struct vm_names list;
    int rc = catalog_list(c->trash, &list, e);
    json_t *all = json_array();
    for (size_t i = 0; !rc && i < list.n; i++) {
        if (cli_has(a, CLI_JSON))
            json_array_append_new(all, cli_json_text(list.name[i]));
        else
            puts(list.name[i]);
    }
    if (!rc && cli_has(a, CLI_JSON))
        rc = cli_print_json(json_pack("{s:O}", "trash", all), e);
    json_decref(all);
    catalog_list_free(&list);
    return rc;
}

static int recover(const struct cli_args *a, struct catalog *c, struct error *e)
{
    struct vm vm;
    int rc = catalog_lock(c, e);
    if (!rc)
        rc = catalog_find_trash(c, a->pos[0], &vm, e);
    if (rc)
        return rc;
    rc = catalog_recover(c, &vm, a->npos > 1 ? a->pos[1] : NULL, e);
    if (!rc)
        rc = vms_done(a, &vm, e, "%s is back", vm.name);
    vm_close(&vm);
    return rc;
}

int cli_recover(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    int rc = catalog_open(&c, a->npos > 0, e);
    if (rc)
        return rc;
    rc = a->npos ? recover(a, &c, e) : list_trash(a, &c, e);
    catalog_close(&c);
    return rc;
}
