/*
 * watch.h - waiting for an inherited file descriptor on the event loop without changing it.
 *
 * libuv makes a descriptor that it polls non-blocking, and that flag belongs to the open file
 * description: the shell that started us shares its terminal's. So the descriptor goes into an
 * epoll set of our own, and libuv polls that set. What epoll refuses (regular files, /dev/null) is
 * always ready and is `direct`.
 */
#ifndef SOSIA_CHAR_WATCH_H
#define SOSIA_CHAR_WATCH_H

#include <sys/epoll.h>
#include <uv.h>

#include "base/error.h"
#include "base/types.h"

struct char_watch {
    uv_poll_t poll;
    int fd, epfd;
    uint32_t
        events; /* waited for now; 0: fd is not in the set, so a hang-up cannot spin the loop */
    bool direct;
    void (*ready)(void *arg); /* on the loop's thread */
    void (*closed)(void *arg);
    void *arg;
};

/* Does not take ownership of fd. Waits for nothing yet. ERR_IO. */
int char_watch_init(struct char_watch *w, uv_loop_t *loop, int fd, void (*ready)(void *arg),
                    void *arg, struct error *e);
/* Waits for EPOLLIN, EPOLLOUT or nothing (0) from now on. No effect on a direct descriptor. */
void char_watch_set(struct char_watch *w, uint32_t events);
/* `closed` is called by the loop when the struct may be freed. */
void char_watch_close(struct char_watch *w, void (*closed)(void *arg));

#endif
