/* load.c - the arguments and the spec file of the verbs that work on one. */
#include <getopt.h>
#include <stdlib.h>

#include "base/log.h"
#include "cli/cli.h"

static int parse_args(int argc, char **argv, struct cli_spec_args *a, struct error *e)
{
    static const struct option options[] = {
        {"set", required_argument, NULL, 's'},
        {"verbose", no_argument, NULL, 'v'},
        {"log-code", required_argument, NULL, 'l'},
        {"perf-map", no_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    int c;

    opterr = 0;
    while ((c = getopt_long(argc, argv, ":v", options, NULL)) != -1) {
        if (c == 's')
            a->set[a->nset++] = optarg;
        else if (c == 'v')
            a->verbose++;
        else if (c == 'l' && a->run)
            a->log_code = optarg;
        else if (c == 'p' && a->run)
            a->perf_map = true;
        else if (c == ':')
            return error_set(e, ERR_USAGE, "%s: %s", argv[0],
                             optopt == 'l' ? "--log-code needs a file" : "--set needs KEY=VALUE");
        else
            return error_set(e, ERR_USAGE, "%s: unknown option \"%.40s\"; see `sosia help %s`",
                             argv[0], argv[optind - 1], argv[0]);
    }
    if (optind >= argc)
        return error_set(e, ERR_USAGE, "%s: which spec file? See `sosia help %s`", argv[0],
                         argv[0]);
    a->path = argv[optind++];
    if (optind < argc)
        return error_set(e, ERR_USAGE, "%s: unexpected argument \"%.40s\"", argv[0], argv[optind]);
    return 0;
}

int cli_load_spec(int argc, char **argv, struct cli_spec_args *a, struct spec *s, struct error *e)
{
    a->set = calloc((size_t)argc, sizeof *a->set);
    if (!a->set)
        return error_set(e, ERR_NOMEM, "out of memory");
    int r = parse_args(argc, argv, a, e);
    if (r == 0) {
        log_set_level(a->verbose > 1 ? LOG_DEBUG : a->verbose ? LOG_INFO : LOG_WARN);
        r = spec_load(a->path, a->set, a->nset, s, e);
        if (r == ERR_IO) /* a spec file that cannot be read is the caller's mistake */
            r = ERR_SPEC;
    }
    if (r == 0 && (r = spec_check(s, e)) < 0)
        spec_fini(s);
    free(a->set);
    a->set = NULL;
    return r;
}
