/*
 * nvme_queue.c - submission and completion queues, doorbells, and the pages that commands name.
 * Clauses are NVMe 1.4's; nvme.h has the invariants.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "chip/nvme_core.h"

#define SQE_LEN 64u
#define CQE_LEN 16u

#define FLAG_FUSE 0x03u /* fused commands */
#define FLAG_PSDT 0xc0u /* scatter lists in the place of pages */

#define CSTS_RDY_CFS 3u
#define CSTS_RDY     1u

/* Error events (5.2.1.1) that a doorbell can make. */
enum { BAD_DOORBELL = 0, BAD_DOORBELL_VALUE = 1 };

/* ---- life ---- */

void nvme_sq_start(struct nvme_sq *q, gpa_t base, uint32_t size, unsigned cq)
{
    struct nvme_req *pool = q->free;
    unsigned inflight = q->inflight;
    bool running = q->running;
    *q = (struct nvme_sq){.live = true,
                          .size = (uint16_t)size,
                          .cq = (uint16_t)cq,
                          .base = base,
                          .inflight = inflight,
                          .running = running,
                          .free = pool};
}

void nvme_cq_start(struct nvme_cq *q, gpa_t base, uint32_t size, unsigned vector, bool interrupts)
{
    *q = (struct nvme_cq){.live = true,
                          .phase = true,
                          .interrupts = interrupts,
                          .size = (uint16_t)size,
                          .vector = (uint16_t)vector,
                          .base = base};
}

void nvme_queues_stop(struct nvme *n)
{
    n->gen++;
    for (unsigned i = 0; i < NVME_MAX_QUEUES; i++) {
        struct nvme_req *waits = n->sq[i].deleted_by;
        n->sq[i].live = n->sq[i].deleting = false;
        n->sq[i].deleted_by = NULL;
        n->cq[i] = (struct nvme_cq){.live = false};
        if (waits)
            nvme_finish(waits, SC_INTERNAL, 0);
    }
}

bool nvme_live(const struct nvme_req *r)
{
    return r->gen == r->n->gen;
}

/* ---- completion ---- */

static void post(struct nvme_req *r, uint32_t status, uint32_t result)
{
    struct nvme *n = r->n;
    const struct nvme_sq *sq = &n->sq[r->sq];
    struct nvme_cq *q = &n->cq[sq->cq];
    uint8_t raw[CQE_LEN] = {0};
    store_le32(raw, result);
    store_le16(raw + 8, sq->head);
    store_le16(raw + 10, (uint16_t)r->sq);
    store_le16(raw + 12, r->cmd.cid);
    store_le16(raw + 14, (uint16_t)(status << 1));
    gpa_t at = q->base + (uint64_t)q->tail * CQE_LEN;
    /* 4.6: the guest may read the entry as soon as it sees the phase bit, so that comes last. */
    bool ok = n->dma && dma_write(n->mem, at, raw, CQE_LEN - 2);
    atomic_thread_fence(memory_order_release);
    store_le16(raw + 14, (uint16_t)(status << 1 | q->phase));
    if (!ok || !dma_write(n->mem, at + 14, raw + 14, 2))
        nvme_fatal(n, "a completion queue is not in memory");
    q->reserved--;
    if (++q->tail == q->size) {
        q->tail = 0;
        q->phase = !q->phase;
    }
    if (q->interrupts && !n->cfg.message(n->cfg.ctx, q->vector))
        nvme_update_irq(n);
}

void nvme_finish(struct nvme_req *r, int status, uint32_t result)
{
    struct nvme *n = r->n;
    struct nvme_sq *sq = &n->sq[r->sq];
    bool live = nvme_live(r);
    free(r->ranges);
    r->ranges = NULL;
    if (live) {
        if (status)
            nvme_note_error(r, status);
        post(r, (uint32_t)status, result);
    }
    r->next_free = sq->free;
    sq->free = r;
    sq->inflight--;
    n->inflight--;
    if (live && sq->deleting && !sq->inflight)
        nvme_sq_idle(n, r->sq);
    if (!n->inflight)
        nvme_drained(n);
}

/* ---- taking commands ---- */

static bool has_room(const struct nvme_cq *q)
{
    unsigned used = (unsigned)(q->tail + q->size - q->head) % q->size;
    return used + q->reserved + 1 < q->size;
}

static bool fetch(struct nvme *n, struct nvme_sq *q, struct nvme_cmd *c)
{
    uint8_t raw[SQE_LEN];
    if (!dma_read(n->mem, q->base + (uint64_t)q->head * SQE_LEN, raw, sizeof raw)) {
        nvme_fatal(n, "a submission queue is not in memory");
        return false;
    }
    *c = (struct nvme_cmd){.opcode = raw[0],
                           .flags = raw[1],
                           .cid = load_le16(raw + 2),
                           .nsid = load_le32(raw + 4),
                           .prp1 = load_le64(raw + 24),
                           .prp2 = load_le64(raw + 32),
                           .dw10 = load_le32(raw + 40),
                           .dw11 = load_le32(raw + 44),
                           .dw12 = load_le32(raw + 48),
                           .dw13 = load_le32(raw + 52)};
    q->head = (uint16_t)((q->head + 1) % q->size);
    return true;
}

static void perform(struct nvme_req *r)
{
    uint32_t result = 0;
    int status;
    if (r->cmd.flags & (FLAG_FUSE | FLAG_PSDT))
        status = SC_FIELD;
    else
        status = r->sq ? nvme_io(r) : nvme_admin(r, &result);
    if (status != NVME_WAIT)
        nvme_finish(r, status, result);
}

static bool can_take(const struct nvme *n, const struct nvme_sq *q)
{
    return n->dma && q->live && !q->deleting && (n->csts & CSTS_RDY_CFS) == CSTS_RDY &&
           q->head != q->tail && q->free && has_room(&n->cq[q->cq]);
}

static void take(struct nvme *n, struct nvme_sq *q)
{
    while (can_take(n, q)) {
        struct nvme_req *r = q->free;
        if (!fetch(n, q, &r->cmd))
            break;
        q->free = r->next_free;
        r->gen = n->gen;
        r->niov = 0;
        q->inflight++;
        n->inflight++;
        n->cq[q->cq].reserved++;
        perform(r);
    }
}

/* As many as there are, and as have room for their end: fewer than the queue has entries, for its
 * tail stands still meanwhile. Requests go to the back end together, which may end some at once. */
static void run(struct nvme *n, struct nvme_sq *q)
{
    if (q->running)
        return;
    q->running = true;
    while (can_take(n, q)) {
        blk_begin(n->cfg.blk);
        take(n, q);
        blk_end(n->cfg.blk);
    }
    q->running = false;
}

void nvme_io_finish(struct nvme_req *r, int status)
{
    struct nvme *n = r->n;
    unsigned sq = r->sq;
    nvme_finish(r, status, 0);
    run(n, &n->sq[sq]);
}

void nvme_run_all(struct nvme *n)
{
    for (unsigned i = 0; i < NVME_MAX_QUEUES; i++)
        if (n->sq[i].live)
            run(n, &n->sq[i]);
}

/* ---- doorbells, 3.1.24 and 3.1.25 ---- */

static void bad_doorbell(struct nvme *n, uint8_t info)
{
    n->error_info = info;
    nvme_event(n, NVME_EVENT_ERROR);
}

static void ring_sq(struct nvme *n, unsigned i, uint32_t val)
{
    struct nvme_sq *q = &n->sq[i];
    if (val >= q->size) {
        bad_doorbell(n, BAD_DOORBELL_VALUE);
        return;
    }
    q->tail = (uint16_t)val;
    run(n, q);
}

/* The head moves over entries that are there. */
static void ring_cq(struct nvme *n, unsigned i, uint32_t val)
{
    struct nvme_cq *q = &n->cq[i];
    if (val >= q->size) {
        bad_doorbell(n, BAD_DOORBELL_VALUE);
        return;
    }
    unsigned used = (unsigned)(q->tail + q->size - q->head) % q->size;
    unsigned step = (unsigned)(val + q->size - q->head) % q->size;
    if (step > used) {
        bad_doorbell(n, BAD_DOORBELL_VALUE);
        return;
    }
    q->head = (uint16_t)val;
    nvme_update_irq(n);
    for (unsigned s = 0; s < NVME_MAX_QUEUES; s++)
        if (n->sq[s].live && n->sq[s].cq == i)
            run(n, &n->sq[s]);
}

void nvme_doorbell(struct nvme *n, unsigned reg, uint32_t val)
{
    unsigned i = reg / 2;
    bool cq = reg & 1;
    if (!(n->csts & CSTS_RDY) || n->disabling)
        return;
    if (i >= NVME_MAX_QUEUES || !(cq ? n->cq[i].live : n->sq[i].live))
        bad_doorbell(n, BAD_DOORBELL);
    else if (cq)
        ring_cq(n, i, val);
    else
        ring_sq(n, i, val);
}

/* ---- pages, 4.3 ---- */

static int add_piece(struct nvme_req *r, gpa_t addr, uint64_t len)
{
    while (len) {
        uint64_t n = len;
        uint8_t *host = dma_map(r->n->mem, addr, &n);
        struct iovec *last = r->niov ? &r->iov[r->niov - 1] : NULL;
        if (!host)
            return SC_TRANSFER;
        if (last && (uint8_t *)last->iov_base + last->iov_len == host) {
            last->iov_len += n;
        } else if (r->niov < (int)NVME_PIECES) {
            r->iov[r->niov++] = (struct iovec){host, n};
        } else {
            return SC_TRANSFER;
        }
        addr += n;
        len -= n;
    }
    return SC_OK;
}

/* A list fills pages; the last entry of one leads to the next, if more than that one are left. */
static int map_list(struct nvme_req *r, gpa_t list, uint64_t len)
{
    uint8_t raw[8];
    if (list & 7)
        return SC_PRP_OFFSET;
    while (len) {
        if (!dma_read(r->n->mem, list, raw, sizeof raw))
            return SC_TRANSFER;
        uint64_t entry = load_le64(raw);
        bool link = (list + 8) % NVME_PAGE == 0 && len > NVME_PAGE;
        if (entry & (NVME_PAGE - 1))
            return SC_PRP_OFFSET;
        if (link) { /* and the next one is the first of its page, so this is not repeated */
            list = entry;
            continue;
        }
        uint64_t n = min_u64(len, NVME_PAGE);
        int rc = add_piece(r, entry, n);
        if (rc)
            return rc;
        len -= n;
        list += 8;
    }
    return SC_OK;
}

int nvme_map(struct nvme_req *r, uint64_t len)
{
    const struct nvme_cmd *c = &r->cmd;
    uint64_t first = min_u64(len, NVME_PAGE - c->prp1 % NVME_PAGE);
    r->niov = 0;
    if (len > NVME_MAX_TRANSFER)
        return SC_FIELD;
    if (c->prp1 & 3)
        return SC_PRP_OFFSET;
    int rc = add_piece(r, c->prp1, first);
    len -= first;
    if (rc || !len)
        return rc;
    if (len > NVME_PAGE)
        return map_list(r, c->prp2, len);
    return c->prp2 % NVME_PAGE ? SC_PRP_OFFSET : add_piece(r, c->prp2, len);
}

int nvme_copy_out(struct nvme_req *r, const void *buf, uint64_t len, uint64_t total)
{
    const uint8_t *p = buf;
    int rc = nvme_map(r, total);
    for (int i = 0; i < r->niov && len && !rc; i++) {
        uint64_t n = min_u64(len, r->iov[i].iov_len);
        memcpy(r->iov[i].iov_base, p, n);
        dma_wrote(r->n->mem, r->iov[i].iov_base, n);
        p += n;
        len -= n;
    }
    return rc;
}

int nvme_copy_in(struct nvme_req *r, void *buf, uint64_t len)
{
    uint8_t *p = buf;
    int rc = nvme_map(r, len);
    for (int i = 0; i < r->niov && !rc; i++) {
        memcpy(p, r->iov[i].iov_base, r->iov[i].iov_len);
        p += r->iov[i].iov_len;
    }
    return rc;
}

/* ---- state ---- */

/* Commands are over, but for the event requests, which are counted when they are taken back. */
int nvme_queues_loaded(struct nvme *n, struct error *e)
{
    for (unsigned i = 0; i < NVME_MAX_QUEUES; i++)
        n->cq[i].sqs = n->cq[i].reserved = 0;
    for (unsigned i = 0; i < NVME_MAX_QUEUES; i++) {
        const struct nvme_sq *s = &n->sq[i];
        const struct nvme_cq *c = &n->cq[i];
        if ((s->live || c->live) && i > n->cfg.queues)
            return error_set(e, ERR_FORMAT, "sq, cq: there is no queue %u", i);
        if (c->live && (c->size < 2 || c->head >= c->size || c->tail >= c->size))
            return error_set(e, ERR_FORMAT, "cq[%u]: has no such entries", i);
        if (!s->live)
            continue;
        if (s->size < 2 || s->head >= s->size || s->tail >= s->size || !n->cq[s->cq].live)
            return error_set(e, ERR_FORMAT, "sq[%u]: has no such entries", i);
        n->cq[s->cq].sqs++;
    }
    return 0;
}

static const struct field sq_fields[] = {
    FIELD(struct nvme_sq, live),
    FIELD_NONE(struct nvme_sq, deleting),
    FIELD_NONE(struct nvme_sq, running),
    FIELD(struct nvme_sq, size, .max = 4096),
    FIELD(struct nvme_sq, head),
    FIELD(struct nvme_sq, tail),
    FIELD(struct nvme_sq, cq, .max = NVME_MAX_QUEUES - 1),
    FIELD(struct nvme_sq, base),
    FIELD_NONE(struct nvme_sq, inflight),
    FIELD_NONE(struct nvme_sq, deleted_by),
    FIELD_NONE(struct nvme_sq, free),
};
const struct field_table nvme_sq_fields = FIELD_TABLE(struct nvme_sq, "nvme_sq", sq_fields);

static const struct field cq_fields[] = {
    FIELD(struct nvme_cq, live),          FIELD(struct nvme_cq, phase),
    FIELD(struct nvme_cq, interrupts),    FIELD(struct nvme_cq, size, .max = 4096),
    FIELD(struct nvme_cq, head),          FIELD(struct nvme_cq, tail),
    FIELD(struct nvme_cq, vector),        FIELD(struct nvme_cq, base),
    FIELD_NONE(struct nvme_cq, reserved), /* of commands in progress */
    FIELD_NONE(struct nvme_cq, sqs),
};
const struct field_table nvme_cq_fields = FIELD_TABLE(struct nvme_cq, "nvme_cq", cq_fields);
