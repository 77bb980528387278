/*
 * writer.h - bytes of a device to a descriptor, through a bounded buffer that the event loop
 * drains.
 *
 * The vCPU that writes never waits for the host: it fills the buffer under the device lock, and the
 * loop's thread empties it. When the buffer is full, char_out.write takes less; when there is room
 * again, the device's `drained` is called, with the device lock held.
 *
 * Invariants: the ring [head, head+used) is unwritten output. `used` grows under the device lock
 * by any thread, and shrinks under it by the loop's thread, which alone moves `head`. The lock is
 * not held over a write(2).
 */
#ifndef SOSIA_CHAR_WRITER_H
#define SOSIA_CHAR_WRITER_H

#include <pthread.h>

#include "char/char.h"
#include "char/watch.h"

#define CHAR_WRITER_SIZE (64u * 1024)

struct char_writer {
    pthread_mutex_t *lock; /* the device lock */
    struct char_watch watch;
    uv_async_t kick;
    int fd;            /* our own */
    bool socket;       /* send(2) takes a flag where write(2) would block */
    size_t chunk;      /* most bytes of one write */
    struct char_in in; /* whom to tell `drained`; zero: nobody */
    bool starved;      /* a write was cut short, and the device waits for `drained` */
    bool broken;       /* nobody reads any more: output is dropped */
    size_t head, used;
    uint8_t ring[CHAR_WRITER_SIZE];
    unsigned closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* `fd` stays the caller's; its flags are not touched. ERR_IO. */
int char_writer_init(struct char_writer *w, uv_loop_t *loop, int fd, pthread_mutex_t *lock,
                     struct error *e);
struct char_out char_writer_out(struct char_writer *w);
/* Device lock held, or before the VM runs. */
void char_writer_set_in(struct char_writer *w, struct char_in in);

/* Writes all that is buffered, waiting as long as it takes, then closes; `closed` is called by the
 * loop when the struct may be freed. On the loop's thread, device lock not held, when no vCPU runs
 * any more. */
void char_writer_close(struct char_writer *w, void (*closed)(void *arg), void *arg);

#endif
