/*
 * store.h - small files that are whole at every instant.
 *
 * A file is written under a hidden name in the same folder, made durable, renamed, and then the
 * folder is made durable. Whoever is killed leaves the old contents or the new, and at worst a
 * hidden file (".NAME.PID.part") that nobody reads and store_sweep() removes. Messages name the
 * file by its path.
 */
#ifndef SOSIA_CATALOG_STORE_H
#define SOSIA_CATALOG_STORE_H

#include <dirent.h>

#include "base/error.h"
#include "base/types.h"

/* The path of an open folder and a name in it, for messages. Returns `out`. */
#define STORE_PATH 512
const char *store_path(int dir, const char *name, char out[STORE_PATH]);

/* The whole file, NUL-terminated, allocated. ERR_NOTFOUND, ERR_PERM, ERR_IO, ERR_NOMEM; ERR_LIMIT:
 * larger than `max`. */
int store_read(int dir, const char *name, size_t max, char **text, size_t *len, struct error *e);
/* ERR_PERM, ERR_IO (no space, too). */
int store_write(int dir, const char *name, const char *text, size_t len, struct error *e);
/* Removes what writers of these files (NULL at the end) left that were killed; nobody else may be
 * writing them. What cannot be removed stays. */
void store_sweep(int dir, const char *const *name);
/* A new file in a folder that nobody reads yet: written in place, durable. */
int store_write_new(int dir, const char *name, const char *text, size_t len, struct error *e);
/* All of an open file into another, durable; `name` is for messages. */
int store_copy(int from, int to, const char *name, struct error *e);
int store_sync(int dir, struct error *e);
/* Opens a folder, which is made if need be. Returns a descriptor. */
int store_folder(int dir, const char *name, bool make, struct error *e);
/* The entries of a folder, for readdir() and closedir(), whatever position `dir` has; symbolic
 * links to folders are none. NULL: errno. */
DIR *store_list(int dir, const char *name);
/* Removes a folder and all that is in it; does not follow symbolic links. */
int store_remove(int dir, const char *name, struct error *e);
/* Renames; ERR_BUSY: there is something of the new name. Both folders are made durable. */
int store_rename(int from_dir, const char *from, int to_dir, const char *to, struct error *e);

#endif
