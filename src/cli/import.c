/* import.c - `sosia import`: a VM from another program's description of one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/store.h"
#include "cli/import.h"
#include "cli/vms.h"

typedef int import_parser(struct import *m, const char *text, size_t len, struct error *e);

/* By the end of a file's name. */
static const struct {
    const char *suffix;
    import_parser *parse;
} parsers[] = {
    {".vmx", import_vmx},
    {".vbox", import_vbox},
};

struct importing {
    struct import m;
    struct import_plan plan;
    char base[PATH_MAX]; /* relative paths start here */
    char name[IMPORT_NAME];
    char *text; /* of the spec */
};

static import_parser *parser_of(const char *path, const char **suffix)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < ARRAY_LEN(parsers); i++) {
        size_t len = strlen(parsers[i].suffix);
        *suffix = parsers[i].suffix;
        if (n > len && strcasecmp(path + n - len, *suffix) == 0)
            return parsers[i].parse;
    }
    return NULL;
}

static int parse_file(struct importing *im, const char *path, struct error *e)
{
    CLEANUP_FREE char *text = NULL;
    const char *suffix;
    size_t len;
    import_parser *parse = parser_of(path, &suffix);
    if (!parse)
        return error_set(e, ERR_USAGE, "import: \"%.60s\" is not called FILE.vmx or FILE.vbox",
                         path);
    if (!realpath(path, im->base))
        return error_file(e, errno, "%s: cannot find it", path);
    int rc = store_read(AT_FDCWD, im->base, IMPORT_MAX_TEXT, &text, &len, e);
    if (!rc)
        rc = parse(&im->m, text, len, e);
    if (rc)
        return error_prefix(e, "%s", path);
    const char *file = strrchr(im->base, '/') + 1;
    CLEANUP_FREE char *stem = strndup(file, strlen(file) - strlen(suffix));
    import_name(im->m.title ? im->m.title : "", im->name);
    if (!im->name[0] && stem)
        import_name(stem, im->name);
    dirname(im->base);
    return 0;
}

static int read_input(char **text, size_t *len, struct error *e)
{
    *text = malloc(IMPORT_MAX_TEXT + 2ul); /* one more than is taken: too much is told */
    if (!*text)
        return error_set(e, ERR_NOMEM, "out of memory");
    *len = fread(*text, 1, IMPORT_MAX_TEXT + 1ul, stdin);
    (*text)[*len] = 0;
    return ferror(stdin) ? error_errno(e, ERR_IO, errno, "standard input") : 0;
}

/* A command line: `given`, or from standard input. */
static int parse_command(struct importing *im, const char *given, struct error *e)
{
    CLEANUP_FREE char *text = NULL;
    size_t len = given ? strlen(given) : 0;
    int rc = given ? 0 : read_input(&text, &len, e);
    if (!rc)
        rc = import_qemu(&im->m, given ? given : text, len, e);
    if (rc)
        return error_prefix(e, "the command line");
    if (!getcwd(im->base, sizeof im->base))
        return error_file(e, errno, "the current folder");
    import_name(im->m.title ? im->m.title : "", im->name);
    return 0;
}

/* By what is given; *name is the argument behind it, or NULL. */
static int parse(struct importing *im, const struct cli_args *a, const char **name, struct error *e)
{
    bool command = cli_has(a, CLI_QEMU);
    int at = command ? 0 : 1;
    if (a->npos < at)
        return error_set(e, ERR_USAGE, "import: from which file? See `sosia help import`");
    if (a->npos > at + 1)
        return error_set(e, ERR_USAGE, "import: either a file or --qemu; see `sosia help import`");
    *name = a->npos > at ? a->pos[at] : NULL;
    if (command || strcmp(a->pos[0], "-") == 0)
        return parse_command(im, command ? a->value[CLI_QEMU] : NULL, e);
    return parse_file(im, a->pos[0], e);
}

static int choose_name(struct importing *im, const char *given, struct error *e)
{
    if (given)
        snprintf(im->name, sizeof im->name, "%s", given);
    if (!im->name[0])
        return error_set(e, ERR_USAGE,
                         "import: what shall it be called? Its name is the last argument");
    return catalog_check_name(given ? given : im->name, e);
}

/* ---- what is told ---- */

static void print_notes(const char *title, const struct import_notes *l)
{
    if (l->n)
        fprintf(stderr, "%s:\n", title);
    for (unsigned i = 0; i < l->n; i++)
        fprintf(stderr, "  %-22s %s\n", l->note[i].from, l->note[i].text);
    if (l->more)
        fprintf(stderr, "  and %u more\n", l->more);
}

static json_t *json_notes(const struct import_notes *l, const char *key)
{
    json_t *list = json_array();
    for (unsigned i = 0; list && i < l->n; i++)
        json_array_append_new(list, json_pack("{s:o, s:o}", "from", cli_json_text(l->note[i].from),
                                              key, cli_json_text(l->note[i].text)));
    return list;
}

static int print_json(const struct importing *im, json_t *o, struct error *e)
{
    if (!o)
        return error_set(e, ERR_NOMEM, "out of memory");
    json_object_set_new(o, "understood", json_notes(&im->m.took, "as"));
    json_object_set_new(o, "dropped", json_notes(&im->m.dropped, "why"));
    return cli_print_json(o, e);
}

static void print_both(const struct importing *im)
{
    print_notes("understood", &im->m.took);
    print_notes("dropped", &im->m.dropped);
}

static int show(const struct importing *im, const struct cli_args *a, struct error *e)
{
    if (cli_has(a, CLI_JSON))
        return print_json(
            im, json_pack("{s:s, s:o}", "name", im->name, "spec", cli_json_text(im->text)), e);
    print_both(im);
    fputs(im->text, stdout);
    return 0;
}

/* What this host has to say about it is no reason to refuse it. */
static void remark(const struct vm *vm)
{
    struct spec s;
    struct error why = {0};
    if (vm_spec_load(vm, NULL, 0, &s, &why) != 0)
        return;
    if (spec_check(&s, &why) < 0)
        fprintf(stderr, "sosia: but it could not be started now: %s: %s\n", why.where, why.msg);
    spec_fini(&s);
}

/* ---- making it ---- */

static int commit(struct catalog *c, struct vm_draft *draft, const struct importing *im,
                  struct error *e)
{
    struct vm_state state;
    struct spec s;
    int rc = import_make_disks(&im->plan, draft->path, e);
    if (!rc)
        rc = spec_load_text(VM_SPEC, im->text, strlen(im->text), &s, e);
    if (rc)
        return rc;
    spec_fini(&s);
    rc = vm_state_new(&state, e);
    if (rc)
        return rc;
    rc = vm_draft_commit(c, draft, im->text, &state, e);
    vm_state_fini(&state);
    return rc;
}

static int make(const struct importing *im, const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm_draft draft;
    struct vm vm;
    int rc = catalog_open(&c, true, e);
    if (rc)
        return rc;
    rc = catalog_lock(&c, e);
    if (!rc)
        rc = vm_draft_begin(&c, &draft, im->name, e);
    if (!rc) {
        rc = commit(&c, &draft, im, e);
        vm_draft_end(&c, &draft);
    }
    if (!rc)
        rc = vm_open(c.vms, im->name, VM_FIND_READ, &vm, e);
    if (!rc) {
        if (cli_has(a, CLI_JSON)) {
            rc = print_json(im, vms_json(&vm), e);
        } else {
            print_both(im);
            fprintf(stderr, "imported %s into %s\n", vm.name, vm.path);
            remark(&vm);
        }
        vm_close(&vm);
    }
    catalog_close(&c);
    return rc;
}

int cli_import(const struct cli_args *a, struct error *e)
{
    struct importing *im = calloc(1, sizeof *im);
    const char *name = NULL;
    if (!im)
        return error_set(e, ERR_NOMEM, "out of memory");
    im->plan.copy = cli_has(a, CLI_COPY);
    int rc = parse(im, a, &name, e);
    if (!rc)
        rc = choose_name(im, name, e);
    if (!rc)
        rc = import_plan(&im->plan, &im->m, im->base, e);
    if (!rc)
        rc = import_spec_text(&im->m, im->name, &im->text, e);
    if (!rc)
        rc = cli_has(a, CLI_DRY_RUN) ? show(im, a, e) : make(im, a, e);
    free(im->text);
    import_plan_fini(&im->plan);
    import_fini(&im->m);
    free(im);
    return rc;
}
