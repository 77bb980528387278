/* load.c - the spec of the verbs that work on one: a file, or a VM of the catalog. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cli/vms.h"

/* What looks like a file or is one, or cannot be the name of a VM. */
bool cli_is_file(const char *arg)
{
    const char *dot = strrchr(arg, '.');
    bool suffix =
        dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0 || strcmp(dot, ".json") == 0);
    return catalog_check_name(arg, NULL) < 0 || suffix || access(arg, F_OK) == 0;
}

static int load_vm(const char *ref, const char **set, unsigned nset, struct spec *s,
                   struct error *e)
{
    struct catalog c;
    struct vm vm;
    int r = vms_open(&c, ref, VM_FIND_READ, &vm, e);
    if (r)
        return r;
    r = vm_spec_load(&vm, set, nset, s, e);
    vm_close(&vm);
    catalog_close(&c);
    return r;
}

int cli_load_spec(const struct cli_args *a, struct spec *s, struct error *e)
{
    unsigned nset;
    unsigned verbose = a->count[CLI_VERBOSE];
    CLEANUP_FREE const char **set = cli_values(a, CLI_SET, &nset);
    if (!set)
        return error_set(e, ERR_NOMEM, "out of memory");
    log_set_level(verbose > 1 ? LOG_DEBUG : verbose ? LOG_INFO : LOG_WARN);
    int r = cli_is_file(a->pos[0]) ? spec_load(a->pos[0], set, nset, s, e)
                                   : load_vm(a->pos[0], set, nset, s, e);
    if (r == ERR_IO) /* a spec file that cannot be read is the caller's mistake */
        r = ERR_SPEC;
    if (r == 0 && (r = spec_check(s, e)) < 0)
        spec_fini(s);
    return r;
}
