/* run.c - `sosia run`: a VM in this process, its serial port on this terminal. */
#include <signal.h>

#include "cli/cli.h"
#include "vmm/vmm.h"

int cli_run(int argc, char **argv, struct error *e)
{
    struct cli_spec_args a = {.run = true};
    struct spec s;
    int r = cli_load_spec(argc, argv, &a, &s, e);

    if (r < 0)
        return r;
    /* Whoever reads the guest's output may leave; the guest goes on. */
    signal(SIGPIPE, SIG_IGN);
    const struct vmm_options o = {
        .verbose = a.verbose, .log_code = a.log_code, .perf_map = a.perf_map};
    r = vmm_run(&s, &o, e);
    spec_fini(&s);
    return r;
}
