/* wait.c - `sosia wait`: until a VM runs, has stopped, or its guest has written something. */
#define _GNU_SOURCE
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "catalog/launch.h"
#include "catalog/watch.h"
#include "cli/life.h"
#include "cli/tail.h"

#define MAX_LINE 65536u /* of what is matched; a longer line is matched in pieces */

struct waiting {
    const char *what;
    bool (*check)(struct waiting *w, const struct vm_status *s, struct error *e);
    regex_t regex;
    struct tail tail;
    size_t len;
    char line[MAX_LINE + 1];
    bool hopeless; /* *e tells */
};

static bool runs(struct waiting *w, const struct vm_status *s, struct error *e)
{
    return s->run == VM_RUNNING;
}

static bool stopped(struct waiting *w, const struct vm_status *s, struct error *e)
{
    return !vm_is_alive(s);
}

/* Looks at complete lines once, at the unfinished one whenever it has grown. */
static bool match_lines(struct waiting *w)
{
    char *nl;
    w->line[w->len] = 0;
    for (size_t i = 0; i < w->len; i++) /* a NUL would end the text */
        if (!w->line[i])
            w->line[i] = '?';
    while ((nl = memchr(w->line, '\n', w->len))) {
        *nl = 0;
        if (nl > w->line && nl[-1] == '\r')
            nl[-1] = 0;
        if (regexec(&w->regex, w->line, 0, NULL, 0) == 0)
            return true;
        w->len -= (size_t)(nl + 1 - w->line);
        memmove(w->line, nl + 1, w->len + 1);
    }
    bool found = regexec(&w->regex, w->line, 0, NULL, 0) == 0;
    if (w->len == MAX_LINE)
        w->len = 0;
    return found;
}

static bool has_text(struct waiting *w, const struct vm_status *s, struct error *e)
{
    size_t n;
    while ((n = tail_read(&w->tail, w->line + w->len, MAX_LINE - w->len)) > 0) {
        w->len += n;
        if (match_lines(w))
            return true;
    }
    w->hopeless = !vm_is_alive(s);
    if (w->hopeless)
        error_set(e, ERR_STATE, "it is %s, and has not written that", vm_run_words[s->run]);
    return false;
}

static int set_regex(struct waiting *w, const char *text, struct error *e)
{
    char why[128];
    int rc = regcomp(&w->regex, text, REG_EXTENDED | REG_NOSUB);
    if (!rc)
        return 0;
    regerror(rc, &w->regex, why, sizeof why);
    return error_set(e, ERR_USAGE, "wait: \"%.80s\" is no regular expression: %s", text, why);
}

static int set_condition(struct waiting *w, const struct cli_args *a, struct error *e)
{
    w->what = cli_has(a, CLI_FOR) ? a->value[CLI_FOR] : "stopped";
    if (strcmp(w->what, "running") == 0)
        w->check = runs;
    else if (strcmp(w->what, "stopped") == 0)
        w->check = stopped;
    else if (strncmp(w->what, "text:", 5) == 0)
        w->check = has_text;
    else
        return error_set(e, ERR_USAGE,
                         "wait: --for is running, stopped or text:REGEX, not "
                         "\"%.40s\"",
                         w->what);
    return w->check == has_text ? set_regex(w, w->what + 5, e) : 0;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static int wait_for(struct waiting *w, struct vm *vm, int64_t ms, struct error *e)
{
    struct vm_watch watch;
    struct vm_status s;
    int64_t until = now_ms() + ms;
    int rc = vm_watch_open(&watch, vm, e);
    while (!rc) {
        vm_status_read(vm, &s);
        if (w->check(w, &s, e))
            break;
        int64_t left = ms < 0 ? -1 : until - now_ms();
        if (w->hopeless)
            rc = error_prefix(e, "%s", vm->name);
        else if (ms >= 0 && left <= 0)
            rc = error_set(e, ERR_TIMEOUT, "%s: no \"%.60s\" within %g s", vm->name, w->what,
                           (double)ms / 1000);
        else
            vm_watch_wait(&watch, -1, left);
        if (!rc)
            life_show(vm);
    }
    life_hide();
    vm_watch_close(&watch);
    return rc;
}

int cli_wait(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    int64_t ms;
    struct waiting *w = calloc(1, sizeof *w);
    int rc =
        w ? cli_seconds(a, CLI_TIMEOUT_S, -1, &ms, e) : error_set(e, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = set_condition(w, a, e);
    if (!rc)
        rc = vms_open(&c, a->pos[0], VM_FIND_READ, &vm, e);
    if (!rc) {
        tail_open(&w->tail, &vm, VM_LOG_CONSOLE);
        rc = wait_for(w, &vm, ms, e);
        if (!rc && cli_has(a, CLI_JSON))
            rc = cli_print_json(vms_json(&vm), e);
        tail_close(&w->tail);
        vm_close(&vm);
        catalog_close(&c);
    }
    if (w && w->check == has_text)
        regfree(&w->regex);
    free(w);
    return rc;
}
