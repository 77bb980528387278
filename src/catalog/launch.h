/*
 * launch.h - the VMM of a VM: a process of its own that has no terminal and outlives the tool.
 */
#ifndef SOSIA_CATALOG_LAUNCH_H
#define SOSIA_CATALOG_LAUNCH_H

#include "catalog/catalog.h"
#include "spec/spec.h"

#define VM_LOG_CONSOLE     "logs/serial.log" /* what the guest writes */
#define VM_LOG_CONSOLE_OLD "logs/serial.old" /* before that */
#define VM_LOG_VMM         "logs/vmm.log"    /* what the VMM has to say */
#define VM_LOG_VMM_OLD     "logs/vmm.old"
#define VM_LOG_EVENTS      "logs/events.log" /* the control socket's events, a line each */

/* Starts it and waits until its guest runs. The VM is open for VM_FIND_CHANGE. Whatever goes wrong
 * before that is told here: ERR_STATE: it runs already; else as vmm_run(). */
int vm_launch(const struct vm *vm, const struct spec *s, struct error *e);

/* A suspended VM is stopped, as if its plug had been pulled. ERR_STATE: it is not suspended. */
int vm_forget_state(const struct vm *vm, struct error *e);
/* The same for a verb that has the VM open for VM_FIND_CHANGE and knows that it is not alive. */
int vm_drop_state(const struct vm *vm, struct error *e);
/* Likewise; `file` was put in its place: the VM is suspended. */
int vm_adopt_state(const struct vm *vm, const char *file, struct error *e);

#endif
