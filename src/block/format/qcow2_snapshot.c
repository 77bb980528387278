/*
 * qcow2_snapshot.c - the table of internal snapshots. They can be listed and opened for reading.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "block/format/qcow2_int.h"

#define FIXED     40   /* bytes of an entry before what is variable */
#define MAX_EXTRA 1024 /* bytes; 24 are defined today */

void qcow2_snapshots_free(struct qcow2 *q)
{
    for (uint32_t i = 0; q->snap && i < q->nsnap; i++) {
        free(q->snap[i].id);
        free(q->snap[i].name);
    }
    free(q->snap);
    q->snap = NULL;
}

static int damaged(struct error *e, uint32_t i, const char *what)
{
    return error_set(e, ERR_FORMAT, "snapshot %u: its %s is not possible", i + 1, what);
}

/* Decodes one entry at `at`, whose length it returns in *len. */
static int read_entry(struct qcow2 *q, uint32_t i, uint64_t at, uint64_t *len, struct error *e)
{
    struct qcow2_snapshot *s = &q->snap[i];
    uint8_t h[FIXED], extra[24] = {0};
    int rc = node_read(q->file, h, sizeof h, at);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read the snapshot table");
    uint16_t id_len = load_be16(h + 12), name_len = load_be16(h + 14);
    uint32_t extra_len = load_be32(h + 36);
    if (extra_len > MAX_EXTRA)
        return damaged(e, i, "extra data");
    *s = (struct qcow2_snapshot){.l1_offset = load_be64(h),
                                 .l1_size = load_be32(h + 8),
                                 .date_sec = load_be32(h + 16),
                                 .date_nsec = load_be32(h + 20),
                                 .vm_clock = load_be64(h + 24),
                                 .vm_state_size = load_be32(h + 32)};
    s->id = calloc(1, id_len + 1u);
    s->name = calloc(1, name_len + 1u);
    if (!s->id || !s->name)
        return error_set(e, ERR_NOMEM, "out of memory");
    rc = node_read(q->file, extra, min_u64(extra_len, sizeof extra), at + FIXED);
    if (!rc)
        rc = node_read(q->file, s->id, id_len, at + FIXED + extra_len);
    if (!rc)
        rc = node_read(q->file, s->name, name_len, at + FIXED + extra_len + id_len);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read the snapshot table");
    if (extra_len >= 8)
        s->vm_state_size = load_be64(extra);
    s->has_disk_size = extra_len >= 16;
    s->disk_size = s->has_disk_size ? load_be64(extra + 8) : q->node.size;
    *len = ((uint64_t)FIXED + extra_len + id_len + name_len + 7) & ~7ull;
    return 0;
}

static int check_entry(struct qcow2 *q, uint32_t i, struct error *e)
{
    struct qcow2_snapshot *s = &q->snap[i];
    uint64_t end = qcow2_clusters(q, node_size(q->file)) << q->cluster_bits;
    bool good = s->l1_size * 8ull <= QCOW2_MAX_L1 && !(s->l1_offset & (q->cluster - 1)) &&
                range_within(s->l1_offset, s->l1_size * 8ull, end);
    if (good && s->disk_size <= INT64_MAX)
        return 0;
    if (!q->check)
        return damaged(e, i, good ? "size" : "L1 table");
    s->l1_size = 0; /* what it refers to is found leaked */
    return 0;
}

int qcow2_snapshots_read(struct qcow2 *q, struct error *e)
{
    if (q->nsnap == 0)
        return 0;
    q->snap = calloc(q->nsnap, sizeof *q->snap);
    if (!q->snap)
        return error_set(e, ERR_NOMEM, "out of memory");
    uint64_t at = q->snap_offset, file_end = node_size(q->file), len = 0;
    for (uint32_t i = 0; i < q->nsnap; i++) {
        if (at >= file_end || at - q->snap_offset > QCOW2_MAX_SNAP_TABLE)
            return error_set(e, ERR_FORMAT, "the snapshot table ends too early or too late");
        int rc = read_entry(q, i, at, &len, e);
        if (!rc)
            rc = check_entry(q, i, e);
        if (rc)
            return rc;
        at += len;
    }
    q->snap_bytes = at - q->snap_offset;
    return 0;
}

const struct qcow2_snapshot *qcow2_snapshots(struct node *n, unsigned *count)
{
    *count = qcow2_of(n)->nsnap;
    return qcow2_of(n)->snap;
}
