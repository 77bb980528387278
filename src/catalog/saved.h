/*
 * saved.h - what the state of a suspended VM rests on: the machine that its spec describes, and its
 * disks as they were at that instant.
 *
 * The VMM notes both in run.json when it ends, and who lets the VM go on compares. A file that was
 * written to has another length or time of change; a copy made with `cp -a` has not. A disk may
 * have got overlays meanwhile, as a snapshot's layers do, if nothing is in them.
 */
#ifndef SOSIA_CATALOG_SAVED_H
#define SOSIA_CATALOG_SAVED_H

#include <jansson.h>

#include "catalog/catalog.h"
#include "spec/spec.h"

/* The files' paths are the spec's. Opens nothing, so it works in the sandbox. NULL: out of memory.
 */
json_t *vm_saved_note(const struct spec *s);

/* Whether a suspended VM's state fits a spec, and (vm_saved_check) its disks are what they were. A
 * VM that is not suspended fits. ERR_STATE: another machine; ERR_DAMAGED: another disk. */
int vm_saved_check_machine(const struct vm *vm, const struct spec *s, struct error *e);
int vm_saved_check(const struct vm *vm, const struct spec *s, struct error *e);

#endif
