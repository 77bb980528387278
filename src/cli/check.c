/* check.c - `sosia check`: says whether `sosia run` would get as far as building the machine. */
#include "cli/cli.h"
#include "cli/json.h"

int cli_check(const struct cli_args *a, struct error *e)
{
    struct spec s;
    int r = cli_load_spec(a, &s, e);

    if (r < 0)
        return r;
    spec_fini(&s);
    if (cli_has(a, CLI_JSON))
        return cli_print_json(json_pack("{s:o, s:b}", "spec", cli_json_text(a->pos[0]), "ok", 1),
                              e);
    printf("%s: ok\n", a->pos[0]);
    return 0;
}
