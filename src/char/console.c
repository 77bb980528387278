/* console.c - see console.h. */
#define _GNU_SOURCE
#include "char/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/log.h"

#define RING_SIZE (64u * 1024)

struct char_console {
    pthread_mutex_t *lock; /* the device lock */
    struct char_console_config cfg;
    struct char_in in;
    uv_async_t kick; /* there is output */
    uv_async_t more; /* the device has room for input */
    uint64_t size;   /* of the log */
    bool lossy;      /* the last write failed */
    bool starved;    /* a write of the device was cut short */
    size_t head, used;
    uint8_t ring[RING_SIZE];
    uint8_t input[CHAR_CONSOLE_INPUT];
    size_t pos, len; /* input[pos..len) is for the device */
    unsigned closing;
};

/* ---- output ---- */

static size_t ring_write(void *ctx, const uint8_t *buf, size_t len)
{
    struct char_console *c = ctx;
    size_t n = min_u64(len, RING_SIZE - c->used);
    size_t tail = (c->head + c->used) % RING_SIZE;
    size_t first = min_u64(n, RING_SIZE - tail);
    memcpy(c->ring + tail, buf, first);
    memcpy(c->ring, buf + first, n - first);
    if (c->used == 0 && n > 0)
        uv_async_send(&c->kick);
    c->used += n;
    c->starved |= n < len;
    return n;
}

/* The log becomes the old one: by copying, since nobody here may make or rename files. */
static void rotate(struct char_console *c)
{
    off_t from = 0;
    if (c->cfg.old >= 0 && ftruncate(c->cfg.old, 0) == 0 && lseek(c->cfg.old, 0, SEEK_SET) == 0)
        while (from < (off_t)c->size &&
               sendfile(c->cfg.old, c->cfg.log, &from, c->size - (uint64_t)from) > 0)
            continue;
    if (ftruncate(c->cfg.log, 0) < 0)
        log_warn("the console's log cannot be emptied: %s", strerror(errno));
    c->size = 0;
}

static void write_log(struct char_console *c, const uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t done = pwrite(c->cfg.log, p, n, (off_t)c->size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            if (!c->lossy)
                log_warn("output of the console is lost: %s", strerror(done < 0 ? errno : ENOSPC));
            c->lossy = true;
            return;
        }
        c->lossy = false;
        c->size += (uint64_t)done;
        p += done;
        n -= (size_t)done;
    }
    if (c->size >= c->cfg.max)
        rotate(c);
}

/* One stretch of the ring; false: it is empty. */
static bool drain_some(struct char_console *c)
{
    pthread_mutex_lock(c->lock);
    size_t n = min_u64(c->used, RING_SIZE - c->head);
    pthread_mutex_unlock(c->lock);
    if (n == 0)
        return false;
    write_log(c, c->ring + c->head, n);
    pthread_mutex_lock(c->lock);
    c->head = (c->head + n) % RING_SIZE;
    c->used -= n;
    if (c->starved && c->used <= RING_SIZE / 2) {
        c->starved = false;
        if (c->in.drained)
            c->in.drained(c->in.dev);
    }
    pthread_mutex_unlock(c->lock);
    return true;
}

/* Two stretches are a whole ring; then it is somebody else's turn. */
static void on_kick(uv_async_t *kick)
{
    struct char_console *c = kick->data;
    if (drain_some(c) && drain_some(c))
        uv_async_send(&c->kick);
}

/* ---- input ---- */

static void push(struct char_console *c)
{
    pthread_mutex_lock(c->lock);
    while (c->pos < c->len && c->in.push) {
        size_t n = min_u64(c->in.room(c->in.dev), c->len - c->pos);
        if (n == 0)
            break;
        c->in.push(c->in.dev, c->input + c->pos, n);
        c->pos += n;
    }
    pthread_mutex_unlock(c->lock);
    if (c->pos < c->len || !c->len)
        return;
    c->pos = c->len = 0;
    c->cfg.delivered(c->cfg.arg);
}

static void on_more(uv_async_t *more)
{
    push(more->data);
}

static void on_ready(void *ctx)
{
    struct char_console *c = ctx;
    uv_async_send(&c->more);
}

bool char_console_input(struct char_console *c, const uint8_t *bytes, size_t n)
{
    if (c->len || !n || n > sizeof c->input)
        return false;
    memcpy(c->input, bytes, n);
    c->pos = 0;
    c->len = n;
    uv_async_send(&c->more); /* not at once: `delivered` comes after the return */
    return true;
}

/* ---- life ---- */

int char_console_open(struct char_console **out, uv_loop_t *loop, pthread_mutex_t *dev_lock,
                      const struct char_console_config *cfg, struct error *e)
{
    struct char_console *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(e, ERR_NOMEM, "out of memory for the console");
    c->lock = dev_lock;
    c->cfg = *cfg;
    if (!c->cfg.max)
        c->cfg.max = CHAR_CONSOLE_LOG;
    off_t end = lseek(cfg->log, 0, SEEK_END);
    if (end < 0) {
        free(c);
        return error_errno(e, ERR_IO, errno, "the console's log");
    }
    c->size = (uint64_t)end;
    uv_async_init(loop, &c->kick, on_kick); /* cannot fail: the loop has one already */
    uv_async_init(loop, &c->more, on_more);
    c->kick.data = c->more.data = c;
    *out = c;
    return 0;
}

struct char_out char_console_out(struct char_console *c)
{
    return (struct char_out){.write = ring_write, .ctx = c};
}

struct char_ready char_console_ready(struct char_console *c)
{
    return (struct char_ready){.fn = on_ready, .ctx = c};
}

void char_console_set_in(struct char_console *c, struct char_in in)
{
    c->in = in;
}

static void on_closed(uv_handle_t *handle)
{
    struct char_console *c = handle->data;
    if (--c->closing == 0)
        free(c);
}

void char_console_close(struct char_console *c)
{
    if (!c)
        return;
    c->in = (struct char_in){0};
    while (drain_some(c))
        continue;
    c->closing = 2;
    uv_close((uv_handle_t *)&c->kick, on_closed);
    uv_close((uv_handle_t *)&c->more, on_closed);
}
