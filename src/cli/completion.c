/* completion.c - `sosia completion`: scripts for shells, made from the tables of verbs and options.
 */
#include <string.h>

#include "cli/cli.h"

static void print_options(const struct cli_verb *v, const char *before)
{
    for (int o = 0; o < CLI_OPTS; o++)
        if (v->opts & CLI_OPT(o))
            printf("%s--%s", before, cli_options[o].name);
}

#define SNAP_VERBS "take ls tree restore diff rm"

/* What stands for the arguments of each kind. */
static const char *const bash_kind[] = {
    [CLI_ARG_NONE] = "",
    [CLI_ARG_VM] = "$(sosia ls -q 2>/dev/null)",
    [CLI_ARG_FILE] = "$(compgen -f -- \"$cur\")",
    [CLI_ARG_VERB] = "$verbs",
    [CLI_ARG_VM_OR_FILE] = "$(sosia ls -q 2>/dev/null; compgen -f -- \"$cur\")",
    [CLI_ARG_SNAP] = SNAP_VERBS " $(sosia ls -q 2>/dev/null)",
};

static void print_bash(void)
{
    printf("# bash completion of sosia; made by `sosia completion bash`\n"
           "_sosia() {\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} verbs words=\n    verbs=\"");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("%s%s", v == cli_verbs ? "" : " ", v->name);
    printf("\"\n    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" = 1 ]; then\n        words=$verbs\n    else\n"
           "        case ${COMP_WORDS[1]} in\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        printf("        %s) words=\"%s", v->name, bash_kind[v->kind]);
        print_options(v, " ");
        printf("\" ;;\n");
    }
    printf("        esac\n    fi\n"
           "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
           "complete -o default -F _sosia sosia\n");
}

static void print_zsh(void)
{
    static const char *const kinds[] = {
        [CLI_ARG_NONE] = "",
        [CLI_ARG_VM] = "compadd ${(f)\"$(sosia ls -q 2>/dev/null)\"}",
        [CLI_ARG_FILE] = "_files",
        [CLI_ARG_VERB] = "compadd $verbs",
        [CLI_ARG_VM_OR_FILE] = "compadd ${(f)\"$(sosia ls -q 2>/dev/null)\"}; _files",
        [CLI_ARG_SNAP] = "compadd " SNAP_VERBS " ${(f)\"$(sosia ls -q 2>/dev/null)\"}",
    };
    printf("#compdef sosia\n# made by `sosia completion zsh`\nlocal -a verbs\nverbs=(");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("%s%s", v == cli_verbs ? "" : " ", v->name);
    printf(")\nif (( CURRENT == 2 )); then\n    compadd $verbs\n    return\nfi\n"
           "case $words[2] in\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        printf("%s) ", v->name);
        if (v->opts) {
            printf("compadd --");
            print_options(v, " ");
            printf("; ");
        }
        printf("%s ;;\n", kinds[v->kind]);
    }
    printf("esac\n");
}

/* In single quotes, where fish knows two escapes. */
static void print_fish_text(const char *s)
{
    putchar('\'');
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\')
            putchar('\\');
        putchar(*s);
    }
    putchar('\'');
}

static void print_fish(void)
{
    printf("# fish completion of sosia; made by `sosia completion fish`\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        printf("complete -c sosia -n __fish_use_subcommand %s-a %s -d ", "-f ", v->name);
        print_fish_text(v->summary);
        putchar('\n');
        if (v->kind == CLI_ARG_VM || v->kind == CLI_ARG_VM_OR_FILE)
            printf("complete -c sosia -n '__fish_seen_subcommand_from %s' %s-a '(sosia ls -q "
                   "2>/dev/null)'\n",
                   v->name, v->kind == CLI_ARG_VM ? "-f " : "");
        if (v->kind == CLI_ARG_SNAP)
            printf("complete -c sosia -n '__fish_seen_subcommand_from %s' -f -a '" SNAP_VERBS
                   " (sosia ls -q 2>/dev/null)'\n",
                   v->name);
        for (int o = 0; o < CLI_OPTS; o++) {
            if (!(v->opts & CLI_OPT(o)))
                continue;
            printf("complete -c sosia -n '__fish_seen_subcommand_from %s' -l %s %s-d ", v->name,
                   cli_options[o].name, cli_options[o].value ? "-r " : "");
            print_fish_text(cli_options[o].help);
            putchar('\n');
        }
    }
}

int cli_completion(const struct cli_args *a, struct error *e)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
    for (unsigned i = 0; i < ARRAY_LEN(shells); i++)
        if (strcmp(shells[i].name, a->pos[0]) == 0) {
            shells[i].print();
            return 0;
        }
    return error_set(e, ERR_USAGE,
                     "completion: \"%.40s\" is no shell that is known; bash, zsh or "
                     "fish",
                     a->pos[0]);
}
