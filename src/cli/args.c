/* args.c - options and arguments of a verb, by its row of the table. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* Apart from the characters that getopt_long() has its own meanings for. */
#define LONG 256

/* getopt's tables for this verb. */
struct tables {
    struct option longs[CLI_OPTS + 1];
    char shorts[2 * CLI_OPTS + 2];
};

static void make_tables(const struct cli_verb *v, struct tables *t)
{
    size_t n = 0, s = 0;
    t->shorts[s++] = ':';
    for (int o = 0; o < CLI_OPTS; o++) {
        const struct cli_option *opt = &cli_options[o];
        if (!(v->opts & CLI_OPT(o)))
            continue;
        t->longs[n++] = (struct option){opt->name, opt->value ? required_argument : no_argument,
                                        NULL, LONG + o};
        if (opt->letter) {
            t->shorts[s++] = opt->letter;
            if (opt->value)
                t->shorts[s++] = ':';
        }
    }
    t->longs[n] = (struct option){NULL, 0, NULL, 0};
    t->shorts[s] = 0;
}

/* Which option of the verb getopt has returned, or -1. */
static int option_of(const struct cli_verb *v, int c)
{
    if (c >= LONG && c < LONG + CLI_OPTS)
        return c - LONG;
    for (int o = 0; o < CLI_OPTS; o++)
        if ((v->opts & CLI_OPT(o)) && cli_options[o].letter && cli_options[o].letter == c)
            return o;
    return -1;
}

static int wrong_option(const struct cli_verb *v, int c, char **argv, struct error *e)
{
    int o = c == ':' ? option_of(v, optopt) : -1;
    if (o >= 0)
        return error_set(
            e, ERR_USAGE, "%s: --%s needs %s%s", v->name, cli_options[o].name,
            strchr(cli_options[o].value, '=') ? "" : "a value: ", cli_options[o].value);
    return error_set(e, ERR_USAGE, "%s: unknown option \"%.40s\"; see `sosia help %s`", v->name,
                     argv[optind - 1], v->name);
}

static int take_positions(const struct cli_verb *v, int argc, char **argv, struct cli_args *a,
                          struct error *e)
{
    for (; optind < argc; optind++) {
        if (v->max >= 0 && a->npos >= v->max)
            return error_set(e, ERR_USAGE, "%s: unexpected argument \"%.40s\"; see `sosia help %s`",
                             v->name, argv[optind], v->name);
        a->pos[a->npos++] = argv[optind];
    }
    if (a->npos < v->min)
        return error_set(e, ERR_USAGE, "%s: %s See `sosia help %s`", v->name, v->missing, v->name);
    return 0;
}

int cli_parse(const struct cli_verb *v, int argc, char **argv, struct cli_args *a, struct error *e)
{
    struct tables t;
    int c;
    *a = (struct cli_args){.verb = v};
    a->pos = calloc((size_t)argc + 1, sizeof *a->pos);
    a->given = calloc((size_t)argc + 1, sizeof *a->given);
    if (!a->pos || !a->given)
        return error_set(e, ERR_NOMEM, "out of memory");
    make_tables(v, &t);
    opterr = 0;
    optind = 0; /* glibc: all anew */
    while ((c = getopt_long(argc, argv, t.shorts, t.longs, NULL)) != -1) {
        int o = option_of(v, c);
        if (o < 0)
            return wrong_option(v, c, argv, e);
        /* "-vvv" is one word and several options: those without a value are counted only. */
        a->count[o]++;
        if (!optarg)
            continue;
        a->value[o] = optarg;
        a->given[a->ngiven++] = (struct cli_given){(enum cli_opt)o, optarg};
    }
    return take_positions(v, argc, argv, a, e);
}

void cli_args_free(struct cli_args *a)
{
    free(a->pos);
    free(a->given);
    a->pos = NULL;
    a->given = NULL;
}

const char **cli_values(const struct cli_args *a, enum cli_opt o, unsigned *n)
{
    const char **list = calloc(a->ngiven + 1ul, sizeof *list);
    *n = 0;
    for (unsigned i = 0; list && i < a->ngiven; i++)
        if (a->given[i].opt == o)
            list[(*n)++] = a->given[i].value;
    return list;
}

int cli_seconds(const struct cli_args *a, enum cli_opt o, int64_t def_ms, int64_t *ms,
                struct error *e)
{
    char *end;
    *ms = def_ms;
    if (!cli_has(a, o))
        return 0;
    double s = strtod(a->value[o], &end);
    if (*end || end == a->value[o] || !(s >= 0 && s <= 1e6))
        return error_set(e, ERR_USAGE, "%s: --%s: \"%.40s\" is not a number of seconds",
                         a->verb->name, cli_options[o].name, a->value[o]);
    *ms = (int64_t)(s * 1000);
    return 0;
}
