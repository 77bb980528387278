/*
 * file.h - a file that gets all output of a device; nothing comes back from it.
 */
#ifndef SOSIA_CHAR_FILE_H
#define SOSIA_CHAR_FILE_H

#include <pthread.h>
#include <uv.h>

#include "base/error.h"
#include "char/char.h"

struct char_file;

/* Creates the file, or empties it. ERR_IO, ERR_NOMEM. */
int char_file_open(struct char_file **f, const char *path, uv_loop_t *loop,
                   pthread_mutex_t *dev_lock, struct error *e);
struct char_out char_file_out(struct char_file *f);
/* For wiring: whom to tell `drained`. Before the loop runs, or with the device lock held. */
void char_file_set_in(struct char_file *f, struct char_in in);
/* As char_terminal_close(). */
void char_file_close(struct char_file *f);

#endif
