/*
 * boot_file.h - a kernel or initrd on the host, and reading it into guest RAM.
 */
#ifndef SOSIA_MACHINE_BOOT_FILE_H
#define SOSIA_MACHINE_BOOT_FILE_H

#include "base/error.h"
#include "base/types.h"
#include "mem/ram.h"

struct boot_file {
    const char *path;
    int fd; /* -1: not open */
    uint64_t size;
};

/* Opens f->path: a regular file that is not empty. `what` names it in messages. ERR_IO, ERR_FORMAT.
 */
int boot_file_open(struct boot_file *f, const char *what, struct error *e);
void boot_file_close(struct boot_file *f);

/* [off, off+len) of the file; ERR_IO, also if the file is shorter. */
int boot_file_read(const struct boot_file *f, uint64_t off, void *buf, uint64_t len,
                   struct error *e);
/* The same straight into guest RAM; the caller has proved that the range is within it. */
int boot_file_load(const struct boot_file *f, uint64_t off, struct ram *ram, gpa_t gpa,
                   uint64_t len, struct error *e);

#endif
