/*
 * uring.h - reads and writes of files through one io_uring, with a thread that waits for them.
 */
#ifndef SOSIA_BLOCK_URING_H
#define SOSIA_BLOCK_URING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct uring;

struct uring_event {
    void *user;
    int result; /* bytes or -errno */
};

/* Called on the ring's thread with what has been completed, at least one event. */
typedef void uring_done(void *ctx, const struct uring_event *ev, unsigned n);

/* -errno: this kernel, or its administrator, does not allow it. */
int uring_open(struct uring **out, uring_done *done, void *ctx);

/* The following two want the same lock of the caller's held. */

/* Takes a transfer without starting it; `iov` and what it points to stay until it is done. False:
 * no room. At most URING_MAX_IOV segments. */
#define URING_MAX_IOV 1024
bool uring_prepare(struct uring *u, int fd, bool write, const struct iovec *iov, int niov,
                   uint64_t offset, uint64_t len, void *user);
/* Room for so many more. */
bool uring_room(struct uring *u, unsigned n);
/* Starts all that was taken. False: the kernel has no memory for it now; to be called again. */
bool uring_submit(struct uring *u);

/* Nothing is in flight any more. */
void uring_close(struct uring *u);

#endif
