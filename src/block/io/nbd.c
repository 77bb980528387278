/*
 * nbd.c - a remote disk by the NBD protocol, through libnbd.
 *
 * A thread of the node's own (remote.h) speaks to the server; nobody else uses the handle once it
 * is connected.
 *
 * Invariant: a connection that was lost stays lost: everything fails with -EIO from then on, and it
 * is logged once. A flush that failed is never followed by one that succeeds.
 */
#define _GNU_SOURCE
#include "block/io/nbd.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/io/remote.h"

#define MAX_DATA  (4 * MIB)   /* bytes of one command; servers take 32 MiB */
#define MAX_EMPTY (128 * MIB) /* of one without data */
#define MAX_BLOCK 512u        /* what guests and formats keep to */

enum kind { OP_READ, OP_WRITE, OP_FLUSH, OP_ZERO, OP_TRIM, OP_MAP };

struct op {
    struct remote_op remote;
    struct nbd *nbd;
    enum kind kind;
    const struct iovec *iov;
    int niov;
    uint64_t offset, len;
    uint32_t flags;          /* LIBNBD_CMD_FLAG_* */
    struct node_extent *map; /* MAP */
};

struct nbd {
    struct node node;
    struct remote remote;
    struct nbd_handle *h;
    char *uri;
    atomic_int flush_error;
    bool lost; /* the thread's, until it has ended */
    bool can_flush, can_fua, can_trim, can_zero, can_map;
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

static int on_done(void *arg, int *error)
{
    struct op *op = arg;
    if (*error && !op->remote.result)
        op->remote.result =
            *error == EPERM || *error == ENOSPC || *error == EINVAL ? -*error : -EIO;
    remote_release(&op->nbd->remote, &op->remote);
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
    op->remote.commands++;
    if (!op->nbd->lost && send_command(op, buf, offset, len) >= 0)
        return true;
    /* libnbd forgets the callback of a command that it refuses, and does not call it. */
    if (!op->remote.result)
        op->remote.result = -EIO;
    op->remote.commands--;
    return false;
}

static void start(struct remote *r, struct remote_op *remote)
{
    struct op *op = CONTAINER_OF(remote, struct op, remote);
    bool ok = true;
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
}

static struct remote_op *make(struct remote *r, struct blk_req *req)
{
    struct op *op = malloc(sizeof *op);
    if (!op)
        return NULL;
    *op = (struct op){.remote = {.req = req},
                      .nbd = CONTAINER_OF(r, struct nbd, remote),
                      .kind = req->op == BLK_READ ? OP_READ : OP_WRITE,
                      .iov = req->iov,
                      .niov = req->niov,
                      .offset = req->offset,
                      .len = req->len};
    return &op->remote;
}

static void talk(struct remote *r)
{
    struct nbd *b = CONTAINER_OF(r, struct nbd, remote);
    if (!b->lost && (nbd_aio_is_dead(b->h) || nbd_aio_is_closed(b->h)))
        lose(b, NULL); /* it was noticed while a command was being sent */
    unsigned dir = b->lost ? 0 : nbd_aio_get_direction(b->h);
    struct pollfd p[2] = {{.fd = r->wake, .events = POLLIN},
                          {.fd = b->lost ? -1 : nbd_aio_get_fd(b->h)}};
    p[1].events = (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                          (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
    if (poll(p, 2, -1) < 0)
        return; /* EINTR: the caller comes again */
    if (p[0].revents)
        remote_woken(r);
    int rc = 0;
    if (p[1].revents & POLLOUT)
        rc = nbd_aio_notify_write(b->h);
    else if (p[1].revents)
        rc = nbd_aio_notify_read(b->h); /* an end or an error, too */
    if (!b->lost && (rc < 0 || nbd_aio_is_dead(b->h) || nbd_aio_is_closed(b->h)))
        lose(b, rc < 0 ? nbd_get_error() : NULL); /* libnbd has ended all its commands */
}

static const struct remote_protocol protocol = {
    .name = "nbd", .make = make, .start = start, .talk = talk};

/* ---- operations ---- */

static int perform(struct nbd *b, struct op *op)
{
    op->nbd = b;
    return remote_perform(&b->remote, &op->remote);
}

static void nbd_submit(struct node *n, struct blk_req *req)
{
    remote_submit(&nbd_of(n)->remote, req);
}

static int nbd_node_flush(struct node *n)
{
    struct nbd *b = nbd_of(n);
    struct op op = {.kind = OP_FLUSH};
    int rc = atomic_load(&b->flush_error);
    if (rc || !b->can_flush)
        return rc;
    rc = perform(b, &op);
    if (rc)
        atomic_store(&b->flush_error, rc);
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
    free(b->uri);
    free(b);
}

static void nbd_node_close(struct node *n)
{
    struct nbd *b = nbd_of(n);
    if (!n->readonly)
        nbd_node_flush(n);
    remote_stop(&b->remote);
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
    b->uri = strdup(uri);
    int rc = b->uri ? connect_to(b, e) : error_set(e, ERR_NOMEM, "%s: out of memory", uri);
    if (!rc)
        rc = look_at_export(b, readonly, e);
    if (!rc && (rc = remote_start(&b->remote, &protocol, e)))
        error_prefix(e, "%s", uri);
    if (rc) {
        destroy(b);
        return rc;
    }
    *out = &b->node;
    return 0;
}
