/* check.c - `sosia check`: says whether `sosia run` would get as far as building the machine. */
#include "cli/cli.h"

int cli_check(int argc, char **argv, struct error *e)
{
    struct cli_spec_args a = {0};
    struct spec s;
    int r = cli_load_spec(argc, argv, &a, &s, e);

    if (r < 0)
        return r;
    printf("%s: ok\n", a.path);
    spec_fini(&s);
    return 0;
}
