/* logs.c - `sosia logs` and `sosia events`: files that the VMM writes, shown and followed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/launch.h"
#include "catalog/watch.h"
#include "cli/tail.h"
#include "cli/vms.h"

static int lines_option(const struct cli_args *a, unsigned *n, struct error *e)
{
    char *end;
    const char *text = a->value[CLI_LINES];
    *n = 0;
    if (!text)
        return 0;
    unsigned long v = strtoul(text, &end, 10);
    if (*end || end == text || text[0] == '-' || v > 10000000)
        return error_set(e, ERR_USAGE, "%s: \"%.40s\" is not a number of lines", a->verb->name,
                         text);
    *n = (unsigned)v;
    return 0;
}

/* False: nobody reads any more. */
static bool print_new(struct tail *t)
{
    char buf[16384];
    size_t n;
    while ((n = tail_read(t, buf, sizeof buf)) > 0)
        if (fwrite(buf, 1, n, stdout) != n)
            return false;
    return fflush(stdout) == 0;
}

static int follow(struct tail *t, const struct vm *vm, struct error *e)
{
    struct vm_watch w;
    struct vm_status s;
    int rc = vm_watch_open(&w, vm, e);
    if (rc)
        return rc;
    for (;;) {
        vm_status_read(vm, &s); /* before what it wrote last is read */
        if (!print_new(t) || !vm_is_alive(&s))
            break;
        vm_watch_wait(&w, -1, -1);
    }
    vm_watch_close(&w);
    return 0;
}

/* {"lines": [...]} */
static int print_json(struct tail *t, bool events, struct error *e)
{
    char *text = NULL, line[16384];
    size_t len, n;
    FILE *f = open_memstream(&text, &len);
    json_t *list = json_array();
    while (f && (n = tail_read(t, line, sizeof line)) > 0)
        fwrite(line, 1, n, f);
    if (!f || fclose(f) || !list) {
        free(text);
        json_decref(list);
        return error_set(e, ERR_NOMEM, "out of memory");
    }
    for (char *p = text, *save = NULL; (p = strtok_r(p, "\n", &save)); p = NULL) {
        json_t *event = events ? json_loads(p, 0, NULL) : NULL;
        json_array_append_new(list, event ? event : cli_json_text(p));
    }
    free(text);
    return cli_print_json(json_pack("{s:o}", events ? "events" : "lines", list), e);
}

static int show(const struct cli_args *a, const char *file, struct error *e)
{
    struct catalog c;
    struct vm vm;
    struct tail t;
    unsigned lines;
    int rc = lines_option(a, &lines, e);
    if (!rc && cli_has(a, CLI_FOLLOW) && cli_has(a, CLI_JSON) && strcmp(file, VM_LOG_EVENTS) != 0)
        rc = error_set(e, ERR_USAGE, "%s: --json and --follow do not go together", a->verb->name);
    if (!rc)
        rc = vms_open(&c, a->pos[0], VM_FIND_READ, &vm, e);
    if (rc)
        return rc;
    tail_open(&t, &vm, file);
    if (cli_has(a, CLI_LINES))
        tail_last(&t, lines);
    if (cli_has(a, CLI_FOLLOW))
        rc = follow(&t, &vm, e);
    else if (cli_has(a, CLI_JSON))
        rc = print_json(&t, strcmp(file, VM_LOG_EVENTS) == 0, e);
    else
        print_new(&t);
    tail_close(&t);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}

int cli_logs(const struct cli_args *a, struct error *e)
{
    return show(a, cli_has(a, CLI_SERIAL) ? VM_LOG_CONSOLE : VM_LOG_VMM, e);
}

int cli_events(const struct cli_args *a, struct error *e)
{
    return show(a, VM_LOG_EVENTS, e);
}
