/* run.c - `sosia run`: a VM in this process, its serial port on this terminal. */
#include <signal.h>

#include "cli/cli.h"
#include "vmm/vmm.h"

int cli_run(int argc, char **argv, struct error *e)
{
    struct cli_spec_args a;
    struct spec s;
    int r = cli_load_spec(argc, argv, &a, &s, e);

    if (r < 0)
        return r;
    /* Whoever reads the guest's output may leave; the guest goes on. */
    signal(SIGPIPE, SIG_IGN);
    r = vmm_run(&s, &(struct vmm_options){.verbose = a.verbose}, e);
    spec_fini(&s);
    return r;
}
