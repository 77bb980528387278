/*
 * console.c - `sosia console`: the guest's console in this terminal.
 *
 * What the guest writes is read from its log; what is typed goes through the control socket, a
 * piece at a time: the next when the guest has taken the last, so that a guest that does not listen
 * cannot stop us from leaving.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "catalog/launch.h"
#include "catalog/remote.h"
#include "catalog/watch.h"
#include "char/tty.h"
#include "cli/life.h"
#include "cli/tail.h"

#define ESCAPE  0x01 /* Ctrl-A */
#define HISTORY 25   /* lines that are shown first */
#define INPUT   1024
#define CALL_MS 10000

struct session {
    const struct vm *vm;
    struct remote remote;
    struct vm_watch watch;
    struct tail tail;
    bool tty, input;           /* input: there is more to read */
    bool escaped, leave, busy; /* busy: the guest has not taken what was sent */
    char typed[INPUT];
    size_t len;
    struct error *e;
    int rc;
};

static void say(const struct session *s, const char *text)
{
    fprintf(stderr, s->tty ? "\r\n%s\r\n" : "%s\n", text);
}

/* A command on a connection of its own: this one may be waiting for the guest. */
static json_t *command(struct session *s, const char *name, json_t *args)
{
    struct remote r;
    struct error e = {0};
    json_t *ret = NULL;
    if (remote_open(&r, s->vm, &e)) {
        json_decref(args);
        say(s, e.msg);
        return NULL;
    }
    if (remote_call(&r, name, args, CALL_MS, &ret, &e))
        say(s, e.msg);
    remote_close(&r);
    return ret;
}

static void show_screen(struct session *s)
{
    json_t *ret = command(s, "x-sosia-screen", NULL);
    const char *p = json_string_value(json_object_get(ret, "text"));
    for (; p && *p; p += strcspn(p, "\n"), p += *p == '\n')
        fprintf(stderr, "| %.*s%s", (int)strcspn(p, "\n"), p, s->tty ? "\r\n" : "\n");
    json_decref(ret);
}

static void next_engine(struct session *s)
{
    json_t *info = command(s, "x-sosia-info", NULL);
    const char *now = json_string_value(json_object_get(info, "engine"));
    const char *to = now && strcmp(now, "jit") == 0 ? "interp" : "jit";
    json_decref(info);
    json_t *ret = command(s, "x-sosia-engine", json_pack("{s:s}", "engine", to));
    if (ret) {
        char line[40];
        snprintf(line, sizeof line, "sosia: engine %s", to);
        say(s, line);
    }
    json_decref(ret);
}

static void key(struct session *s, char c)
{
    switch (c) {
    case 'x':
    case 'd':
        s->leave = true;
        break;
    case 'p':
        json_decref(command(s, "system_powerdown", NULL));
        break;
    case 's':
        show_screen(s);
        break;
    case 'e':
        next_engine(s);
        break;
    case 'h':
        say(s, "Ctrl-A x       leave this console; the VM goes on\r\n"
               "Ctrl-A p       press the power button\r\n"
               "Ctrl-A s       show the guest's text screen\r\n"
               "Ctrl-A e       go on with another engine\r\n"
               "Ctrl-A Ctrl-A  send Ctrl-A to the guest");
        break;
    case ESCAPE:
        if (s->len < sizeof s->typed)
            s->typed[s->len++] = c;
        break;
    }
}

/* Keys beyond what there is room for are dropped: the user sees that nothing is echoed. */
static void take_input(struct session *s)
{
    char buf[256];
    /* From a pipe only what can be kept. */
    size_t room = s->tty ? sizeof buf : min_u64(sizeof buf, sizeof s->typed - s->len);
    ssize_t n = room ? read(STDIN_FILENO, buf, room) : -1;
    if (n == 0)
        s->input = false;
    for (ssize_t i = 0; i < n; i++) {
        bool escaped = s->escaped;
        s->escaped = !escaped && buf[i] == ESCAPE;
        if (escaped)
            key(s, buf[i]);
        else if (!s->escaped && s->len < sizeof s->typed)
            s->typed[s->len++] = buf[i];
    }
}

/* Bytes as a JSON text: those that are no ASCII cannot be sent, as they are no UTF-8 alone. */
static void send_input(struct session *s)
{
    if (s->busy || !s->len || s->rc)
        return;
    json_t *data = json_stringn(s->typed, s->len);
    for (size_t i = 0; !data && i < s->len; i++)
        s->typed[i] = (unsigned char)s->typed[i] < 128 ? s->typed[i] : '?';
    if (!data)
        data = json_stringn(s->typed, s->len);
    s->len = 0;
    s->rc =
        remote_send(&s->remote, "x-sosia-console-input", json_pack("{s:o}", "data", data), s->e);
    s->busy = !s->rc;
}

static void take_answer(struct session *s)
{
    json_t *m = NULL;
    int rc;
    struct error e = {0};
    while ((rc = remote_read(&s->remote, 0, &m, &e)) == 0) {
        json_t *error = json_object_get(m, "error");
        if (error)
            say(s, json_string_value(json_object_get(error, "desc")));
        if (error || json_object_get(m, "return"))
            s->busy = false;
        json_decref(m);
    }
    if (rc == ERR_IO) /* it ended; the rest of its output is still to be shown */
        s->remote.fd = -1;
}

static void show_output(struct session *s)
{
    char buf[16384];
    size_t n;
    while ((n = tail_read(&s->tail, buf, sizeof buf)) > 0)
        for (size_t at = 0; at < n;) {
            ssize_t w = write(STDOUT_FILENO, buf + at, n - at);
            if (w < 0 && errno != EINTR && errno != EAGAIN) {
                s->leave = true;
                return;
            }
            at += w > 0 ? (size_t)w : 0;
        }
}

static void loop(struct session *s)
{
    struct vm_status status;
    while (!s->leave && !s->rc) {
        vm_status_read(s->vm, &status); /* before its last output is read */
        show_output(s);
        if (!vm_is_alive(&status))
            break;
        bool listen = s->input && (s->tty || s->len < sizeof s->typed);
        struct pollfd p[] = {{.fd = s->watch.files, .events = POLLIN},
                             {.fd = s->remote.fd, .events = POLLIN},
                             {.fd = listen ? STDIN_FILENO : -1, .events = POLLIN},
                             {.fd = s->watch.pidfd, .events = POLLIN}};
        poll(p, ARRAY_LEN(p), 1000);
        if (p[0].revents)
            vm_watch_wait(&s->watch, -1, 0);
        if (p[1].revents && s->remote.fd >= 0)
            take_answer(s);
        if (p[2].revents)
            take_input(s);
        if (s->remote.fd >= 0)
            send_input(s);
    }
}

static int run(struct session *s)
{
    struct vm_status status;
    int rc = remote_open(&s->remote, s->vm, s->e);
    if (rc)
        return rc;
    rc = vm_watch_open(&s->watch, s->vm, s->e);
    if (!rc) {
        signal(SIGPIPE, SIG_IGN);
        s->tty = isatty(STDIN_FILENO);
        if (s->tty) {
            fprintf(stderr, "The console of %s. Ctrl-A x leaves it, Ctrl-A h lists other keys.\n",
                    s->vm->name);
            rc = char_tty_raw(STDIN_FILENO, s->e);
        }
        tail_open(&s->tail, s->vm, VM_LOG_CONSOLE);
        tail_last(&s->tail, HISTORY);
        if (!rc)
            loop(s);
        tail_close(&s->tail);
        char_tty_restore();
        vm_watch_close(&s->watch);
    }
    int fd = s->remote.fd;
    remote_close(&s->remote);
    vm_status_read(s->vm, &status);
    if (!rc && !s->rc && s->tty && fd >= 0)
        fprintf(stderr, vm_is_alive(&status) ? "\n%s goes on\n" : "\n%s has ended\n", s->vm->name);
    return rc ? rc : s->rc;
}

int console_attach(const struct vm *vm, struct error *e)
{
    struct session s = {.vm = vm, .remote = {.fd = -1}, .input = true, .e = e};
    return run(&s);
}

int cli_console(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    int rc = vms_open(&c, a->pos[0], VM_FIND_READ, &vm, e);
    if (rc)
        return rc;
    rc = console_attach(&vm, e);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}
