/*
 * nbd.c - a remote disk by the NBD protocol, through libnbd.
 *
 * A thread of the node's own speaks to the server; nobody else uses the handle once it is
 * connected. Others put operations into a queue and wake it by an eventfd, so submit() never
 * blocks.
 *
 * Invariants:
 *  1. An operation belongs to the thread from the moment it is taken off the queue; it is finished
 *     exactly once, when none of its commands is in flight. done() is called with no lock held and
 *     outside of libnbd.
 *  2. A connection that was lost stays lost: everything fails with -EIO from then on, and it is
 *     logged once. A flush that failed is never followed by one that succeeds.
 *
 * Lock: `lock` owns the queues, `closing` and the `finished` of operations somebody waits for.
 */
#define _GNU_SOURCE
#include "block/io/nbd.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "block/block.h"

#define MAX_DATA     (4 * MIB)   /* bytes of one command; servers take 32 MiB */
#define MAX_EMPTY    (128 * MIB) /* of one without data */
#define MAX_BLOCK    512u        /* what guests and formats keep to */
#define THREAD_STACK (512 * KIB) /* TLS takes some of it */

enum kind { OP_READ, OP_WRITE, OP_FLUSH, OP_ZERO, OP_TRIM, OP_MAP };

struct op {
    struct nbd *nbd;
    struct op *next;
    enum kind kind;
    const struct iovec *iov;
    int niov;
    uint64_t offset, len;
    uint32_t flags;          /* LIBNBD_CMD_FLAG_* */
    struct node_extent *map; /* MAP */
    struct blk_req *req;     /* somebody's asynchronous one; NULL: one that is waited for */
    unsigned commands;       /* in flight, and one while they are being sent */
    int result;
    bool finished;
};

struct nbd {
    struct node node;
    struct nbd_handle *h;
    char *uri;
    int wake;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t finished;
    struct op *first, *last;     /* to be done */
    struct blk_req *head, *tail; /* likewise; linked by `next` */
    bool closing;
    int flush_error;  /* under `lock` */
    struct op *ready; /* the thread's: finished, not yet told */
    bool lost, can_flush, can_fua, can_trim, can_zero, can_map;
};

static struct nbd *nbd_of(struct node *n)
{
    return CONTAINER_OF(n, struct nbd, node);
}

/* ---- the thread ---- */

static void lose(struct nbd *b, const char *why)
{
    if (!b->lost)
        log_error("%s: the connection is lost: %s; every access to this disk will fail", b->uri,
                  why ? why : "it was closed");
    b->lost = true;
}

static void release(struct op *op)
{
    if (--op->commands > 0)
        return;
    op->next = op->nbd->ready;
    op->nbd->ready = op;
}

static int on_done(void *arg, int *error)
{
    struct op *op = arg;
    if (*error && !op->result)
        op->result = *error == EPERM || *error == ENOSPC || *error == EINVAL ? -*error : -EIO;
    release(op);
    return 1; /* the command is forgotten */
}

/* Pairs of length and flags (NBD protocol, base:allocation); only the first counts. */
static int on_extent(void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t n,
                     int *error)
{
    struct op *op = arg;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || n < 2 || entries[0] == 0)
        return 0;
    op->map->len = min_u64(entries[0], op->len);
    op->map->kind = entries[1] & LIBNBD_STATE_ZERO ? NODE_ZERO : NODE_DATA;
    return 0;
}

static int64_t send_command(struct op *op, void *buf, uint64_t offset, uint64_t len)
{
    struct nbd_handle *h = op->nbd->h;
    nbd_completion_callback done = {.callback = on_done, .user_data = op};
    nbd_extent_callback extent = {.callback = on_extent, .user_data = op};
    switch (op->kind) {
    case OP_READ:
        return nbd_aio_pread(h, buf, len, offset, done, 0);
    case OP_WRITE:
        return nbd_aio_pwrite(h, buf, len, offset, done, op->flags);
    case OP_FLUSH:
        return nbd_aio_flush(h, done, 0);
    case OP_ZERO:
        return nbd_aio_zero(h, len, offset, done, op->flags);
    case OP_TRIM:
        return nbd_aio_trim(h, len, offset, done, op->flags);
    default:
        return nbd_aio_block_status(h, len, offset, extent, done, LIBNBD_CMD_FLAG_REQ_ONE);
    }
}

/* One command; its end is counted whatever happens to it. */
static bool send_one(struct op *op, void *buf, uint64_t offset, uint64_t len)
{
    op->commands++;
    if (!op->nbd->lost && send_command(op, buf, offset, len) >= 0)
        return true;
    /* libnbd forgets the callback of a command that it refuses, and does not call it. */
    if (!op->result)
        op->result = -EIO;
    op->commands--;
    return false;
}

static void start(struct op *op)
{
    bool ok = true;
    op->commands = 1;
    if (op->kind == OP_READ || op->kind == OP_WRITE) {
        uint64_t at = op->offset;
        for (int i = 0; i < op->niov && ok; i++)
            for (size_t in = 0; in < op->iov[i].iov_len && ok;) {
                uint64_t part = min_u64(op->iov[i].iov_len - in, MAX_DATA);
                ok = send_one(op, (uint8_t *)op->iov[i].iov_base + in, at, part);
                in += part;
                at += part;
            }
    } else if (op->kind == OP_FLUSH || op->kind == OP_MAP) {
        send_one(op, NULL, op->offset, op->len);
    } else {
        for (uint64_t in = 0, part; in < op->len && ok; in += part) {
            part = min_u64(op->len - in, MAX_EMPTY);
            ok = send_one(op, NULL, op->offset + in, part);
        }
    }
    release(op);
}

static void start_request(struct nbd *b, struct blk_req *req)
{
    struct op *op = malloc(sizeof *op);
    if (!op) {
        req->done(req, -EAGAIN);
        return;
    }
    *op = (struct op){.nbd = b,
                      .kind = req->op == BLK_READ ? OP_READ : OP_WRITE,
                      .iov = req->iov,
                      .niov = req->niov,
                      .offset = req->offset,
                      .len = req->len,
                      .req = req};
    start(op);
}

/* Takes what is in the queues. Returns false when the node is being closed. */
static bool take_work(struct nbd *b)
{
    pthread_mutex_lock(&b->lock);
    struct op *op = b->first;
    struct blk_req *req = b->head;
    bool closing = b->closing;
    b->first = b->last = NULL;
    b->head = b->tail = NULL;
    pthread_mutex_unlock(&b->lock);
    for (struct op *next; op; op = next) {
        next = op->next;
        start(op);
    }
    for (struct blk_req *next; req; req = next) {
        next = req->next;
        start_request(b, req);
    }
    return !closing;
}

static void tell_ready(struct nbd *b)
{
    while (b->ready) {
        struct op *op = b->ready;
        b->ready = op->next;
        if (op->req) {
            op->req->done(op->req, op->result);
            free(op);
            continue;
        }
        pthread_mutex_lock(&b->lock);
        op->finished = true;
        pthread_cond_broadcast(&b->finished);
        pthread_mutex_unlock(&b->lock);
    }
}

static void talk(struct nbd *b)
{
    if (!b->lost && (nbd_aio_is_dead(b->h) || nbd_aio_is_closed(b->h)))
        lose(b, NULL); /* it was noticed while a command was being sent */
    unsigned dir = b->lost ? 0 : nbd_aio_get_direction(b->h);
    struct pollfd p[2] = {{.fd = b->wake, .events = POLLIN},
                          {.fd = b->lost ? -1 : nbd_aio_get_fd(b->h)}};
    p[1].events = (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                          (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
    if (poll(p, 2, -1) < 0)
        return; /* EINTR: the caller comes again */
    if (p[0].revents) {
        uint64_t count;
        (void)!read(b->wake, &count, sizeof count);
    }
    int rc = 0;
    if (p[1].revents & POLLOUT)
        rc = nbd_aio_notify_write(b->h);
    else if (p[1].revents)
        rc = nbd_aio_notify_read(b->h); /* an end or an error, too */
    if (!b->lost && (rc < 0 || nbd_aio_is_dead(b->h) || nbd_aio_is_closed(b->h)))
        lose(b, rc < 0 ? nbd_get_error() : NULL); /* libnbd has ended all its commands */
}

static void *run(void *arg)
{
    struct nbd *b = arg;
    while (take_work(b)) {
        tell_ready(b);
        talk(b);
    }
    tell_ready(b);
    return NULL;
}

/* ---- operations ---- */

static void wake(struct nbd *b)
{
    const uint64_t one = 1;
    (void)!write(b->wake, &one, sizeof one); /* it cannot be full: it is read before the queues */
}

static int perform(struct nbd *b, struct op *op)
{
    op->nbd = b;
    pthread_mutex_lock(&b->lock);
    if (b->last)
        b->last->next = op;
    else
        b->first = op;
    b->last = op;
    wake(b);
    while (!op->finished)
        pthread_cond_wait(&b->finished, &b->lock);
    pthread_mutex_unlock(&b->lock);
    return op->result;
}

static void nbd_submit(struct node *n, struct blk_req *req)
{
    struct nbd *b = nbd_of(n);
    pthread_mutex_lock(&b->lock);
    req->next = NULL;
    if (b->tail)
        b->tail->next = req;
    else
        b->head = req;
    b->tail = req;
    pthread_mutex_unlock(&b->lock);
    wake(b);
}

static int nbd_node_flush(struct node *n)
{
    struct nbd *b = nbd_of(n);
    struct op op = {.kind = OP_FLUSH};
    pthread_mutex_lock(&b->lock);
    int rc = b->flush_error;
    pthread_mutex_unlock(&b->lock);
    if (rc || !b->can_flush)
        return rc;
    rc = perform(b, &op);
    if (rc) {
        pthread_mutex_lock(&b->lock);
        b->flush_error = rc;
        pthread_mutex_unlock(&b->lock);
    }
    return rc;
}

static int nbd_node_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct op op = {.kind = OP_READ, .iov = iov, .niov = niov, .offset = offset};
    return perform(nbd_of(n), &op);
}

/* A server without FUA is asked to flush. */
static int durable(struct nbd *b, struct op *op, unsigned flags)
{
    if ((flags & NODE_FUA) && b->can_fua)
        op->flags |= LIBNBD_CMD_FLAG_FUA;
    int rc = perform(b, op);
    return rc || !(flags & NODE_FUA) || b->can_fua ? rc : nbd_node_flush(&b->node);
}

static int nbd_node_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                          unsigned flags)
{
    struct op op = {.kind = OP_WRITE, .iov = iov, .niov = niov, .offset = offset};
    return durable(nbd_of(n), &op, flags);
}

static int nbd_node_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct op op = {.kind = OP_ZERO, .offset = offset, .len = len};
    if (!(flags & NODE_MAY_UNMAP))
        op.flags = LIBNBD_CMD_FLAG_NO_HOLE;
    return durable(nbd_of(n), &op, flags);
}

static int nbd_node_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct nbd *b = nbd_of(n);
    struct op op = {.kind = OP_TRIM, .offset = offset, .len = len};
    return b->can_trim ? perform(b, &op) : 0;
}

static int nbd_node_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    struct nbd *b = nbd_of(n);
    *out = (struct node_extent){.kind = NODE_DATA, .len = len};
    struct op op = {.kind = OP_MAP, .offset = offset, .len = min_u64(len, MAX_EMPTY), .map = out};
    int rc = b->can_map ? perform(b, &op) : 0;
    if (!rc && out->kind == NODE_DATA) {
        out->placed = true;
        out->below = n;
        out->where = offset;
    }
    return rc;
}

static bool nbd_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                        struct node_place *out)
{
    *out = (struct node_place){n, offset, len};
    return true;
}

static void destroy(struct nbd *b)
{
    nbd_close(b->h);
    if (b->wake >= 0)
        close(b->wake);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->finished);
    free(b->uri);
    free(b);
}

static void nbd_node_close(struct node *n)
{
    struct nbd *b = nbd_of(n);
    if (!n->readonly)
        nbd_node_flush(n);
    pthread_mutex_lock(&b->lock);
    b->closing = true;
    pthread_mutex_unlock(&b->lock);
    wake(b);
    pthread_join(b->thread, NULL);
    if (!b->lost)
        nbd_aio_disconnect(b->h, 0); /* a courtesy; its answer is not waited for */
    destroy(b);
}

static const struct node_ops nbd_ops = {
    .name = "nbd",
    .read = nbd_node_read,
    .write = nbd_node_write,
    .flush = nbd_node_flush,
    .zero = nbd_node_zero,
    .discard = nbd_node_discard,
    .map = nbd_node_map,
    .resolve = nbd_resolve,
    .submit = nbd_submit,
    .close = nbd_node_close,
};

/* The same for a server that has no command for zeroes: node.c writes them. */
static const struct node_ops nbd_ops_no_zero = {
    .name = "nbd",
    .read = nbd_node_read,
    .write = nbd_node_write,
    .flush = nbd_node_flush,
    .discard = nbd_node_discard,
    .map = nbd_node_map,
    .resolve = nbd_resolve,
    .submit = nbd_submit,
    .close = nbd_node_close,
};

/* ---- opening ---- */

static int cannot(struct nbd *b, const char *what, struct error *e)
{
    const char *why = nbd_get_error();
    return error_set(e, ERR_IO, "%s: %s: %s", b->uri, what, why ? why : "no reason is known");
}

static int connect_to(struct nbd *b, struct error *e)
{
    b->h = nbd_create();
    if (!b->h)
        return error_set(e, ERR_NOMEM, "%s: out of memory", b->uri);
    nbd_add_meta_context(b->h, LIBNBD_CONTEXT_BASE_ALLOCATION);
    nbd_set_uri_allow_transports(b->h, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX);
    return nbd_connect_uri(b->h, b->uri) < 0 ? cannot(b, "cannot connect", e) : 0;
}

/* What the server offers; each is -1 on failure, which counts as no. */
static int look_at_export(struct nbd *b, bool readonly, struct error *e)
{
    int64_t size = nbd_get_size(b->h), block = nbd_get_block_size(b->h, LIBNBD_SIZE_MINIMUM);
    if (size < 0)
        return cannot(b, "cannot find the size", e);
    if (block > MAX_BLOCK)
        return error_set(e, ERR_LIMIT,
                         "%s: the server wants blocks of %lld bytes; up to %u are "
                         "supported",
                         b->uri, (long long)block, MAX_BLOCK);
    if (!readonly && nbd_is_read_only(b->h) != 0)
        return error_set(e, ERR_STATE,
                         "%s: the server does not let it be written to; say 'readonly: true'",
                         b->uri);
    b->can_flush = nbd_can_flush(b->h) > 0;
    b->can_fua = nbd_can_fua(b->h) > 0;
    b->can_trim = nbd_can_trim(b->h) > 0;
    b->can_zero = nbd_can_zero(b->h) > 0;
    b->can_map = nbd_can_meta_context(b->h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    b->node = (struct node){.ops = b->can_zero ? &nbd_ops : &nbd_ops_no_zero,
                            .size = (uint64_t)size,
                            .readonly = readonly,
                            .alignment = block > 1 ? (uint32_t)block : 0,
                            .fd = -1};
    return 0;
}

int nbd_open(const char *uri, bool readonly, struct node **out, struct error *e)
{
    struct nbd *b = calloc(1, sizeof *b);
    if (!b)
        return error_set(e, ERR_NOMEM, "%s: out of memory", uri);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->finished, NULL);
    b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    b->uri = strdup(uri);
    int rc = 0;
    if (b->wake < 0 || !b->uri)
        rc = error_set(e, ERR_NOMEM, "%s: out of memory or files", uri);
    if (!rc)
        rc = connect_to(b, e);
    if (!rc)
        rc = look_at_export(b, readonly, e);
    /* SIGPIPE is blocked, too: a write to a lost connection is an error, no more. */
    const struct thread_options thread = {.name = "nbd", .stack = THREAD_STACK};
    int err = rc ? 0 : thread_start(&b->thread, &thread, run, b);
    if (err)
        rc = error_errno(e, ERR_HOST, err, "%s: cannot start a thread", uri);
    if (rc) {
        destroy(b);
        return rc;
    }
    *out = &b->node;
    return 0;
}
