/* writer.c - the ring and the loop's side of it; see writer.h for the invariants. */
#include "char/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define TTY_CHUNK 64 /* bytes that a writable terminal surely takes */

static size_t ring_write(void *ctx, const uint8_t *buf, size_t len)
{
    struct char_writer *w = ctx;

    if (w->broken)
        return len;
    size_t n = min_u64(len, CHAR_WRITER_SIZE - w->used);
    size_t tail = (w->head + w->used) % CHAR_WRITER_SIZE;
    size_t first = min_u64(n, CHAR_WRITER_SIZE - tail);
    memcpy(w->ring + tail, buf, first);
    memcpy(w->ring, buf + first, n - first);
    if (w->used == 0 && n > 0)
        uv_async_send(&w->kick);
    w->used += n;
    if (n < len)
        w->starved = true;
    return n;
}

/* Drops `n` bytes that are written and wakes the device once half of the buffer is free: a wake-up
 * for every byte would cost more than the byte. */
static void consume(struct char_writer *w, size_t n)
{
    pthread_mutex_lock(w->lock);
    w->head = (w->head + n) % CHAR_WRITER_SIZE;
    w->used -= n;
    if (w->starved && w->used <= CHAR_WRITER_SIZE / 2) {
        w->starved = false;
        if (w->in.drained)
            w->in.drained(w->in.dev);
    }
    pthread_mutex_unlock(w->lock);
}

static void give_up(struct char_writer *w, int errnum)
{
    log_warn("guest output is lost from here on: %s", strerror(errnum));
    pthread_mutex_lock(w->lock);
    w->broken = true;
    size_t rest = w->used;
    pthread_mutex_unlock(w->lock);
    consume(w, rest);
}

enum drained { EMPTY, BLOCKED, MORE };

/* Writes until the buffer is empty or the descriptor would block; but no more than one buffer, so
 * that a guest that prints without pause leaves the loop time for others. */
static enum drained drain(struct char_writer *w)
{
    for (size_t total = 0; total < CHAR_WRITER_SIZE;) {
        pthread_mutex_lock(w->lock);
        size_t n = min_u64(min_u64(w->used, CHAR_WRITER_SIZE - w->head), w->chunk);
        pthread_mutex_unlock(w->lock);
        if (n == 0)
            return EMPTY;
        const uint8_t *p = w->ring + w->head;
        ssize_t done =
            w->socket ? send(w->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(w->fd, p, n);
        if (done < 0 && errno == EAGAIN)
            return BLOCKED;
        if (done < 0 && errno != EINTR)
            give_up(w, errno);
        if (done <= 0)
            continue;
        consume(w, (size_t)done);
        total += (size_t)done;
        /* Where a write may block, one piece for each time the descriptor is ready. */
        if (w->chunk < CHAR_WRITER_SIZE && !w->watch.direct)
            return BLOCKED;
    }
    return MORE;
}

static void pump(void *arg)
{
    struct char_writer *w = arg;
    enum drained d = drain(w);

    char_watch_set(&w->watch, d == BLOCKED ? EPOLLOUT : 0);
    if (d == MORE)
        uv_async_send(&w->kick);
}

static void on_kick(uv_async_t *kick)
{
    struct char_writer *w = kick->data;
    if (!w->watch.events) /* else the descriptor is full, and its watch will call */
        pump(w);
}

/*
 * A descriptor of our own. A terminal or pipe is opened anew if that is allowed, so that it can be
 * non-blocking without its other users noticing; else it is shared, and written in pieces that a
 * ready descriptor takes at once (pipe(7): PIPE_BUF).
 */
static int own_descriptor(struct char_writer *w, int fd, struct error *e)
{
    char path[32];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_errno(e, ERR_IO, errno, "no output descriptor");
    w->fd = -1;
    w->socket = S_ISSOCK(st.st_mode);
    w->chunk = CHAR_WRITER_SIZE;
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        w->fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (w->fd < 0)
            w->chunk = S_ISFIFO(st.st_mode) ? PIPE_BUF : TTY_CHUNK;
    }
    if (w->fd < 0)
        w->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return w->fd < 0 ? error_errno(e, ERR_IO, errno, "cannot duplicate a descriptor") : 0;
}

int char_writer_init(struct char_writer *w, uv_loop_t *loop, int fd, pthread_mutex_t *lock,
                     struct error *e)
{
    w->lock = lock;
    w->head = w->used = 0;
    w->starved = w->broken = false;
    w->in = (struct char_in){0};
    int r = own_descriptor(w, fd, e);
    if (r < 0)
        return r;
    r = char_watch_init(&w->watch, loop, w->fd, pump, w, e);
    if (r < 0) {
        close(w->fd);
        return r;
    }
    uv_async_init(loop, &w->kick,
                  on_kick); /* cannot fail: every loop has an async handle already */
    w->kick.data = w;
    return 0;
}

struct char_out char_writer_out(struct char_writer *w)
{
    return (struct char_out){.write = ring_write, .ctx = w};
}

void char_writer_set_in(struct char_writer *w, struct char_in in)
{
    w->in = in;
}

static void part_closed(struct char_writer *w)
{
    if (--w->closing > 0)
        return;
    close(w->fd);
    w->closed(w->closed_arg);
}

static void on_watch_closed(void *arg)
{
    part_closed(arg);
}

static void on_kick_closed(uv_handle_t *handle)
{
    part_closed(handle->data);
}

void char_writer_close(struct char_writer *w, void (*closed)(void *arg), void *arg)
{
    w->in = (struct char_in){0};
    for (enum drained d; (d = drain(w)) != EMPTY;) {
        struct pollfd p = {.fd = w->fd, .events = POLLOUT};
        if (d == BLOCKED)
            poll(&p, 1, -1);
    }
    w->closed = closed;
    w->closed_arg = arg;
    w->closing = 2;
    char_watch_close(&w->watch, on_watch_closed);
    uv_close((uv_handle_t *)&w->kick, on_kick_closed);
}
