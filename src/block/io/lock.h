/*
 * lock.h - keeps two programs from writing to one image.
 *
 * Open file description locks (fcntl(2)) on the whole file: shared for readers, exclusive for a
 * writer. They end with the description, so a killed process leaves none behind.
 */
#ifndef SOSIA_BLOCK_IO_LOCK_H
#define SOSIA_BLOCK_IO_LOCK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* ERR_BUSY: another holds it; the message says who. A file system without locks is no error, it is
 * logged. `path` is for messages. */
int lock_take(const char *path, int fd, bool shared, struct error *e);

/* That of a writer becomes that of a reader. */
void lock_share(int fd);
/* Takes it as a writer if nobody else has it; false: somebody has. */
bool lock_is_ours(int fd);

/* Who has the file locked, and whether to write to it. False: nobody. Takes no lock itself. */
bool lock_holder(int fd, char *who, size_t size, bool *writes);

#endif
