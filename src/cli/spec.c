/* spec.c - `sosia spec`: the keys of a spec file, as help or as a file to start from; a VM's spec.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "cli/vms.h"

static int print_vm(const char *ref, struct error *e)
{
    struct catalog c;
    struct vm vm;
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int r = vms_open(&c, ref, VM_FIND_READ, &vm, e);
    if (r)
        return r;
    r = vm_spec_text(&vm, &text, &len, e);
    if (!r)
        fwrite(text, 1, len, stdout);
    vm_close(&vm);
    catalog_close(&c);
    return r;
}

int cli_spec(const struct cli_args *a, struct error *e)
{
    if (a->npos && cli_has(a, CLI_DEFAULTS))
        return error_set(e, ERR_USAGE, "spec: unexpected argument \"%.40s\"; see `sosia help spec`",
                         a->pos[0]);
    if (a->npos)
        return print_vm(a->pos[0], e);
    if (cli_has(a, CLI_DEFAULTS))
        spec_print_defaults(stdout);
    else
        spec_print_help(stdout);
    return 0;
}
