/*
 * vmspec.h - the spec file of a VM.
 */
#ifndef SOSIA_CATALOG_VMSPEC_H
#define SOSIA_CATALOG_VMSPEC_H

#include "catalog/catalog.h"
#include "spec/spec.h"

/* The text, allocated. ERR_DAMAGED: there is none; ERR_PERM, ERR_IO. */
int vm_spec_text(const struct vm *vm, char **text, size_t *len, struct error *e);
/* As spec_load(); the VM's name is its folder's, whatever the spec says. */
int vm_spec_load(const struct vm *vm, const char *const *set, unsigned nset, struct spec *s,
                 struct error *e);
/* The new text, if it makes a spec; in one step. ERR_SPEC, ERR_PERM, ERR_IO. */
int vm_spec_write(const struct vm *vm, const char *text, struct error *e);
/* A text with each relative path made absolute, starting at `base` (a folder's path); paths for
 * which `keep` (may be NULL) is true stay. */
int vm_spec_absolute(const char *name, const char *text, const char *base,
                     bool (*keep)(const char *path), char **out, struct error *e);

#endif
