/* json.c - see json.h. */
#include "cli/json.h"

#include <stdio.h>
#include <string.h>

#include "base/types.h"

static const char *const code_names[] = {
    [0] = "",
    [-ERR_USAGE] = "usage",
    [-ERR_SPEC] = "spec",
    [-ERR_IO] = "io",
    [-ERR_FORMAT] = "format",
    [-ERR_NOMEM] = "nomem",
    [-ERR_HOST] = "host",
    [-ERR_LIMIT] = "limit",
    [-ERR_BUSY] = "busy",
    [-ERR_STATE] = "state",
    [-ERR_NOTFOUND] = "not-found",
    [-ERR_PERM] = "permission",
    [-ERR_TIMEOUT] = "timeout",
    [-ERR_DAMAGED] = "integrity",
    [-ERR_GUEST] = "guest",
};

const char *cli_error_name(int code)
{
    return code < 0 && -code < (int)ARRAY_LEN(code_names) ? code_names[-code] : "io";
}

int cli_print_json(json_t *o, struct error *e)
{
    if (!o)
        return error_set(e, ERR_NOMEM, "out of memory");
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(o);
    return 0;
}

json_t *cli_json_text(const char *s)
{
    json_t *t = s ? json_string(s) : json_null();
    return t ? t : json_string("(not UTF-8)");
}

/* Messages say what is wrong, then, behind a semicolon, what to do. */
json_t *cli_json_error(const struct error *e)
{
    const char *semicolon = NULL;
    for (const char *s = e->msg; (s = strstr(s, "; ")); s += 2)
        semicolon = s;
    json_t *o =
        json_pack("{s:s, s:o, s:o}", "code", cli_error_name(e->code), "message",
                  cli_json_text(e->msg), "hint", cli_json_text(semicolon ? semicolon + 2 : NULL));
    if (e->where[0])
        json_object_set_new(o, "where", cli_json_text(e->where));
    return o;
}

void cli_print_json_error(const struct error *e)
{
    struct error ours = {0};
    cli_print_json(json_pack("{s:o}", "error", cli_json_error(e)), &ours);
}
