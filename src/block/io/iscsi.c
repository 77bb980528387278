/*
 * iscsi.c - a logical unit of an iSCSI target, through libiscsi.
 *
 * One command at a time, with `lock` held: a session of libiscsi belongs to one thread. The node
 * has no `submit`, so only I/O workers ever wait here. Data goes through a buffer, which also lets
 * bytes be read and written that are no whole blocks.
 *
 * Invariant: a session that was lost stays lost: everything fails with -EIO from then on, and it is
 * logged once. A flush that failed is never followed by one that succeeds.
 */
#define _GNU_SOURCE
#include "block/io/iscsi.h"

#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "block/iov.h"

#define INITIATOR "iqn.2026-01.org.sosia:initiator"
#define BLOCK     512u
#define CHUNK     (512 * KIB) /* bytes of one command */
#define TIMEOUT   30          /* seconds for one command */
#define RETRIES   5           /* of a command that met a unit attention */
#define MAX_EMPTY (64 * MIB)  /* bytes of one WRITE SAME or UNMAP */

struct lun {
    struct node node;
    pthread_mutex_t lock; /* of all that follows */
    struct iscsi_context *iscsi;
    char *url; /* without a password: for messages */
    int number;
    bool lost, thin, thin_zero, no_same;
    int flush_error;
    uint8_t *buf; /* CHUNK bytes and a block at each end */
};

static struct lun *lun_of(struct node *n)
{
    return CONTAINER_OF(n, struct lun, node);
}

/* ---- commands; `lock` held ---- */

enum what { DO_READ, DO_WRITE, DO_SAME, DO_UNMAP, DO_SYNC };

static struct scsi_task *command(struct lun *l, enum what what, uint64_t lba, uint32_t blocks,
                                 uint8_t *data, bool flag)
{
    struct unmap_list range = {.lba = lba, .num = blocks};
    switch (what) {
    case DO_READ:
        return iscsi_read16_sync(l->iscsi, l->number, lba, blocks * BLOCK, BLOCK, 0, 0, 0, 0, 0);
    case DO_WRITE:
        return iscsi_write16_sync(l->iscsi, l->number, lba, data, blocks * BLOCK, BLOCK, 0, 0, flag,
                                  0, 0);
    case DO_SAME:
        return iscsi_writesame16_sync(l->iscsi, l->number, lba, data, BLOCK, blocks, 0, flag, 0, 0);
    case DO_UNMAP:
        return iscsi_unmap_sync(l->iscsi, l->number, 0, 0, &range, 1);
    default:
        return iscsi_synchronizecache16_sync(l->iscsi, l->number, 0, 0, 0, 0);
    }
}

static int lose(struct lun *l)
{
    if (!l->lost)
        log_error("%s: the session is lost: %s; every access to this disk will fail", l->url,
                  iscsi_get_error(l->iscsi));
    l->lost = true;
    return -EIO;
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

/* READ puts the data into `data`. */
static int perform(struct lun *l, enum what what, uint64_t lba, uint32_t blocks, uint8_t *data,
                   bool flag)
{
    int rc = -EAGAIN;
    for (unsigned i = 0; rc == -EAGAIN && i < RETRIES; i++) {
        struct scsi_task *t = l->lost ? NULL : command(l, what, lba, blocks, data, flag);
        if (!t || (t->status != SCSI_STATUS_GOOD && t->status != SCSI_STATUS_CHECK_CONDITION))
            rc = lose(l);
        else if (t->status == SCSI_STATUS_CHECK_CONDITION)
            rc = sense_error(t);
        else
            rc = what == DO_READ && (uint64_t)t->datain.size != (uint64_t)blocks * BLOCK ? -EIO : 0;
        if (!rc && what == DO_READ)
            memcpy(data, t->datain.data, (size_t)t->datain.size);
        if (t)
            scsi_free_scsi_task(t);
    }
    return rc == -EAGAIN ? -EIO : rc;
}

static int flush_locked(struct lun *l)
{
    if (!l->flush_error) {
        l->flush_error = perform(l, DO_SYNC, 0, 0, NULL, false);
        if (l->flush_error == -ENOTSUP) /* it has no cache */
            l->flush_error = 0;
    }
    return l->flush_error;
}

/* The blocks around [offset, offset + len), which are at most CHUNK and two blocks. */
static int load(struct lun *l, uint64_t offset, uint64_t len, uint64_t *first, uint32_t *blocks)
{
    *first = offset / BLOCK;
    *blocks = (uint32_t)((offset + len + BLOCK - 1) / BLOCK - *first);
    return perform(l, DO_READ, *first, *blocks, l->buf, false);
}

/* ---- operations ---- */

static int lun_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct lun *l = lun_of(n);
    int rc = 0;
    for (int i = 0; i < niov && !rc; i++)
        for (size_t in = 0; in < iov[i].iov_len && !rc;) {
            uint64_t part = min_u64(iov[i].iov_len - in, CHUNK), first;
            uint32_t blocks;
            pthread_mutex_lock(&l->lock);
            rc = load(l, offset, part, &first, &blocks);
            if (!rc)
                memcpy((uint8_t *)iov[i].iov_base + in, l->buf + offset % BLOCK, part);
            pthread_mutex_unlock(&l->lock);
            in += part;
            offset += part;
        }
    return rc;
}

/* With `lock` held. What is no whole block is read first. */
static int write_part(struct lun *l, const uint8_t *from, uint64_t offset, uint64_t len, bool fua)
{
    uint64_t first = offset / BLOCK;
    uint32_t blocks = (uint32_t)(len / BLOCK);
    int rc = 0;
    if ((offset | len) % BLOCK)
        rc = load(l, offset, len, &first, &blocks);
    if (!rc) {
        memcpy(l->buf + offset % BLOCK, from, len);
        rc = perform(l, DO_WRITE, first, blocks, l->buf, fua);
    }
    return rc;
}

static int lun_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                     unsigned flags)
{
    struct lun *l = lun_of(n);
    int rc = 0;
    for (int i = 0; i < niov && !rc; i++)
        for (size_t in = 0; in < iov[i].iov_len && !rc;) {
            uint64_t part = min_u64(iov[i].iov_len - in, CHUNK);
            pthread_mutex_lock(&l->lock);
            rc = write_part(l, (const uint8_t *)iov[i].iov_base + in, offset, part,
                            flags & NODE_FUA);
            pthread_mutex_unlock(&l->lock);
            in += part;
            offset += part;
        }
    return rc;
}

static int lun_flush(struct node *n)
{
    struct lun *l = lun_of(n);
    pthread_mutex_lock(&l->lock);
    int rc = flush_locked(l);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static const uint8_t zeroes[CHUNK];

/* By WRITE SAME, or where the target has none by writing. `lock` held. */
static int zero_part(struct lun *l, uint64_t offset, uint64_t *len, bool unmap)
{
    uint8_t block[BLOCK] = {0};
    int rc = -ENOTSUP;
    if (!l->no_same && (offset | *len) % BLOCK == 0) {
        *len = min_u64(*len, MAX_EMPTY);
        rc = perform(l, DO_SAME, offset / BLOCK, (uint32_t)(*len / BLOCK), block,
                     unmap && l->thin && l->thin_zero);
        l->no_same = rc == -ENOTSUP;
    }
    if (rc != -ENOTSUP)
        return rc;
    *len = min_u64(*len, CHUNK);
    return write_part(l, zeroes, offset, *len, false);
}

static int lun_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct lun *l = lun_of(n);
    int rc = 0;
    while (len > 0 && !rc) {
        uint64_t part = len;
        pthread_mutex_lock(&l->lock);
        rc = zero_part(l, offset, &part, flags & NODE_MAY_UNMAP);
        pthread_mutex_unlock(&l->lock);
        offset += part;
        len -= part;
    }
    return rc || !(flags & NODE_FUA) ? rc : lun_flush(n);
}

/* A hint: a target that has no UNMAP is no error. */
static int lun_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct lun *l = lun_of(n);
    uint64_t at = (offset + BLOCK - 1) / BLOCK, end = (offset + len) / BLOCK;
    int rc = 0;
    while (l->thin && at < end && !rc) {
        uint32_t blocks = (uint32_t)min_u64(end - at, MAX_EMPTY / BLOCK);
        pthread_mutex_lock(&l->lock);
        rc = perform(l, DO_UNMAP, at, blocks, NULL, false);
        pthread_mutex_unlock(&l->lock);
        at += blocks;
    }
    return rc == -ENOTSUP ? 0 : rc;
}

static void destroy(struct lun *l)
{
    if (l->iscsi)
        iscsi_destroy_context(l->iscsi);
    pthread_mutex_destroy(&l->lock);
    free(l->buf);
    free(l->url);
    free(l);
}

static void lun_close(struct node *n)
{
    struct lun *l = lun_of(n);
    if (!n->readonly)
        lun_flush(n);
    if (!l->lost)
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
    pthread_mutex_init(&l->lock, NULL);
    l->node = (struct node){.ops = &lun_ops, .readonly = readonly, .fd = -1};
    l->buf = malloc(CHUNK + 2 * BLOCK);
    int rc = l->buf ? log_in(l, url, e) : error_set(e, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = find_size(l, e);
    if (rc) {
        destroy(l);
        return rc;
    }
    *out = &l->node;
    return 0;
}
