/*
 * uring.c - reads and writes of files through one io_uring, with a thread that waits for them.
 *
 * The submission queue belongs to the caller's lock, the completion queue to the thread. What the
 * kernel has and we have not seen the end of is never more than the completion queue holds, so it
 * cannot overflow.
 */
#define _GNU_SOURCE
#include "block/uring.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/types.h"

#define ENTRIES      256u
#define BATCH        64u
#define THREAD_STACK (256 * KIB)

/* From this size on copying is left to the kernel's threads: the caller is a vCPU's thread. */
#define ASYNC_FROM (256 * KIB)

struct uring {
    struct io_uring ring;
    uring_done *done;
    void *ctx;
    atomic_uint inflight; /* taken, and their end not seen */
    pthread_t thread;
};

/* Takes what is in the completion queue. True: the order to end is among it. */
static bool reap(struct uring *u, struct uring_event *ev, unsigned *n)
{
    struct io_uring_cqe *cqe[BATCH];
    bool end = false;
    unsigned got = io_uring_peek_batch_cqe(&u->ring, cqe, BATCH);
    *n = 0;
    for (unsigned i = 0; i < got; i++) {
        void *user = io_uring_cqe_get_data(cqe[i]);
        if (user)
            ev[(*n)++] = (struct uring_event){user, cqe[i]->res};
        else
            end = true;
    }
    io_uring_cq_advance(&u->ring, got);
    return end;
}

static void *uring_thread(void *arg)
{
    struct uring *u = arg;
    for (bool end = false; !end;) {
        struct io_uring_cqe *cqe;
        struct uring_event ev[BATCH];
        unsigned n = 0;
        int rc = io_uring_wait_cqe(&u->ring, &cqe);
        if (rc == -EINTR || rc == -EAGAIN)
            continue;
        end = reap(u, ev, &n);
        if (n > 0) {
            atomic_fetch_sub(&u->inflight, n);
            u->done(u->ctx, ev, n);
        }
    }
    return NULL;
}

/* What a ring is used for, and no more: it is a way around the list of system calls of those who
 * have one (vmm/sandbox.h), for whatever is asked for through it happens. Linux 5.10. */
static int restrict_ring(struct io_uring *ring)
{
    static const uint8_t ops[] = {IORING_OP_NOP, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV,
                                  IORING_OP_WRITEV};
    struct io_uring_restriction r[ARRAY_LEN(ops) + 1] = {
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_ASYNC}};
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
        r[i + 1] =
            (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = ops[i]};
    /* liburing 2.3 declares functions for these, but has none. */
    if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, r,
                ARRAY_LEN(r)) < 0 ||
        syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
        return -errno;
    return 0;
}

int uring_open(struct uring **out, uring_done *done, void *ctx)
{
    const struct thread_options thread = {.name = "disk ring", .stack = THREAD_STACK};
    struct uring *u = calloc(1, sizeof *u);
    if (!u)
        return -ENOMEM;
    u->done = done;
    u->ctx = ctx;
    int rc = io_uring_queue_init(ENTRIES, &u->ring, IORING_SETUP_R_DISABLED);
    if (rc) {
        free(u);
        return rc;
    }
    /* Linux 5.7: buffered reads that miss the page cache need no thread. */
    if (!(u->ring.features & IORING_FEAT_FAST_POLL) || !(u->ring.features & IORING_FEAT_NODROP))
        rc = -ENOSYS;
    if (!rc)
        rc = restrict_ring(&u->ring);
    if (!rc)
        rc = -thread_start(&u->thread, &thread, uring_thread, u);
    if (rc) {
        io_uring_queue_exit(&u->ring);
        free(u);
        return rc;
    }
    *out = u;
    return 0;
}

bool uring_room(struct uring *u, unsigned n)
{
    if (atomic_load(&u->inflight) + n > 2 * ENTRIES - 1) /* one for the order to end */
        return false;
    return io_uring_sq_space_left(&u->ring) >= n ||
           (uring_submit(u) && io_uring_sq_space_left(&u->ring) >= n);
}

bool uring_prepare(struct uring *u, int fd, bool write, const struct iovec *iov, int niov,
                   uint64_t offset, uint64_t len, void *user)
{
    struct io_uring_sqe *sqe = uring_room(u, 1) ? io_uring_get_sqe(&u->ring) : NULL;
    if (!sqe)
        return false;
    if (niov == 1 && write)
        io_uring_prep_write(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, offset);
    else if (niov == 1)
        io_uring_prep_read(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, offset);
    else if (write)
        io_uring_prep_writev(sqe, fd, iov, (unsigned)niov, offset);
    else
        io_uring_prep_readv(sqe, fd, iov, (unsigned)niov, offset);
    if (len >= ASYNC_FROM)
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    io_uring_sqe_set_data(sqe, user);
    atomic_fetch_add(&u->inflight, 1);
    return true;
}

bool uring_submit(struct uring *u)
{
    while (io_uring_sq_ready(&u->ring) > 0) {
        int rc = io_uring_submit(&u->ring);
        if (rc < 0 && rc != -EINTR)
            return false;
    }
    return true;
}

void uring_close(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    while (!sqe) {
        uring_submit(u);
        sqe = io_uring_get_sqe(&u->ring);
    }
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data(sqe, NULL);
    while (!uring_submit(u))
        sched_yield();
    pthread_join(u->thread, NULL);
    io_uring_queue_exit(&u->ring);
    free(u);
}
