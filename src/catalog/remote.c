/* remote.c - see remote.h. */
#define _GNU_SOURCE
#include "catalog/remote.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define GREETING_MS 10000
#define MAX_MESSAGE (8u * 1024 * 1024)
#define MAX_GIVE    64 /* SCM_MAX_FD is 253 */

/* A socket's name has 107 bytes at most; the folder's path may be longer, its descriptor's is not.
 */
static struct sockaddr_un address(int dir)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/" VM_SOCKET, dir);
    return a;
}

int remote_listen(int dir, struct error *e)
{
    struct sockaddr_un a = address(dir);
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(e, ERR_HOST, errno, "cannot make the control socket");
    unlinkat(dir, VM_SOCKET, 0); /* of a VMM that died: we hold the lock of the living one */
    mode_t old = umask(0177);
    int rc = bind(fd, (struct sockaddr *)&a, sizeof a);
    int err = errno;
    umask(old);
    if (rc < 0)
        return error_file(e, err, "cannot make the control socket in the VM's folder");
    if (listen(fd, 16) < 0)
        return error_errno(e, ERR_HOST, errno, "cannot make the control socket");
    rc = fd;
    fd = -1;
    return rc;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static int ended(const struct remote *r, struct error *e)
{
    return error_set(e, ERR_IO, "%s ended while it was spoken to", r->name);
}

/* Appends what comes. 0, ERR_TIMEOUT, ERR_IO. */
static int receive(struct remote *r, int timeout_ms, struct error *e)
{
    struct pollfd p = {.fd = r->fd, .events = POLLIN};
    if (r->len == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 4096;
        char *grown = cap > MAX_MESSAGE ? NULL : realloc(r->buf, cap);
        if (!grown)
            return error_set(e, ERR_LIMIT, "%s sends too much", r->name);
        r->buf = grown;
        r->cap = cap;
    }
    int n = poll(&p, 1, timeout_ms);
    if (n == 0 || (n < 0 && errno == EINTR))
        return error_set(e, ERR_TIMEOUT, "%s does not answer", r->name);
    ssize_t got = read(r->fd, r->buf + r->len, r->cap - r->len);
    if (got <= 0)
        return ended(r, e);
    r->len += (size_t)got;
    return 0;
}

int remote_read(struct remote *r, int timeout_ms, json_t **message, struct error *e)
{
    int64_t until = now_ms() + timeout_ms;
    char *nl;
    while (!(nl = r->len ? memchr(r->buf, '\n', r->len) : NULL)) {
        int64_t left = until - now_ms();
        int rc = receive(r, left > 0 ? (int)left : 0, e);
        if (rc)
            return rc;
    }
    size_t n = (size_t)(nl - r->buf) + 1;
    *message = json_loadb(r->buf, n, 0, NULL);
    memmove(r->buf, r->buf + n, r->len - n);
    r->len -= n;
    return *message ? 0 : error_set(e, ERR_FORMAT, "%s sends what is no JSON", r->name);
}

void remote_give(struct remote *r, const int *fd, size_t n)
{
    r->give = fd;
    r->ngive = n;
}

/* With the descriptors, which go with the first byte. */
static ssize_t send_some(struct remote *r, const char *p, size_t len)
{
    union {
        struct cmsghdr head; /* for its alignment */
        char room[CMSG_SPACE(MAX_GIVE * sizeof(int))];
    } control = {.room = {0}};
    struct iovec iov = {(void *)(uintptr_t)p, len}; /* it has no const */
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t bytes = r->ngive * sizeof(int);
    if (bytes) {
        m.msg_control = control.room;
        m.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(c), r->give, bytes);
    }
    ssize_t n = sendmsg(r->fd, &m, MSG_NOSIGNAL);
    if (n > 0)
        r->ngive = 0;
    return n;
}

int remote_send(struct remote *r, const char *command, json_t *args, struct error *e)
{
    json_t *o = json_pack("{s:s, s:o*}", "execute", command, "arguments", args);
    CLEANUP_FREE char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    CLEANUP_FREE char *line = NULL;
    if (!text || asprintf(&line, "%s\n", text) < 0) {
        line = NULL;
        return error_set(e, ERR_NOMEM, "out of memory");
    }
    size_t len = strlen(line);
    for (size_t at = 0; at < len;) {
        ssize_t n = send_some(r, line + at, len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ended(r, e);
        at += (size_t)n;
    }
    return 0;
}

int remote_call(struct remote *r, const char *command, json_t *args, int timeout_ms, json_t **ret,
                struct error *e)
{
    int64_t until = now_ms() + timeout_ms;
    int rc = remote_send(r, command, args, e);
    while (!rc) {
        json_t *m = NULL, *value;
        int64_t left = until - now_ms();
        rc = remote_read(r, left > 0 ? (int)left : 0, &m, e);
        if (rc)
            break;
        if ((value = json_object_get(m, "return"))) {
            if (ret)
                *ret = json_incref(value);
            json_decref(m);
            return 0;
        }
        if ((value = json_object_get(m, "error"))) {
            const char *desc = json_string_value(json_object_get(value, "desc"));
            rc = error_set(e, ERR_STATE, "%s: %s", r->name, desc ? desc : "refused");
        }
        json_decref(m); /* else an event */
    }
    return rc;
}

static int greet(struct remote *r, struct error *e)
{
    json_t *m = NULL;
    int rc = remote_read(r, GREETING_MS, &m, e);
    json_t *refused = json_object_get(m, "error");
    if (refused)
        rc = error_set(e, ERR_BUSY, "%s: %s", r->name,
                       json_string_value(json_object_get(refused, "desc")));
    json_decref(m);
    return rc ? rc : remote_call(r, "qmp_capabilities", NULL, GREETING_MS, NULL, e);
}

int remote_open(struct remote *r, const struct vm *vm, struct error *e)
{
    struct sockaddr_un a = address(vm->dir);
    *r = (struct remote){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    snprintf(r->name, sizeof r->name, "%.*s", VM_NAME_MAX, vm->name);
    if (r->fd < 0)
        return error_errno(e, ERR_HOST, errno, "cannot make a socket");
    int rc = 0;
    if (connect(r->fd, (struct sockaddr *)&a, sizeof a) < 0)
        rc = errno == ENOENT || errno == ECONNREFUSED
                 ? error_set(e, ERR_STATE, "%s does not run; `sosia start %s`", vm->name, vm->name)
                 : error_file(e, errno, "%s: cannot reach it", vm->name);
    if (!rc)
        rc = greet(r, e);
    if (rc)
        remote_close(r);
    return rc;
}

void remote_close(struct remote *r)
{
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    free(r->buf);
    r->buf = NULL;
    r->len = r->cap = 0;
}
