/* watch.c - an epoll set of one descriptor, polled by libuv; see watch.h. */
#include "char/watch.h"

#include <errno.h>
#include <unistd.h>

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct char_watch *w = poll->data;
    w->ready(w->arg);
}

int char_watch_init(struct char_watch *w, uv_loop_t *loop, int fd, void (*ready)(void *arg),
                    void *arg, struct error *e)
{
    struct epoll_event ev = {.events = EPOLLIN};

    *w = (struct char_watch){.fd = fd, .ready = ready, .arg = arg};
    w->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (w->epfd < 0)
        return error_errno(e, ERR_IO, errno, "cannot create an epoll set");
    if (epoll_ctl(w->epfd, EPOLL_CTL_ADD, fd, &ev) == 0)
        epoll_ctl(w->epfd, EPOLL_CTL_DEL, fd, NULL);
    else
        w->direct = true;
    int r = uv_poll_init(loop, &w->poll, w->epfd);
    if (r < 0) {
        close(w->epfd);
        return error_set(e, ERR_IO, "cannot watch a descriptor: %s", uv_strerror(r));
    }
    w->poll.data = w;
    uv_poll_start(&w->poll, UV_READABLE, on_poll);
    return 0;
}

void char_watch_set(struct char_watch *w, uint32_t events)
{
    struct epoll_event ev = {.events = events};

    if (w->direct || events == w->events)
        return;
    int op = !events ? EPOLL_CTL_DEL : !w->events ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(w->epfd, op, w->fd, &ev) == 0)
        w->events = events;
}

static void on_closed(uv_handle_t *handle)
{
    struct char_watch *w = handle->data;
    close(w->epfd);
    w->closed(w->arg);
}

void char_watch_close(struct char_watch *w, void (*closed)(void *arg))
{
    w->closed = closed;
    uv_close((uv_handle_t *)&w->poll, on_closed);
}
