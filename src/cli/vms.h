/*
 * vms.h - what the verbs on VMs of the catalog share.
 */
#ifndef SOSIA_CLI_VMS_H
#define SOSIA_CLI_VMS_H

#include "catalog/catalog.h"
#include "catalog/state.h"
#include "catalog/status.h"
#include "catalog/vmspec.h"
#include "cli/cli.h"
#include "cli/json.h"

/* Opens the catalog and the VM that `ref` names; the caller closes both on success. */
int vms_open(struct catalog *c, const char *ref, enum vm_find how, struct vm *vm, struct error *e);

/* {"name", "uuid", "state"}, for verbs that change something; more is added by the caller. NULL:
 * out of memory. */
json_t *vms_json(const struct vm *vm);
/* Tells what was done: with --json the object on standard output, else the line on standard error.
 */
int vms_done(const struct cli_args *a, const struct vm *vm, struct error *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define VMS_SAID 200
/* What a verb does with a VM, and what is to be told then; "": nothing. */
typedef int vms_work(const struct cli_args *a, struct vm *vm, char said[VMS_SAID], struct error *e);
/* Does it with each VM that is named, opened as catalog_find() does. If there are several, the one
 * that fails is told of, and the others are gone on with; the first error is returned. */
int vms_each(const struct cli_args *a, enum vm_find how, vms_work *work, struct error *e);

/* The last line that the guest wrote to its console, fit for a terminal; "" if there is none. */
void vms_last_line(const struct vm *vm, char *out, size_t size);

/* A duration as people say it: "5 s", "3 min", "2 h", "8 days". Returns `out`. */
const char *vms_age(char out[32], int64_t seconds);

/* Tables: cells are printed in columns as wide as need be. */
#define TABLE_COLUMNS 8
struct table {
    char **cell;
    size_t n, cap;
    unsigned columns;
    bool failed;
};
void table_add(struct table *t, const char *text);
void table_print(struct table *t); /* and frees it */

#endif
