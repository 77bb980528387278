/* help.c - `sosia help`. */
#include "cli/cli.h"

int cli_help(int argc, char **argv, struct error *e)
{
    if (argc == 1) {
        cli_print_usage(stdout);
        return 0;
    }
    if (argc > 2)
        return error_set(e, ERR_USAGE, "help: one verb at a time");
    const struct cli_verb *v = cli_find_verb(argv[1], e);
    if (!v)
        return ERR_USAGE;
    cli_print_verb(stdout, v);
    return 0;
}
