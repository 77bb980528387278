/*
 * life.h - what the verbs on running VMs share.
 */
#ifndef SOSIA_CLI_LIFE_H
#define SOSIA_CLI_LIFE_H

#include "cli/vms.h"

/* The last line of the guest's console, on a terminal, while one waits; `vm`: a struct vm. */
void life_show(void *vm);
void life_hide(void);

/* The VM, open for VM_FIND_CHANGE, is started after its spec, files and layers were checked. */
int life_launch(struct vm *vm, struct error *e);
/* Its state is saved, and its process has ended. */
int life_suspend(const struct vm *vm, struct error *e);
/* A VM that is alive ends at once. */
int life_pull_plug(const struct vm *vm, struct error *e);

/* Shows the console until the VM ends or the user leaves. */
int console_attach(const struct vm *vm, struct error *e);

#endif
