/*
 * json.h - what verbs print with --json: one JSON value on standard output, also when they fail:
 * {"error": {"code": "busy", "message": "...", "hint": "..." or null}}.
 */
#ifndef SOSIA_CLI_JSON_H
#define SOSIA_CLI_JSON_H

#include <jansson.h>

#include "base/error.h"

/* Prints the value and drops it. */
int cli_print_json(json_t *o, struct error *e);
/* Text that may be no UTF-8. */
json_t *cli_json_text(const char *s);
/* What "error" holds. */
json_t *cli_json_error(const struct error *e);
void cli_print_json_error(const struct error *e);
/* The word for an error code; "io" for one that there is not. */
const char *cli_error_name(int code);

#endif
