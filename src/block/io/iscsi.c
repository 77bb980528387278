/*
 * iscsi.c - a logical unit of an iSCSI target, through libiscsi.
 *
 * A thread of the node's own (remote.h) has as many commands in flight as the target lets it;
 * nobody else uses the session once it is logged in. Data goes from and to the callers' memory.
 * Bytes that are no whole blocks are read and written around by who asks for them, one at a time.
 *
 * Invariant: a session that was lost stays lost: everything fails with -EIO from then on, and it is
 * logged once. A flush that failed is never followed by one that succeeds.
 */
#define _GNU_SOURCE
#include "block/io/iscsi.h"

#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "block/io/remote.h"
#include "block/iov.h"

#define INITIATOR    "iqn.2026-01.org.sosia:initiator"
#define BLOCK        512u
#define CHUNK        (512 * KIB) /* bytes of one command */
#define SEGMENTS     1000 /* of one command: fewer than IOV_MAX, and more than bytes in a block */
#define TIMEOUT      30   /* seconds for one command */
#define LOOK         1000 /* milliseconds between looks for commands that take too long */
#define RETRIES      5    /* of a command that met a unit attention */
#define BUSY_WAIT    10   /* milliseconds until what found the target busy is sent again */
#define BUSY_RETRIES (TIMEOUT * 1000 / BUSY_WAIT)
#define MAX_EMPTY    (64 * MIB) /* bytes of one WRITE SAME or UNMAP */

struct lun {
    struct node node;
    struct remote remote;
    struct iscsi_context *iscsi; /* the thread's; NULL: lost */
    struct command *later;       /* likewise: the target had no room for them */
    unsigned inflight;           /* commands; likewise */
    bool broken;                 /* likewise: a command came back without an answer */
    char *url;                   /* without a password: for messages */
    int number;
    bool thin, thin_zero;
    atomic_bool no_same;
    atomic_int flush_error;
    pthread_mutex_t ragged; /* one write of no whole blocks at a time */
};

enum what { DO_READ, DO_WRITE, DO_SAME, DO_UNMAP, DO_SYNC };

struct op {
    struct remote_op remote;
    struct lun *lun;
    enum what what;
    const struct iovec *iov; /* READ, WRITE */
    int niov;
    uint64_t offset, len; /* whole blocks */
    bool flag;            /* WRITE: durable; SAME: unmap */
};

struct command {
    struct op *op;
    struct command *next;
    struct scsi_task *task;
    uint64_t lba;
    uint32_t blocks;
    unsigned tries;
    uint8_t zero[BLOCK]; /* SAME */
    int niov;
    struct iovec iov[]; /* READ, WRITE */
};
_Static_assert(sizeof(struct iovec) == sizeof(struct scsi_iovec), "libiscsi promises it");

static struct lun *lun_of(struct node *n)
{
    return CONTAINER_OF(n, struct lun, node);
}

/* ---- the thread ---- */

static void on_done(struct iscsi_context *iscsi, int status, void *data, void *arg);

static bool send_command(struct command *c)
{
    struct op *op = c->op;
    struct lun *l = op->lun;
    struct scsi_iovec *iov = (void *)c->iov;
    struct unmap_list range = {.lba = c->lba, .num = c->blocks};
    c->task = NULL;
    if (!l->iscsi || l->broken)
        return false;
    switch (op->what) {
    case DO_READ:
        c->task = iscsi_read16_iov_task(l->iscsi, l->number, c->lba, c->blocks * BLOCK, BLOCK, 0, 0,
                                        0, 0, 0, on_done, c, iov, c->niov);
        break;
    case DO_WRITE:
        c->task = iscsi_write16_iov_task(l->iscsi, l->number, c->lba, NULL, c->blocks * BLOCK,
                                         BLOCK, 0, 0, op->flag, 0, 0, on_done, c, iov, c->niov);
        break;
    case DO_SAME:
        c->task = iscsi_writesame16_task(l->iscsi, l->number, c->lba, c->zero, BLOCK, c->blocks, 0,
                                         op->flag, 0, 0, on_done, c);
        break;
    case DO_UNMAP:
        c->task = iscsi_unmap_task(l->iscsi, l->number, 0, 0, &range, 1, on_done, c);
        break;
    case DO_SYNC:
        c->task = iscsi_synchronizecache16_task(l->iscsi, l->number, 0, 0, 0, 0, on_done, c);
        break;
    }
    l->inflight += c->task != NULL;
    return c->task != NULL;
}

/* What a CHECK CONDITION means (SPC-4, 4.5). */
static int sense_error(const struct scsi_task *t)
{
    switch (t->sense.key) {
    case SCSI_SENSE_ILLEGAL_REQUEST:
        return -ENOTSUP;
    case SCSI_SENSE_DATA_PROTECTION:
        return t->sense.ascq == 0x2707 ? -ENOSPC : -EPERM; /* space allocation failed */
    case SCSI_SENSE_UNIT_ATTENTION:
        return -EAGAIN;
    default:
        return -EIO;
    }
}

static int result_of(struct lun *l, const struct command *c, int status)
{
    switch (status) {
    case SCSI_STATUS_GOOD:
        return c->op->what == DO_READ && c->task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL
                   ? -EIO
                   : 0;
    case SCSI_STATUS_CHECK_CONDITION:
        return sense_error(c->task);
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
        return -EBUSY;
    case SCSI_STATUS_CANCELLED:
    case SCSI_STATUS_ERROR:
    case SCSI_STATUS_TIMEOUT:
        l->broken = true; /* the session ends when libiscsi is not in the middle of something */
        return -EIO;
    default:
        return -EIO;
    }
}

static void finish(struct command *c, int result)
{
    struct op *op = c->op;
    if (!op->remote.result)
        op->remote.result = result;
    remote_release(&op->lun->remote, &op->remote);
    free(c);
}

static void on_done(struct iscsi_context *iscsi, int status, void *data, void *arg)
{
    struct command *c = arg;
    struct lun *l = c->op->lun;
    int rc = result_of(l, c, status);
    l->inflight--;
    scsi_free_scsi_task(c->task);
    if (rc == -EBUSY && ++c->tries < BUSY_RETRIES) {
        c->next = l->later;
        l->later = c;
        return;
    }
    if (rc == -EAGAIN && ++c->tries < RETRIES && send_command(c))
        return;
    finish(c, rc == -EAGAIN || rc == -EBUSY ? -EIO : rc);
}

/* The next command of an operation, `done` bytes from its beginning, at `from` in its segments.
 * NULL: no memory. */
static struct command *next_command(struct op *op, uint64_t done, struct iov_cursor *from)
{
    bool data = op->what == DO_READ || op->what == DO_WRITE;
    struct iovec iov[SEGMENTS];
    uint64_t len = min_u64(op->len - done, data ? CHUNK : MAX_EMPTY), got = 0;
    int n = data ? iov_slice(from, len, iov, SEGMENTS, &got) : 0;
    if (data && got < len) { /* too many segments: fewer blocks */
        len = got / BLOCK * BLOCK;
        n = iov_slice(from, len, iov, SEGMENTS, &got);
    }
    struct command *c = calloc(1, sizeof *c + (size_t)n * sizeof c->iov[0]);
    if (!c)
        return NULL;
    c->op = op;
    c->lba = (op->offset + done) / BLOCK;
    c->blocks = (uint32_t)(len / BLOCK);
    c->niov = n;
    memcpy(c->iov, iov, (size_t)n * sizeof iov[0]);
    if (data)
        iov_advance(from, (size_t)len);
    return c;
}

static void start(struct remote *r, struct remote_op *remote)
{
    struct op *op = CONTAINER_OF(remote, struct op, remote);
    struct iov_cursor from = {op->iov, op->niov, 0};
    uint64_t done = 0;
    do {
        struct command *c = next_command(op, done, &from);
        op->remote.commands++;
        if (!c) {
            op->remote.commands--;
            op->remote.result = -ENOMEM;
            return;
        }
        done += (uint64_t)c->blocks * BLOCK;
        if (!send_command(c)) {
            finish(c, -EIO);
            return;
        }
    } while (done < op->len);
}

static struct remote_op *make(struct remote *r, struct blk_req *req)
{
    struct lun *l = CONTAINER_OF(r, struct lun, remote);
    struct op *op = malloc(sizeof *op);
    if (!op)
        return NULL;
    *op = (struct op){.remote = {.req = req},
                      .lun = l,
                      .what = req->op == BLK_READ ? DO_READ : DO_WRITE,
                      .iov = req->iov,
                      .niov = req->niov,
                      .offset = req->offset,
                      .len = req->len};
    return &op->remote;
}

static void lose(struct lun *l)
{
    log_error("%s: the session is lost: %s; every access to this disk will fail", l->url,
              iscsi_get_error(l->iscsi));
    l->broken = true;
    iscsi_destroy_context(l->iscsi); /* ends all its commands */
    l->iscsi = NULL;
}

static void send_later(struct lun *l)
{
    struct command *c = l->later;
    l->later = NULL;
    for (struct command *next; c; c = next) {
        next = c->next;
        if (!send_command(c))
            finish(c, -EIO);
    }
}

static void serve(struct lun *l, int events)
{
    if (!l->broken && (iscsi_service(l->iscsi, events) != 0 || !iscsi_is_logged_in(l->iscsi)))
        l->broken = true;
}

static void talk(struct remote *r)
{
    struct lun *l = CONTAINER_OF(r, struct lun, remote);
    struct pollfd p[2] = {{.fd = r->wake, .events = POLLIN}, {.fd = -1}};
    int wait = l->later ? BUSY_WAIT : l->inflight ? LOOK : -1;
    if (l->iscsi && iscsi_which_events(l->iscsi) & POLLOUT)
        serve(l, POLLOUT); /* mostly there is room to send */
    if (l->iscsi && !l->broken)
        p[1] = (struct pollfd){.fd = iscsi_get_fd(l->iscsi),
                               .events = (short)iscsi_which_events(l->iscsi)};
    int n = l->broken && l->iscsi ? 0 : poll(p, 2, wait);
    if (n < 0)
        return; /* EINTR: the caller comes again */
    if (p[0].revents)
        remote_woken(r);
    if (l->iscsi && (n == 0 || p[1].revents))
        serve(l, p[1].revents);
    if (l->iscsi && l->broken)
        lose(l);
    send_later(l);
}

static const struct remote_protocol protocol = {
    .name = "iscsi", .make = make, .start = start, .talk = talk};

/* ---- operations ---- */

static int perform(struct lun *l, struct op op)
{
    op.lun = l;
    return remote_perform(&l->remote, &op.remote);
}

/* Bytes that are no whole blocks: the blocks around them, in memory of our own. */
static int ragged(struct lun *l, enum what what, const struct iovec *iov, int niov, uint64_t offset,
                  bool fua)
{
    uint64_t len = 0, first = offset / BLOCK * BLOCK;
    iov_total(iov, niov, &len);
    uint64_t all = (offset + len + BLOCK - 1) / BLOCK * BLOCK - first;
    struct iovec own = {malloc(all), all};
    if (!own.iov_base)
        return -ENOMEM;
    struct op op = {.what = DO_READ, .iov = &own, .niov = 1, .offset = first, .len = all};
    if (what == DO_WRITE)
        pthread_mutex_lock(&l->ragged);
    int rc = perform(l, op);
    uint8_t *at = (uint8_t *)own.iov_base + (offset - first);
    for (int i = 0; i < niov && !rc; at += iov[i++].iov_len) {
        if (iov[i].iov_len)
            memcpy(what == DO_READ ? iov[i].iov_base : at, what == DO_READ ? at : iov[i].iov_base,
                   iov[i].iov_len);
    }
    if (what == DO_WRITE) {
        op.what = DO_WRITE;
        op.flag = fua;
        rc = rc ? rc : perform(l, op);
        pthread_mutex_unlock(&l->ragged);
    }
    free(own.iov_base);
    return rc;
}

static int transfer(struct lun *l, enum what what, const struct iovec *iov, int niov,
                    uint64_t offset, bool fua)
{
    uint64_t len = 0;
    iov_total(iov, niov, &len);
    if ((offset | len) % BLOCK == 0)
        return perform(
            l,
            (struct op){
                .what = what, .iov = iov, .niov = niov, .offset = offset, .len = len, .flag = fua});
    return ragged(l, what, iov, niov, offset, fua);
}

static int lun_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    return transfer(lun_of(n), DO_READ, iov, niov, offset, false);
}

static int lun_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                     unsigned flags)
{
    return transfer(lun_of(n), DO_WRITE, iov, niov, offset, flags & NODE_FUA);
}

static int lun_flush(struct node *n)
{
    struct lun *l = lun_of(n);
    int rc = atomic_load(&l->flush_error);
    if (rc)
        return rc;
    rc = perform(l, (struct op){.what = DO_SYNC});
    if (rc && rc != -ENOTSUP) /* that: it has no cache */
        atomic_store(&l->flush_error, rc);
    return rc == -ENOTSUP ? 0 : rc;
}

static uint8_t zeroes[CHUNK];

/* By WRITE SAME, or where the target has none by writing. */
static int lun_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct lun *l = lun_of(n);
    int rc = -ENOTSUP;
    if (!atomic_load(&l->no_same) && (offset | len) % BLOCK == 0) {
        bool unmap = flags & NODE_MAY_UNMAP && l->thin && l->thin_zero;
        rc = perform(l, (struct op){.what = DO_SAME, .offset = offset, .len = len, .flag = unmap});
        atomic_store(&l->no_same, rc == -ENOTSUP);
    }
    if (rc == -ENOTSUP)
        for (rc = 0; len > 0 && !rc;) {
            struct iovec iov = {zeroes, min_u64(len, CHUNK)};
            rc = lun_write(n, &iov, 1, offset, 0);
            offset += iov.iov_len;
            len -= iov.iov_len;
        }
    return rc || !(flags & NODE_FUA) ? rc : lun_flush(n);
}

/* A hint: a target that has no UNMAP is no error. */
static int lun_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct lun *l = lun_of(n);
    uint64_t at = (offset + BLOCK - 1) / BLOCK * BLOCK, end = (offset + len) / BLOCK * BLOCK;
    if (!l->thin || at >= end)
        return 0;
    int rc = perform(l, (struct op){.what = DO_UNMAP, .offset = at, .len = end - at});
    return rc == -ENOTSUP ? 0 : rc;
}

static bool lun_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                        struct node_place *out)
{
    *out = (struct node_place){n, offset, len};
    return (offset | len) % BLOCK == 0;
}

static void lun_submit(struct node *n, struct blk_req *req)
{
    remote_submit(&lun_of(n)->remote, req);
}

static void destroy(struct lun *l)
{
    if (l->iscsi)
        iscsi_destroy_context(l->iscsi);
    pthread_mutex_destroy(&l->ragged);
    free(l->url);
    free(l);
}

static void lun_close(struct node *n)
{
    struct lun *l = lun_of(n);
    if (!n->readonly)
        lun_flush(n);
    remote_stop(&l->remote);
    if (l->iscsi)
        iscsi_logout_sync(l->iscsi);
    destroy(l);
}

static const struct node_ops lun_ops = {
    .name = "iscsi",
    .read = lun_read,
    .write = lun_write,
    .flush = lun_flush,
    .zero = lun_zero,
    .discard = lun_discard,
    .resolve = lun_resolve,
    .submit = lun_submit,
    .close = lun_close,
};

/* ---- opening ---- */

static int cannot(struct lun *l, const char *what, struct error *e)
{
    return error_set(e, ERR_IO, "%s: %s: %s", l->url, what, iscsi_get_error(l->iscsi));
}

static int log_in(struct lun *l, const char *url, struct error *e)
{
    l->iscsi = iscsi_create_context(INITIATOR);
    if (!l->iscsi)
        return error_set(e, ERR_NOMEM, "out of memory");
    struct iscsi_url *u = iscsi_parse_full_url(l->iscsi, url);
    if (!u)
        return error_set(e, ERR_SPEC, "an iSCSI URL is iscsi://HOST[:PORT]/TARGET/LUN");
    if (asprintf(&l->url, "iscsi://%s/%s/%d", u->portal, u->target, u->lun) < 0)
        l->url = NULL;
    l->number = u->lun;
    iscsi_set_targetname(l->iscsi, u->target);
    iscsi_set_session_type(l->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(l->iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
    if (u->user[0])
        iscsi_set_initiator_username_pwd(l->iscsi, u->user, u->passwd);
    iscsi_set_noautoreconnect(l->iscsi, 1);
    iscsi_set_timeout(l->iscsi, TIMEOUT);
    int rc = 0;
    if (!l->url)
        rc = error_set(e, ERR_NOMEM, "out of memory");
    else if (iscsi_full_connect_sync(l->iscsi, u->portal, u->lun) != 0)
        rc = cannot(l, "cannot log in", e);
    iscsi_destroy_url(u);
    return rc;
}

static int find_size(struct lun *l, struct error *e)
{
    struct scsi_task *t = iscsi_readcapacity16_sync(l->iscsi, l->number);
    const struct scsi_readcapacity16 *c =
        t && t->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(t) : NULL;
    uint64_t size = 0;
    int rc = 0;
    if (!c)
        rc = cannot(l, "cannot find the size", e);
    else if (c->block_length != BLOCK)
        rc = error_set(e, ERR_LIMIT, "%s: has blocks of %u bytes; only those of 512 are supported",
                       l->url, c->block_length);
    else if (c->returned_lba == UINT64_MAX || !checked_mul_u64(c->returned_lba + 1, BLOCK, &size) ||
             size > INT64_MAX)
        rc = error_set(e, ERR_LIMIT, "%s: is too large for a disk", l->url);
    if (!rc) {
        l->thin = c->lbpme;
        l->thin_zero = c->lbprz;
        l->node.size = size;
    }
    if (t)
        scsi_free_scsi_task(t);
    return rc;
}

int iscsi_open(const char *url, bool readonly, struct node **out, struct error *e)
{
    struct lun *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(e, ERR_NOMEM, "out of memory");
    pthread_mutex_init(&l->ragged, NULL);
    l->node = (struct node){.ops = &lun_ops, .readonly = readonly, .alignment = BLOCK, .fd = -1};
    int rc = log_in(l, url, e);
    if (!rc)
        rc = find_size(l, e);
    if (!rc && (rc = remote_start(&l->remote, &protocol, e)))
        error_prefix(e, "%s", l->url);
    if (rc) {
        destroy(l);
        return rc;
    }
    *out = &l->node;
    return 0;
}
