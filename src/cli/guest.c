/* guest.c - `sosia screen`, `type`, `key`: what a person in front of the VM would see and do. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "catalog/remote.h"
#include "cli/life.h"

#define CALL_MS  15000
#define TYPE_MAX 256 /* characters in one command */
#define MAX_KEYS 16

/* Opens all three; the caller closes them on success. */
static int reach(const char *ref, struct catalog *c, struct vm *vm, struct remote *r,
                 struct error *e)
{
    int rc = vms_open(c, ref, VM_FIND_READ, vm, e);
    if (rc)
        return rc;
    rc = remote_open(r, vm, e);
    if (rc) {
        vm_close(vm);
        catalog_close(c);
    }
    return rc;
}

/* Closes all three; tells that it is done, as JSON if that is asked for. */
static int leave(const struct cli_args *a, struct catalog *c, struct vm *vm, struct remote *r,
                 int rc, struct error *e)
{
    remote_close(r);
    if (!rc && cli_has(a, CLI_JSON))
        rc = cli_print_json(vms_json(vm), e);
    vm_close(vm);
    catalog_close(c);
    return rc;
}

int cli_screen(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    struct remote r;
    json_t *ret = NULL;
    int rc = reach(a->pos[0], &c, &vm, &r, e);
    if (rc)
        return rc;
    rc = remote_call(&r, "x-sosia-screen", NULL, CALL_MS, &ret, e);
    if (!rc && cli_has(a, CLI_JSON))
        rc = cli_print_json(json_incref(ret), e);
    else if (!rc)
        for (const char *p = json_string_value(json_object_get(ret, "text")); p && *p; p++)
            putchar(*p == '\n' || (unsigned char)*p >= ' ' ? *p : '?');
    json_decref(ret);
    remote_close(&r);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}

int cli_type(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    struct remote r;
    const char *text = a->pos[1];
    int rc = reach(a->pos[0], &c, &vm, &r, e);
    if (rc)
        return rc;
    for (size_t len = strlen(text), n; !rc && len > 0; text += n, len -= n) {
        n = len < TYPE_MAX ? len : TYPE_MAX;
        json_t *piece = json_stringn(text, n);
        if (!piece)
            rc = error_set(e, ERR_USAGE, "type: only characters that a US keyboard has");
        else
            rc = remote_call(&r, "x-sosia-type", json_pack("{s:o}", "text", piece), CALL_MS, NULL,
                             e);
    }
    return leave(a, &c, &vm, &r, rc, e);
}

/* "ctrl-alt-del": the keys of one chord. NULL: out of memory, or too many. */
static json_t *chord(const char *text)
{
    CLEANUP_FREE char *copy = strdup(text);
    json_t *keys = json_array();
    unsigned n = 0;
    for (char *p = copy, *save = NULL; p && (p = strtok_r(p, "-", &save)); p = NULL)
        if (n++ < MAX_KEYS)
            json_array_append_new(keys, json_pack("{s:s, s:s}", "type", "qcode", "data", p));
    return keys;
}

int cli_key(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    struct remote r;
    int rc = reach(a->pos[0], &c, &vm, &r, e);
    if (rc)
        return rc;
    for (int i = 1; !rc && i < a->npos; i++)
        rc = remote_call(&r, "send-key", json_pack("{s:o}", "keys", chord(a->pos[i])), CALL_MS,
                         NULL, e);
    return leave(a, &c, &vm, &r, rc, e);
}
