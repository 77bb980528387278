/* file.c - a char_writer on a file; see file.h. */
#include "char/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "char/writer.h"

struct char_file {
    struct char_writer writer;
};

int char_file_open(struct char_file **out_f, const char *path, uv_loop_t *loop,
                   pthread_mutex_t *dev_lock, struct error *e)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_errno(e, ERR_IO, errno, "cannot write %s", path);
    struct char_file *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(e, ERR_NOMEM, "out of memory for %s", path);
    int r = char_writer_init(&f->writer, loop, fd, dev_lock, e); /* has a descriptor of its own */
    if (r < 0) {
        free(f);
        return error_prefix(e, "%s", path);
    }
    *out_f = f;
    return 0;
}

struct char_out char_file_out(struct char_file *f)
{
    return char_writer_out(&f->writer);
}

void char_file_set_in(struct char_file *f, struct char_in in)
{
    char_writer_set_in(&f->writer, in);
}

void char_file_close(struct char_file *f)
{
    if (f)
        char_writer_close(&f->writer, free, f);
}
