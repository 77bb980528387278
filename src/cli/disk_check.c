/* disk_check.c - `sosia disk check` and `sosia disk repair`. */
#include "cli/disk.h"

#include <string.h>

struct report {
    bool json;
    json_t *findings;
};
#define MAX_FINDINGS 1000u /* listed; all are counted */

static void say(void *ctx, const char *line)
{
    struct report *r = ctx;
    if (json_array_size(r->findings) >= MAX_FINDINGS)
        return;
    json_array_append_new(r->findings, cli_json_text(line));
    if (!r->json) {
        disk_progress_end();
        printf("%s\n", line);
    }
}

static void progress(void *ctx, uint64_t done, uint64_t of)
{
    disk_progress(NULL, done, of); /* a repair is not left halfway; a check ends soon */
}

static int print_json(const struct disk_args *a, struct report *r, const struct format_check *c,
                      bool repair, struct error *e)
{
    json_t *o = json_pack(
        "{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "file", cli_json_text(a->path[0]), "errors",
        (json_int_t)c->errors, "leaks", (json_int_t)c->leaks, "allocated-clusters",
        (json_int_t)c->allocated, "total-clusters", (json_int_t)c->total, "compressed-clusters",
        (json_int_t)c->compressed, "image-end", (json_int_t)c->end, "findings", r->findings);
    if (repair) {
        json_object_set_new(o, "errors-fixed", json_integer((json_int_t)c->errors_fixed));
        json_object_set_new(o, "leaks-fixed", json_integer((json_int_t)c->leaks_fixed));
    }
    return cli_print_json(o, e);
}

static void print_text(const struct disk_args *a, const struct format_check *c, bool repair)
{
    unsigned long long errors = c->errors, leaks = c->leaks;
    if (!errors && !leaks)
        printf("%s: no errors\n", a->path[0]);
    else if (repair)
        printf("%s: %llu errors, %llu of them repaired; %llu clusters leaked, %llu given back\n",
               a->path[0], errors, (unsigned long long)c->errors_fixed, leaks,
               (unsigned long long)c->leaks_fixed);
    else
        printf("%s: %llu errors, %llu clusters leaked; `sosia disk repair` puts right what can "
               "be\n",
               a->path[0], errors, leaks);
}

static int verdict(const struct format_check *c)
{
    if (c->errors > c->errors_fixed)
        return CLI_DAMAGED;
    return c->leaks > c->leaks_fixed ? CLI_LEAKS : 0;
}

/* With findings put right, others may show, or prove to be none. */
static int look_again(struct node *n, const struct format *f, struct format_check *c,
                      struct error *e)
{
    struct format_check again = {0};
    int rc = f->check(n, 0, &again, e);
    if (rc)
        return rc;
    c->errors = c->errors_fixed + again.errors;
    c->leaks = c->leaks_fixed + again.leaks;
    return 0;
}

static int check(const struct disk_args *a, bool repair, struct error *e)
{
    struct image_options o = disk_image_options(a, !repair);
    struct node *n = NULL;
    struct report r = {.json = a->given[DISK_JSON]};
    struct format_check c = {.say = say, .progress = progress, .ctx = &r};
    o.check = o.no_backing = true;
    int rc = image_open(a->path[0], &o, &n, e);
    if (rc)
        return rc;
    const struct format *f = format_find(n->ops->name);
    r.findings = json_array();
    if (!r.findings)
        rc = error_set(e, ERR_NOMEM, "out of memory");
    if (!rc && f && f->check) {
        rc = f->check(n, repair ? FORMAT_FIX_LEAKS | FORMAT_FIX_ERRORS : 0, &c, e);
        if (!rc && repair && c.errors + c.leaks > 0)
            rc = look_again(n, f, &c, e);
    }
    disk_progress_end();
    int flushed = rc ? 0 : node_flush(n);
    if (flushed)
        rc = error_errno(e, ERR_IO, -flushed, "%s: cannot be written", a->path[0]);
    node_close(n);
    if (!rc && r.json)
        rc = print_json(a, &r, &c, repair, e);
    else if (!rc)
        print_text(a, &c, repair);
    json_decref(r.findings);
    return rc ? rc : verdict(&c);
}

int disk_check(const struct disk_args *a, struct error *e)
{
    return check(a, false, e);
}

int disk_repair(const struct disk_args *a, struct error *e)
{
    return check(a, true, e);
}
