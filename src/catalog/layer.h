/*
 * layer.h - what linked clones and snapshots rest on: files that nobody writes to any more.
 *
 * A disk becomes a layer by a second name, a hard link beside it; then an empty overlay on the
 * layer is put in the disk's place by one rename. So there is no instant without a disk. Files are
 * named by their place in the VM's folder ("inside": "disks/disk0.qcow2"). state.json has
 *
 *     layers  the layers that the VM's disks need, with their sizes: whether they are there
 *     tops    disks as they were when their overlay was made: whether they were written to since
 */
#ifndef SOSIA_CATALOG_LAYER_H
#define SOSIA_CATALOG_LAYER_H

#include <sys/stat.h>

#include "catalog/catalog.h"
#include "catalog/state.h"

/* The path of a name in the spec, and, if the file lies in the VM's folder, the part behind that.
 * Allocated; *inside NULL: it does not. */
int layer_resolve(const struct vm *vm, const char *name, char **path, char **inside,
                  struct error *e);
/* The folder of a file is made durable. */
int layer_sync_folder(int dir, const char *inside, struct error *e);

/* Whether the layers that the VM's disks need are there, and no restore was broken off.
 * ERR_DAMAGED, ERR_STATE. */
int vm_layers_check(const struct vm *vm, struct error *e);
/* 0, or -1: out of memory. */
int layer_note(struct vm_state *s, const char *inside, const struct stat *st);
/* The mark of a disk that has not been written to since its overlay was made. */
void layer_note_top(struct vm_state *s, int dir, const char *inside);
bool layer_is_untouched(const struct vm_state *s, int dir, const char *inside);

/* An empty overlay at `path` on `layer`, which lies beside it. */
int layer_overlay(const char *path, const char *layer, const char *format, bool replace,
                  struct error *e);
/* A new name; allocated. */
int layer_name(const char *inside, char **layer, struct error *e);
/* The disk becomes `layer`, and an overlay takes its place; noted in `s`. A VM that runs still
 * writes to the layer until it is told. */
int layer_push(const struct vm *vm, struct vm_state *s, const char *inside, const char *layer,
               const char *format, struct error *e);
/* Nobody writes to the layer any more; noted in `s`. */
int layer_done(const struct vm *vm, struct vm_state *s, const char *layer, struct error *e);

#endif
