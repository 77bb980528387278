/* main.c - finds the verb, runs it, prints its error, exits. Nothing else does either. */
#include <errno.h>
#include <stdio.h>
#include <signal.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/json.h"

/* What is going on, for the error at the end. */
struct call {
    const struct cli_verb *verb; /* NULL: none */
    bool json;
};

static int exit_code(const struct call *c, int r)
{
    bool plain = !c->verb || c->verb->plain;
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
    case ERR_STATE:
    case ERR_BUSY:
        return plain ? CLI_FAILED : CLI_STATE;
    case ERR_NOTFOUND:
        return CLI_NOTFOUND;
    case ERR_PERM:
        return CLI_DENIED;
    case ERR_TIMEOUT:
        return CLI_TIMEOUT;
    case ERR_DAMAGED:
        return CLI_INTEGRITY;
    default:
        return CLI_FAILED;
    }
}

void cli_print_error(const struct error *e)
{
    fprintf(stderr, "sosia: %s%s%s\n", e->where, e->where[0] ? ": " : "", e->msg);
}

static bool asks_help(const char *arg)
{
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

static int call_verb(const struct cli_verb *v, int argc, char **argv, struct error *e)
{
    struct cli_args a;
    if (v->raw)
        return v->raw(argc, argv, e);
    int r = cli_parse(v, argc, argv, &a, e);
    if (r == 0)
        r = v->run(&a, e);
    cli_args_free(&a);
    return r;
}

static int dispatch(struct call *c, int argc, char **argv, struct error *e)
{
    if (argc < 2) {
        cli_print_usage(stderr);
        return error_set(e, ERR_USAGE, "no verb given");
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("sosia " SOSIA_VERSION);
        return 0;
    }
    if (asks_help(argv[1])) {
        cli_print_usage(stdout);
        return 0;
    }
    const struct cli_verb *v = c->verb = cli_find_verb(argv[1], e);
    if (!v)
        return ERR_USAGE;
    if (argc > 2 && asks_help(argv[2])) {
        cli_print_verb(stdout, v);
        return 0;
    }
    /* Also if the arguments turn out to be wrong. */
    for (int i = 2; i < argc && (v->opts & CLI_OPT(CLI_JSON)); i++)
        c->json |= strcmp(argv[i], "--json") == 0;
    return call_verb(v, argc - 1, argv + 1, e);
}

int main(int argc, char **argv)
{
    struct error e = {0};
    struct call c = {0};

    /* A limit on the size of files (ulimit -f) is an error of the write, which can be told. */
    signal(SIGXFSZ, SIG_IGN);
    int r = dispatch(&c, argc, argv, &e);

    if (r >= 0 && (fflush(stdout) != 0 || ferror(stdout)))
        r = error_errno(&e, ERR_IO, errno, "cannot write to standard output");
    if (r < 0 && e.msg[0] && c.json)
        cli_print_json_error(&e);
    else if (r < 0 && e.msg[0])
        cli_print_error(&e);
    return exit_code(&c, r);
}
