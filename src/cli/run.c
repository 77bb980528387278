/* run.c - `sosia run`: a VM in this process, its serial port on this terminal. */
#include "cli/cli.h"
#include "vmm/vmm.h"

int cli_run(int argc, char **argv, struct error *e)
{
    struct cli_spec_args a;
    struct spec s;
    int r = cli_load_spec(argc, argv, &a, &s, e);

    if (r < 0)
        return r;
    r = vmm_run(&s, &(struct vmm_options){.verbose = a.verbose}, e);
    spec_fini(&s);
    return r;
}
