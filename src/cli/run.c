/* run.c - `sosia run`: a VM in this process, its serial port on this terminal. */
#include <signal.h>

#include "cli/cli.h"
#include "vmm/vmm.h"

int cli_run(const struct cli_args *a, struct error *e)
{
    struct spec s;
    int r = cli_load_spec(a, &s, e);

    if (r < 0)
        return r;
    /* Whoever reads the guest's output may leave; the guest goes on. */
    signal(SIGPIPE, SIG_IGN);
    const struct vmm_options o = {.verbose = (int)a->count[CLI_VERBOSE],
                                  .log_code = a->value[CLI_LOG_CODE],
                                  .state = a->value[CLI_FROM_STATE],
                                  .save = a->value[CLI_SAVE_TO],
                                  .perf_map = cli_has(a, CLI_PERF_MAP)};
    r = vmm_run(&s, &o, e);
    spec_fini(&s);
    return r;
}
