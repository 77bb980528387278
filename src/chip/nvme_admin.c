/* nvme_admin.c - admin commands: queues, features, events. Clauses are NVMe 1.4's. */
#include "chip/nvme_core.h"

#include "base/log.h"

enum {
    A_DELETE_SQ = 0x00,
    A_CREATE_SQ = 0x01,
    A_GET_LOG = 0x02,
    A_DELETE_CQ = 0x04,
    A_CREATE_CQ = 0x05,
    A_IDENTIFY = 0x06,
    A_ABORT = 0x08,
    A_SET_FEATURES = 0x09,
    A_GET_FEATURES = 0x0a,
    A_ASYNC_EVENT = 0x0c,
};

/* Features, 5.21.1. */
enum {
    F_ARBITRATION = 0x01,
    F_POWER = 0x02,
    F_TEMPERATURE = 0x04,
    F_ERROR_RECOVERY = 0x05,
    F_WRITE_CACHE = 0x06,
    F_QUEUES = 0x07,
    F_COALESCING = 0x08,
    F_VECTOR = 0x09,
    F_ATOMICITY = 0x0a,
    F_EVENTS = 0x0b,
};
#define EVENT_NAMESPACE (1u << 8) /* of F_EVENTS */
#define FEATURE_SAVE    (1u << 31)

#define LOG_ERROR_INFO 0x01u
#define LOG_NS_CHANGED 0x04u

static uint16_t low(uint32_t v)
{
    return (uint16_t)v;
}

/* ---- queues, 5.3 to 5.6 ---- */

static bool free_number(const struct nvme *n, unsigned q)
{
    return q >= 1 && q <= n->cfg.queues;
}

static bool good_size(uint32_t size)
{
    return size >= 2 && size <= NVME_QUEUE_SIZE;
}

#define PC 1u /* physically contiguous, of which CAP.CQR makes a duty */

static int create_cq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned q = low(c->dw10), vector = c->dw11 >> 16;
    uint32_t size = (c->dw10 >> 16) + 1;
    if (!free_number(n, q) || n->cq[q].live)
        return SC_BAD_QUEUE;
    if (!good_size(size))
        return SC_BAD_SIZE;
    if (vector > n->cfg.queues)
        return SC_BAD_VECTOR;
    if (!(c->dw11 & PC) || (n->cc >> 20 & 15) != 4) /* entries of 16 bytes */
        return SC_FIELD;
    if (c->prp1 % NVME_PAGE)
        return SC_PRP_OFFSET;
    nvme_cq_start(&n->cq[q], c->prp1, size, vector, c->dw11 & 2);
    return SC_OK;
}

static int create_sq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned q = low(c->dw10), cq = c->dw11 >> 16;
    uint32_t size = (c->dw10 >> 16) + 1;
    if (!free_number(n, q) || n->sq[q].live)
        return SC_BAD_QUEUE;
    if (!free_number(n, cq) || !n->cq[cq].live)
        return SC_BAD_CQ;
    if (!good_size(size))
        return SC_BAD_SIZE;
    if (!(c->dw11 & PC) || (n->cc >> 16 & 15) != 6) /* entries of 64 bytes */
        return SC_FIELD;
    if (c->prp1 % NVME_PAGE)
        return SC_PRP_OFFSET;
    nvme_sq_start(&n->sq[q], c->prp1, size, cq);
    n->cq[cq].sqs++;
    return SC_OK;
}

static int delete_cq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned q = low(c->dw10);
    if (!free_number(n, q) || !n->cq[q].live)
        return SC_BAD_QUEUE;
    if (n->cq[q].sqs)
        return SC_BAD_DELETION;
    n->cq[q].live = false;
    nvme_update_irq(n);
    return SC_OK;
}

/* 5.6: commands in progress end first, so that none writes memory afterwards. */
static int delete_sq(struct nvme_req *r)
{
    struct nvme *n = r->n;
    unsigned q = low(r->cmd.dw10);
    if (!free_number(n, q) || !n->sq[q].live || n->sq[q].deleting)
        return SC_BAD_QUEUE;
    n->sq[q].deleting = true;
    n->sq[q].deleted_by = r;
    if (!n->sq[q].inflight)
        nvme_sq_idle(n, q);
    return NVME_WAIT;
}

void nvme_sq_idle(struct nvme *n, unsigned q)
{
    struct nvme_sq *sq = &n->sq[q];
    struct nvme_req *r = sq->deleted_by;
    sq->live = sq->deleting = false;
    sq->deleted_by = NULL;
    n->cq[sq->cq].sqs--;
    nvme_finish(r, SC_OK, 0);
}

/* ---- features, 5.14 and 5.21 ---- */

static void cache_flushed(struct blk_req *io, int result)
{
    nvme_io_finish(io->arg, result ? SC_WRITE_FAULT : SC_OK);
}

/* Off: what is in the cache goes to the disk before the command ends. */
static int set_write_cache(struct nvme_req *r)
{
    struct nvme *n = r->n;
    n->write_cache = r->cmd.dw11 & 1;
    if (n->write_cache || n->cfg.blk->readonly)
        return SC_OK;
    r->io = (struct blk_req){.op = BLK_FLUSH, .done = cache_flushed, .arg = r};
    blk_submit(n->cfg.blk, &r->io);
    return NVME_WAIT;
}

static uint32_t number_of_queues(const struct nvme *n)
{
    return (n->cfg.queues - 1) | (n->cfg.queues - 1) << 16;
}

static int set_number_of_queues(struct nvme *n, const struct nvme_cmd *c, uint32_t *result)
{
    for (unsigned i = 1; i < NVME_MAX_QUEUES; i++)
        if (n->sq[i].live || n->cq[i].live)
            return SC_SEQUENCE;
    if (low(c->dw11) == 0xffff || c->dw11 >> 16 == 0xffff)
        return SC_FIELD;
    *result = number_of_queues(n);
    return SC_OK;
}

static int set_features(struct nvme_req *r, uint32_t *result)
{
    struct nvme *n = r->n;
    const struct nvme_cmd *c = &r->cmd;
    uint8_t id = (uint8_t)c->dw10;
    if (c->dw10 & FEATURE_SAVE)
        return SC_NOT_SAVEABLE;
    switch (id) {
    case F_WRITE_CACHE:
        return set_write_cache(r);
    case F_QUEUES:
        return set_number_of_queues(n, c, result);
    case F_POWER: /* there is one power state */
        return c->dw11 & 0x1f ? SC_FIELD : SC_OK;
    case F_VECTOR:
        if (low(c->dw11) > n->cfg.queues)
            return SC_FIELD;
        return SC_OK; /* about coalescing, which there is none of */
    case F_EVENTS:
        n->feature[id] = c->dw11;
        nvme_event(n, NVME_EVENT_NOTICE); /* what happened before, if it is wanted now */
        return SC_OK;
    case F_ARBITRATION:
    case F_TEMPERATURE:
    case F_ERROR_RECOVERY:
    case F_COALESCING:
    case F_ATOMICITY:
        n->feature[id] = c->dw11;
        return SC_OK;
    default:
        return SC_FIELD;
    }
}

static int get_features(struct nvme *n, const struct nvme_cmd *c, uint32_t *result)
{
    uint8_t id = (uint8_t)c->dw10;
    switch (id) {
    case F_WRITE_CACHE:
        *result = n->write_cache;
        return SC_OK;
    case F_QUEUES:
        *result = number_of_queues(n);
        return SC_OK;
    case F_POWER:
        return SC_OK;
    case F_VECTOR:
        if (low(c->dw11) > n->cfg.queues)
            return SC_FIELD;
        *result = low(c->dw11) | 1u << 16; /* no coalescing */
        return SC_OK;
    case F_ARBITRATION:
    case F_TEMPERATURE:
    case F_ERROR_RECOVERY:
    case F_COALESCING:
    case F_ATOMICITY:
    case F_EVENTS:
        *result = n->feature[id];
        return SC_OK;
    default:
        return SC_FIELD;
    }
}

/* ---- events, 5.2 ---- */

/* Reports what is due to requests that wait. An event type is not reported again until the guest
 * has read the log page that belongs to it. */
static void report(struct nvme *n)
{
    static const struct {
        unsigned type;
        uint8_t log;
    } types[] = {{NVME_EVENT_ERROR, LOG_ERROR_INFO}, {NVME_EVENT_NOTICE, LOG_NS_CHANGED}};
    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        uint32_t bit = 1u << types[i].type;
        if (!n->naer || !(n->events & bit) || (n->masked & bit))
            continue;
        n->events &= ~bit;
        n->masked |= bit;
        uint8_t info = types[i].type == NVME_EVENT_ERROR ? n->error_info : 0;
        nvme_finish(n->aer[--n->naer], SC_OK,
                    types[i].type | (uint32_t)info << 8 | (uint32_t)types[i].log << 16);
    }
}

void nvme_event(struct nvme *n, unsigned type)
{
    if (type == NVME_EVENT_NOTICE) {
        if (!n->ns_changed || !(n->feature[F_EVENTS] & EVENT_NAMESPACE))
            return;
    } else {
        log_guest("nvme: a doorbell that does not exist, or a value that cannot be");
    }
    n->events |= 1u << type;
    report(n);
}

static int async_event(struct nvme_req *r)
{
    struct nvme *n = r->n;
    if (n->naer == NVME_AERS)
        return SC_AER_LIMIT;
    n->aer[n->naer++] = r;
    report(n);
    return NVME_WAIT;
}

/* 5.14: reading a log clears its event, unless the guest asks to retain it. */
static int get_log(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint8_t log = (uint8_t)r->cmd.dw10;
    int status = nvme_get_log(r);
    if (status || (r->cmd.dw10 & 1u << 15))
        return status;
    if (log == LOG_ERROR_INFO)
        n->masked &= ~(1u << NVME_EVENT_ERROR);
    if (log == LOG_NS_CHANGED)
        n->masked &= ~(1u << NVME_EVENT_NOTICE);
    report(n);
    return status;
}

void nvme_admin_reset(struct nvme *n)
{
    while (n->naer)
        nvme_finish(n->aer[--n->naer], SC_OK, 0); /* of an older life: just given back */
    n->events = n->masked = 0;
    n->ns_changed = false;
    for (unsigned i = 0; i < ARRAY_LEN(n->feature); i++)
        n->feature[i] = 0;
    n->write_cache = true;
}

/* ---- dispatch ---- */

int nvme_admin(struct nvme_req *r, uint32_t *result)
{
    struct nvme *n = r->n;
    const struct nvme_cmd *c = &r->cmd;
    switch (c->opcode) {
    case A_DELETE_SQ:
        return delete_sq(r);
    case A_CREATE_SQ:
        return create_sq(n, c);
    case A_GET_LOG:
        return get_log(r);
    case A_DELETE_CQ:
        return delete_cq(n, c);
    case A_CREATE_CQ:
        return create_cq(n, c);
    case A_IDENTIFY:
        return nvme_identify(r);
    case A_ABORT: /* 5.1: "not aborted"; whatever it was ends by itself */
        *result = 1;
        return SC_OK;
    case A_SET_FEATURES:
        return set_features(r, result);
    case A_GET_FEATURES:
        return get_features(n, c, result);
    case A_ASYNC_EVENT:
        return async_event(r);
    default:
        return SC_OPCODE;
    }
}

/* ---- state ---- */

/* Takes requests for the event requests that wait. */
int nvme_events_loaded(struct nvme *n, struct error *e)
{
    struct nvme_sq *sq = &n->sq[0];
    if (n->naer && !sq->live)
        return error_set(e, ERR_FORMAT, "naer: there is no admin queue");
    for (unsigned i = 0; i < n->naer; i++) {
        struct nvme_req *r = sq->free;
        sq->free = r->next_free;
        r->gen = n->gen;
        r->cmd = (struct nvme_cmd){.opcode = A_ASYNC_EVENT, .cid = n->aer_cid[i]};
        n->aer[i] = r;
    }
    sq->inflight = n->inflight = n->naer;
    n->cq[sq->cq].reserved += n->naer;
    return 0;
}
