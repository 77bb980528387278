/* help.c - `sosia help`. */
#include "cli/cli.h"

int cli_help(const struct cli_args *a, struct error *e)
{
    if (a->npos == 0) {
        cli_print_usage(stdout);
        return 0;
    }
    const struct cli_verb *v = cli_find_verb(a->pos[0], e);
    if (!v)
        return ERR_USAGE;
    cli_print_verb(stdout, v);
    return 0;
}
