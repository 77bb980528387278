/* verbs.c - the table of verbs, and the help that follows from it. */
#include <string.h>

#include "base/suggest.h"
#include "cli/cli.h"

#define SPEC_ARGS "SPEC [--set KEY=VALUE]... [-v]"
#define SPEC_DETAIL                                                                     \
    "  SPEC              the VM's spec file, see sosia.yaml(5)\n"                       \
    "  --set KEY=VALUE   overrides a key of the file; VALUE is YAML, may be repeated\n" \
    "  -v                tells more on standard error; -vv tells all\n"

const struct cli_verb cli_verbs[] = {
    {"run", SPEC_ARGS " [--log-code FILE] [--perf-map]", "run a VM here until it powers off",
     SPEC_DETAIL
     "  --log-code FILE   writes what the engine jit translates, and how often that runs\n"
     "  --perf-map        tells perf(1) about translated code\n"
     "\n"
     "The guest's serial port is this terminal. Ctrl-A x leaves, Ctrl-A h lists the other keys.\n",
     cli_run, NULL},
    {"check", SPEC_ARGS, "check a spec file and the files it names", SPEC_DETAIL, cli_check, NULL},
    {"spec", "[--defaults]", "list the keys of a spec file",
     "  --defaults        print a spec file with every key and its default\n", cli_spec, NULL},
    {"disk", "VERB FILE [ARGUMENT]...", "make, look at and change disk images", "", cli_disk,
     cli_disk_list},
    {"help", "[VERB]", "explain a verb", "", cli_help, NULL},
    {.name = NULL},
};

static const char *nth_verb(const void *list, size_t i)
{
    return ((const struct cli_verb *)list)[i].name;
}

const struct cli_verb *cli_find_verb(const char *name, struct error *e)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    const char *near = suggest(name, nth_verb, cli_verbs);
    if (near)
        error_set(e, ERR_USAGE, "unknown verb \"%.40s\"; did you mean \"%s\"?", name, near);
    else
        error_set(e, ERR_USAGE, "unknown verb \"%.40s\"; `sosia help` lists the verbs", name);
    return NULL;
}

void cli_print_usage(FILE *out)
{
    fprintf(out,
            "usage: sosia VERB [ARGUMENT]...\n"
            "       sosia --help | --version\n\n"
            "Runs virtual machines in an ordinary process: no KVM, no root, no kernel module.\n"
            "\nVerbs:\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        fprintf(out, "  %-8s %s\n", v->name, v->summary);
    fprintf(out,
            "\n`sosia help VERB` explains one. Manuals: sosia(1), sosia-disk(1), sosia.yaml(5).\n");
}

void cli_print_verb(FILE *out, const struct cli_verb *v)
{
    fprintf(out, "usage: sosia %s %s\n\n%s: %s.\n", v->name, v->args, v->name, v->summary);
    if (v->detail[0])
        fprintf(out, "\n%s", v->detail);
    if (v->list) {
        fprintf(out, "\nVerbs:\n");
        v->list(out);
    }
}
