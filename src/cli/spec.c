/* spec.c - `sosia spec`: the keys of a spec file, as help or as a file to start from. */
#include <string.h>

#include "cli/cli.h"

int cli_spec(int argc, char **argv, struct error *e)
{
    if (argc == 1)
        spec_print_help(stdout);
    else if (argc == 2 && strcmp(argv[1], "--defaults") == 0)
        spec_print_defaults(stdout);
    else
        return error_set(e, ERR_USAGE, "spec: unexpected argument \"%.40s\"; see `sosia help spec`",
                         argv[argc == 2 ? 1 : 2]);
    return 0;
}
