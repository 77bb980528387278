/* main.c - finds the verb, runs it, prints its error, exits. Nothing else does either. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static int exit_code(int r)
{
    if (r > 0)
        return r;
    switch (r) {
    case 0:
        return CLI_OK;
    case ERR_USAGE:
    case ERR_SPEC:
        return CLI_USAGE;
    case ERR_HOST:
        return CLI_HOST;
    default:
        return CLI_FAILED;
    }
}

static int dispatch(int argc, char **argv, struct error *e)
{
    if (argc < 2) {
        cli_print_usage(stderr);
        return error_set(e, ERR_USAGE, "no verb given");
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("sosia " SOSIA_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        cli_print_usage(stdout);
        return 0;
    }
    const struct cli_verb *v = cli_find_verb(argv[1], e);
    if (!v)
        return ERR_USAGE;
    if (argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0)) {
        cli_print_verb(stdout, v);
        return 0;
    }
    return v->run(argc - 1, argv + 1, e);
}

int main(int argc, char **argv)
{
    struct error e = {0};
    int r = dispatch(argc, argv, &e);

    if (r >= 0 && (fflush(stdout) != 0 || ferror(stdout)))
        r = error_errno(&e, ERR_IO, errno, "cannot write to standard output");
    if (r < 0 && e.msg[0])
        fprintf(stderr, "sosia: %s%s%s\n", e.where, e.where[0] ? ": " : "", e.msg);
    return exit_code(r);
}
