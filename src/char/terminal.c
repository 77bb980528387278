/*
 * terminal.c - keys to the device, Ctrl-A to us; see terminal.h.
 *
 * Only the loop's thread touches the input buffer. The device lock is taken to call the device.
 */
#include "char/terminal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "char/tty.h"
#include "char/writer.h"

#define ESCAPE    0x01 /* Ctrl-A */
#define IN_BUFFER 4096

#define SCREEN_TEXT 16384 /* bytes; 132 x 60 characters and line ends */

struct char_terminal {
    pthread_mutex_t *lock;
    struct char_terminal_hooks hooks;
    struct char_writer writer;
    struct char_in in;
    int fd; /* input; -1: none, or ended */
    bool tty;
    bool escaped;   /* the last byte was Ctrl-A */
    bool in_opened; /* watch is live */
    struct char_watch watch;
    uv_async_t more; /* the device has room again, or there is something to read at once */
    uint8_t buf[IN_BUFFER];
    size_t pos, len; /* buf[pos..len) is for the device */
    unsigned closing;
};

static void key_quit(struct char_terminal *t);
static void key_power(struct char_terminal *t);
static void key_screen(struct char_terminal *t);
static void key_engine(struct char_terminal *t);
static void key_save(struct char_terminal *t);
static void key_help(struct char_terminal *t);
static void key_escape(struct char_terminal *t);

/* What follows Ctrl-A. Other keys are swallowed. */
static const struct {
    uint8_t key;
    const char *name, *help;
    void (*press)(struct char_terminal *t);
} keys[] = {
    {'x', "x", "leave: stop the VM as if by pulling the plug", key_quit},
    {'p', "p", "press the power button: asks the guest to shut down", key_power},
    {'s', "s", "show the guest's text screen", key_screen},
    {'e', "e", "go on with another engine", key_engine},
    {'z', "z", "save the VM's state to the file of --save, and leave", key_save},
    {'h', "h", "this list", key_help},
    {ESCAPE, "Ctrl-A", "send Ctrl-A to the guest", key_escape},
};

static void key_quit(struct char_terminal *t)
{
    if (t->hooks.quit)
        t->hooks.quit(t->hooks.arg);
}

static void key_power(struct char_terminal *t)
{
    if (t->hooks.power)
        t->hooks.power(t->hooks.arg);
}

static void key_screen(struct char_terminal *t)
{
    char text[SCREEN_TEXT] = "";
    if (t->hooks.screen)
        t->hooks.screen(t->hooks.arg, text, sizeof text);
    fputs(t->tty ? "\r\n" : "\n", stderr);
    for (char *line = text, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        fprintf(stderr, "| %.*s%s", (int)(end - line), line, t->tty ? "\r\n" : "\n");
        end += *end == '\n';
    }
}

static void key_engine(struct char_terminal *t)
{
    if (t->hooks.engine)
        t->hooks.engine(t->hooks.arg);
}

static void key_save(struct char_terminal *t)
{
    if (t->hooks.save)
        t->hooks.save(t->hooks.arg);
}

static void key_help(struct char_terminal *t)
{
    const char *eol = t->tty ? "\r\n" : "\n";

    fputs(eol, stderr);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        fprintf(stderr, "Ctrl-A %-6s  %s%s", keys[i].name, keys[i].help, eol);
}

void char_terminal_say(const struct char_terminal *t, const char *line)
{
    fprintf(stderr, t->tty ? "\r\nsosia: %s\r\n" : "sosia: %s\n", line);
}

/* Takes one byte for the device. A full buffer drops it: only a terminal gets here then, where the
 * user sees that nothing is echoed, and must still be able to leave. */
static void take(struct char_terminal *t, uint8_t byte)
{
    if (t->len < IN_BUFFER)
        t->buf[t->len++] = byte;
}

static void key_escape(struct char_terminal *t)
{
    take(t, ESCAPE);
}

static void take_escaped(struct char_terminal *t, uint8_t byte)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (keys[i].key == byte)
            keys[i].press(t);
}

/* Offers the device what it has room for. */
static void push(struct char_terminal *t)
{
    pthread_mutex_lock(t->lock);
    while (t->pos < t->len && t->in.push) {
        size_t n = min_u64(t->in.room(t->in.dev), t->len - t->pos);
        if (n == 0)
            break;
        t->in.push(t->in.dev, t->buf + t->pos, n);
        t->pos += n;
    }
    pthread_mutex_unlock(t->lock);
    memmove(t->buf, t->buf + t->pos, t->len - t->pos);
    t->len -= t->pos;
    t->pos = 0;
}

/* A terminal is always read, so that Ctrl-A works while the guest is not listening; a pipe or file
 * waits until all that was read is delivered. */
static bool wants_input(const struct char_terminal *t)
{
    return t->fd >= 0 && (t->tty || t->len == 0);
}

/* One read(2), which the caller knows not to block. False: end of input. */
static bool read_some(struct char_terminal *t)
{
    uint8_t bytes[IN_BUFFER];
    ssize_t n = read(t->fd, bytes, sizeof bytes);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    for (ssize_t i = 0; i < n; i++) {
        bool escaped = t->escaped;
        t->escaped = !escaped && bytes[i] == ESCAPE;
        if (escaped)
            take_escaped(t, bytes[i]);
        else if (!t->escaped)
            take(t, bytes[i]);
    }
    return n > 0;
}

/* The loop's turn for a descriptor that is ready (or direct), then waits as the new state asks for.
 */
static void turn(struct char_terminal *t, bool readable)
{
    if (readable && wants_input(t) && !read_some(t)) {
        char_watch_set(&t->watch, 0);
        t->fd = -1;
    }
    push(t);
    if (!t->in_opened)
        return;
    char_watch_set(&t->watch, wants_input(t) ? EPOLLIN : 0);
    if (t->watch.direct && wants_input(t))
        uv_async_send(&t->more);
}

static void on_readable(void *arg)
{
    turn(arg, true);
}

static void on_more(uv_async_t *more)
{
    struct char_terminal *t = more->data;
    turn(t, t->in_opened && t->watch.direct);
}

static void on_ready(void *ctx)
{
    struct char_terminal *t = ctx;
    uv_async_send(&t->more);
}

static int open_input(struct char_terminal *t, uv_loop_t *loop, int in, struct error *e)
{
    if (in < 0 || (read(in, NULL, 0) < 0 && errno == EBADF))
        return 0; /* closed: a guest without a keyboard */
    int r = char_watch_init(&t->watch, loop, in, on_readable, t, e);
    if (r < 0)
        return r;
    t->in_opened = true;
    t->fd = in;
    if (isatty(in)) {
        r = char_tty_raw(in, e);
        if (r < 0)
            return r;
        t->tty = true;
    }
    uv_async_send(&t->more); /* the first turn begins to wait */
    return 0;
}

int char_terminal_open_fds(struct char_terminal **out_t, uv_loop_t *loop, int in, int out,
                           pthread_mutex_t *dev_lock, const struct char_terminal_hooks *hooks,
                           struct error *e)
{
    struct char_terminal *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(e, ERR_NOMEM, "out of memory for the terminal");
    t->lock = dev_lock;
    t->hooks = *hooks;
    t->fd = -1;
    int r = char_writer_init(&t->writer, loop, out, dev_lock, e);
    if (r < 0) {
        free(t);
        return r;
    }
    uv_async_init(loop, &t->more, on_more); /* cannot fail: the loop has one already */
    t->more.data = t;
    r = open_input(t, loop, in, e);
    if (r < 0) {
        char_terminal_close(t);
        return r;
    }
    *out_t = t;
    return 0;
}

int char_terminal_open(struct char_terminal **t, uv_loop_t *loop, pthread_mutex_t *dev_lock,
                       const struct char_terminal_hooks *hooks, struct error *e)
{
    return char_terminal_open_fds(t, loop, STDIN_FILENO, STDOUT_FILENO, dev_lock, hooks, e);
}

struct char_out char_terminal_out(struct char_terminal *t)
{
    return char_writer_out(&t->writer);
}

struct char_ready char_terminal_ready(struct char_terminal *t)
{
    return (struct char_ready){.fn = on_ready, .ctx = t};
}

void char_terminal_set_in(struct char_terminal *t, struct char_in in)
{
    t->in = in;
    char_writer_set_in(&t->writer, in);
}

static void part_closed(void *arg)
{
    struct char_terminal *t = arg;
    if (--t->closing == 0)
        free(t);
}

static void on_more_closed(uv_handle_t *handle)
{
    part_closed(handle->data);
}

void char_terminal_close(struct char_terminal *t)
{
    if (!t)
        return;
    t->closing = t->in_opened ? 3 : 2;
    char_writer_close(&t->writer, part_closed, t);
    if (t->tty)
        char_tty_restore();
    if (t->in_opened)
        char_watch_close(&t->watch, part_closed);
    uv_close((uv_handle_t *)&t->more, on_more_closed);
}
