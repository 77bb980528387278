/* boot_file.c - see boot_file.h. */
#include "machine/boot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int boot_file_open(struct boot_file *f, const char *what, struct error *e)
{
    struct stat st;
    /* O_NONBLOCK: a FIFO given by mistake must not hang us. */
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (f->fd < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot open the %s", f->path, what);
    if (fstat(f->fd, &st) < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot find its size", f->path);
    if (!S_ISREG(st.st_mode))
        return error_set(e, ERR_FORMAT, "%s: not a regular file; a %s is needed here", f->path,
                         what);
    if (st.st_size == 0)
        return error_set(e, ERR_FORMAT, "%s: is empty; a %s is needed here", f->path, what);
    f->size = (uint64_t)st.st_size;
    return 0;
}

void boot_file_close(struct boot_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

int boot_file_read(const struct boot_file *f, uint64_t off, void *buf, uint64_t len,
                   struct error *e)
{
    uint64_t done = 0;
    while (done < len) {
        ssize_t n = pread(f->fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, ERR_IO, errno, "%s: cannot read", f->path);
        if (n == 0)
            return error_set(e, ERR_IO, "%s: became shorter while it was read", f->path);
        done += (uint64_t)n;
    }
    return 0;
}

int boot_file_load(const struct boot_file *f, uint64_t off, struct ram *ram, gpa_t gpa,
                   uint64_t len, struct error *e)
{
    int rc = boot_file_read(f, off, ram->host + gpa, len, e);
    ram_note_write(ram, gpa, len);
    return rc;
}
