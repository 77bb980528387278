/*
 * storage.h - a storage whose power fails, below everything that this process does with the files
 * of one folder.
 *
 * The linker puts it between the program and the C library (--wrap, see meson.build), so what is
 * tested is the code that users run, down to each system call. While it records, what is written
 * and not made durable (fsync, fdatasync, RWF_DSYNC) may be lost when the power fails:
 *  - each sector then holds, at random, its durable contents or what any write since put there,
 *    independent of the others: writes are lost, come out of order, are torn between sectors;
 *  - a file has one of the lengths that it had since it was durable;
 *  - files made, renamed or removed since the folder was durable are so, or the last of these
 * changes did not happen; each file's contents are a matter of their own. io_uring is not recorded:
 * nodes are used directly, or with threads.
 */
#ifndef TESTS_CRASH_STORAGE_H
#define TESTS_CRASH_STORAGE_H

#include <stdbool.h>
#include <stdint.h>

#define STORAGE_NEVER UINT64_MAX

/* The folder, without a slash at its end. */
void storage_open(const char *folder);
/* From now on it records. The power fails at the operation after `ops` others (of those that change
 * something or make it durable), which is then EIO and may have been done in part. */
void storage_record(uint64_t ops, uint64_t seed);
/* The power fails now, if it has not yet. */
void storage_cut(void);
bool storage_is_cut(void);
/* Operations since storage_record(). */
uint64_t storage_ops(void);
/* The power is back; nothing is recorded. What was not cut stays as it was written. */
void storage_restore(void);

#endif
