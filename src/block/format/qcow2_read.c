/*
 * qcow2_read.c - reading the guest's bytes.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/format/qcow2_int.h"
#include "block/format/transfer.h"

static int read_hole(struct qcow2 *q, struct iov_cursor *c, uint64_t offset, uint64_t len)
{
    if (q->node.backing)
        return transfer_read(q->node.backing, c, offset, len);
    transfer_zero(c, len);
    return 0;
}

/* A run of a compressed cluster: straight into the segment if it is in one. */
static int read_packed(struct qcow2 *q, struct iov_cursor *c, uint64_t offset,
                       const struct qcow2_run *run)
{
    uint64_t in = offset & (q->cluster - 1);
    for (uint64_t done = 0; done < run->len;) {
        struct iovec part = {NULL, 0};
        uint64_t got;
        iov_slice(c, run->len - done, &part, 1, &got);
        int rc = qcow2_unpack(q, run->entry, part.iov_base, in + done, got);
        if (rc)
            return rc;
        iov_advance(c, got);
        done += got;
    }
    return 0;
}

static int read_run(struct qcow2 *q, struct iov_cursor *c, uint64_t offset,
                    const struct qcow2_run *run)
{
    switch (run->kind) {
    case QCOW2_DATA:
        return transfer_read(q->data, c, run->host, run->len);
    case QCOW2_PACKED:
        return read_packed(q, c, offset, run);
    case QCOW2_ZEROES:
        transfer_zero(c, run->len);
        return 0;
    case QCOW2_HOLE:
        break;
    }
    return read_hole(q, c, offset, run->len);
}

static int read_all(struct qcow2 *q, struct iov_cursor *c, uint64_t offset, uint64_t len)
{
    iov_advance(c, 0);
    if (q->raw_data)
        return transfer_read(q->data, c, offset, len);
    while (len > 0) {
        struct qcow2_run run;
        int rc = qcow2_lookup(q, offset, len, &run);
        if (!rc)
            rc = read_run(q, c, offset, &run);
        if (rc)
            return rc;
        offset += run.len;
        len -= run.len;
    }
    return 0;
}

int qcow2_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct qcow2 *q = qcow2_of(n);
    struct iov_cursor c = {iov, niov, 0};
    uint64_t len = 0;
    if (!iov_total(iov, niov, &len))
        return -EINVAL;
    pthread_rwlock_rdlock(&q->grace);
    int rc = read_all(q, &c, offset, len);
    pthread_rwlock_unlock(&q->grace);
    return rc;
}

int qcow2_read_buf(struct qcow2 *q, void *buf, uint64_t len, uint64_t offset)
{
    struct iovec iov = {buf, len};
    return qcow2_read(&q->node, &iov, 1, offset);
}
