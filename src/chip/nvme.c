/* nvme.c - the controller's registers: enabling, disabling, shutting down, interrupts. Clauses are
 * NVMe 1.4's. */
#include "chip/nvme.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "chip/nvme_core.h"

/* Registers, 3.1. */
enum {
    R_CAP = 0x00,
    R_CAP_HIGH = 0x04,
    R_VS = 0x08,
    R_INTMS = 0x0c,
    R_INTMC = 0x10,
    R_CC = 0x14,
    R_CSTS = 0x1c,
    R_AQA = 0x24,
    R_ASQ = 0x28,
    R_ASQ_HIGH = 0x2c,
    R_ACQ = 0x30,
    R_ACQ_HIGH = 0x34,
    R_DOORBELLS = 0x1000,
};

#define CAP_LOW  ((NVME_QUEUE_SIZE - 1) | 1u << 16 | 60u << 24) /* contiguous queues; 30 s */
#define CAP_HIGH (1u << 5) /* NVM commands; pages of 4 KiB; doorbells are 4 bytes apart */
#define VERSION  0x00010400u

#define CC_EN       0x1u
#define CC_MPS_CSS  0x3ff0u /* command set, page size, arbitration: only 0 each */
#define CC_SHN      0xc000u
#define CC_WRITABLE 0x00fffff1u

#define CSTS_RDY       0x1u
#define CSTS_CFS       0x2u
#define CSTS_SHST      0xcu
#define CSTS_SHST_BUSY 0x4u
#define CSTS_SHST_DONE 0x8u

/* ---- interrupts ---- */

/* 7.5.1.1: the line is high while a queue that interrupts holds entries and its vector's bit is not
 * masked. Messages are sent when entries are added. */
void nvme_update_irq(struct nvme *n)
{
    bool level = false;
    for (unsigned i = 0; i < NVME_MAX_QUEUES; i++) {
        const struct nvme_cq *q = &n->cq[i];
        level |= q->live && q->interrupts && q->head != q->tail &&
                 !(q->vector < 32 && (n->intmask >> q->vector & 1));
    }
    pin_set(&n->cfg.irq, level);
}

void nvme_fatal(struct nvme *n, const char *why)
{
    log_guest("nvme: %s; the controller stops until it is reset", why);
    n->csts |= CSTS_CFS;
}

/* ---- life ---- */

static void enable(struct nvme *n)
{
    uint32_t sqs = (n->aqa & 0xfff) + 1, cqs = (n->aqa >> 16 & 0xfff) + 1;
    if ((n->cc & CC_MPS_CSS) || sqs < 2 || cqs < 2) {
        nvme_fatal(n, "enabled with what it does not have");
        return;
    }
    nvme_cq_start(&n->cq[0], n->acq, cqs, 0, true);
    nvme_sq_start(&n->sq[0], n->asq, sqs, 0);
    n->cq[0].sqs = 1;
    n->csts = CSTS_RDY;
}

/* 7.3.2: everything goes but the addresses of the admin queues. */
static void disable(struct nvme *n)
{
    nvme_queues_stop(n);
    nvme_admin_reset(n);
    n->intmask = 0;
    n->disabling = true;
    if (!n->inflight)
        nvme_drained(n);
    nvme_update_irq(n);
}

void nvme_drained(struct nvme *n)
{
    if (!n->disabling)
        return;
    n->disabling = false;
    n->csts = 0;
    if (n->cc & CC_EN)
        enable(n);
}

static void shut_down(struct blk_req *io, int result)
{
    struct nvme *n = io->arg;
    n->flushing = false;
    if ((n->csts & CSTS_SHST) == CSTS_SHST_BUSY)
        n->csts = (n->csts & ~CSTS_SHST) | CSTS_SHST_DONE;
}

/* 7.6.2: what was written is durable when the shutdown is complete. */
static void begin_shutdown(struct nvme *n)
{
    n->csts = (n->csts & ~CSTS_SHST) | CSTS_SHST_BUSY;
    if (n->flushing)
        return;
    n->flushing = true;
    n->shutdown = (struct blk_req){.op = BLK_FLUSH, .done = shut_down, .arg = n};
    blk_submit(n->cfg.blk, &n->shutdown);
}

static void write_cc(struct nvme *n, uint32_t val)
{
    uint32_t was = n->cc;
    n->cc = val & CC_WRITABLE;
    if ((n->cc & CC_SHN) && !(was & CC_SHN))
        begin_shutdown(n);
    if (!(n->cc & CC_SHN) && (was & CC_SHN))
        n->csts &= ~CSTS_SHST;
    if (was & ~n->cc & CC_EN)
        disable(n);
    else if ((n->cc & ~was & CC_EN) && !n->disabling)
        enable(n);
}

void nvme_power_on(struct nvme *n)
{
    n->dma = false;
    n->cc = n->csts = n->aqa = n->intmask = 0;
    n->asq = n->acq = 0;
    n->write_cache = true;
    disable(n);
}

void nvme_set_dma(struct nvme *n, bool on)
{
    n->dma = on;
    if (on)
        nvme_run_all(n);
}

/* ---- registers ---- */

static uint32_t reg_read(const struct nvme *n, unsigned reg)
{
    switch (reg) {
    case R_CAP:
        return CAP_LOW;
    case R_CAP_HIGH:
        return CAP_HIGH;
    case R_VS:
        return VERSION;
    case R_INTMS:
    case R_INTMC:
        return n->intmask;
    case R_CC:
        return n->cc;
    case R_CSTS:
        return n->csts;
    case R_AQA:
        return n->aqa;
    case R_ASQ:
        return (uint32_t)n->asq;
    case R_ASQ_HIGH:
        return (uint32_t)(n->asq >> 32);
    case R_ACQ:
        return (uint32_t)n->acq;
    case R_ACQ_HIGH:
        return (uint32_t)(n->acq >> 32);
    default:
        return 0;
    }
}

static void set_low(uint64_t *addr, uint32_t val)
{
    *addr = (*addr & ~0xffffffffull) | (val & ~(NVME_PAGE - 1));
}

static void set_high(uint64_t *addr, uint32_t val)
{
    *addr = (*addr & 0xffffffff) | (uint64_t)val << 32;
}

static void reg_write(struct nvme *n, unsigned reg, uint32_t val)
{
    switch (reg) {
    case R_INTMS:
        n->intmask |= val;
        nvme_update_irq(n);
        break;
    case R_INTMC:
        n->intmask &= ~val;
        nvme_update_irq(n);
        break;
    case R_CC:
        write_cc(n, val);
        break;
    case R_AQA:
        n->aqa = val & 0x0fff0fff;
        break;
    case R_ASQ:
        set_low(&n->asq, val);
        break;
    case R_ASQ_HIGH:
        set_high(&n->asq, val);
        break;
    case R_ACQ:
        set_low(&n->acq, val);
        break;
    case R_ACQ_HIGH:
        set_high(&n->acq, val);
        break;
    default:
        break;
    }
}

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    return off < R_DOORBELLS ? reg_read(dev, (unsigned)off) : 0;
}

static void bar_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    if (off < R_DOORBELLS)
        reg_write(dev, (unsigned)off, (uint32_t)val);
    else
        nvme_doorbell(dev, (unsigned)(off - R_DOORBELLS) / 4, (uint32_t)val);
}

const struct io_ops nvme_ops = {"nvme", 4, bar_read, bar_write};

/* ---- set-up ---- */

/* 5.2.1.2: the guest reads the new size when it hears that something about the namespace changed.
 */
static void resized(void *ctx)
{
    struct nvme *n = ctx;
    n->ns_changed = true;
    nvme_event(n, NVME_EVENT_NOTICE);
}

int nvme_init(struct nvme *n, struct space *mem, const struct nvme_config *cfg, struct error *e)
{
    *n = (struct nvme){.cfg = *cfg, .mem = mem};
    snprintf(n->serial, sizeof n->serial, "%s", cfg->serial);
    unsigned queues = cfg->queues + 1;
    n->pool = calloc((size_t)queues * NVME_POOL, sizeof *n->pool);
    if (!n->pool)
        return error_set(e, ERR_NOMEM, "nvme: out of memory");
    for (unsigned i = 0; i < queues * NVME_POOL; i++) {
        struct nvme_req *r = &n->pool[i];
        r->n = n;
        r->sq = i / NVME_POOL;
        r->next_free = n->sq[r->sq].free;
        n->sq[r->sq].free = r;
    }
    cfg->blk->resized = resized;
    cfg->blk->ctx = n;
    nvme_power_on(n);
    return 0;
}

void nvme_fini(struct nvme *n)
{
    if (!n->pool)
        return;
    for (unsigned i = 0; i < (n->cfg.queues + 1) * NVME_POOL; i++)
        free(n->pool[i].ranges);
    free(n->pool);
    n->pool = NULL;
}

/* ---- state ---- */

static void pre_save(void *dev)
{
    struct nvme *n = dev;
    for (unsigned i = 0; i < NVME_AERS; i++)
        n->aer_cid[i] = i < n->naer ? n->aer[i]->cmd.cid : 0;
}

/* The controller is new: all requests are in their pools. */
static int post_load(void *dev, struct error *e)
{
    struct nvme *n = dev;
    if (n->inflight)
        return error_set(e, ERR_STATE, "the controller is in use");
    int rc = nvme_queues_loaded(n, e);
    return rc ? rc : nvme_events_loaded(n, e);
}

static const struct field error_fields[] = {
    FIELD(struct nvme_error, count),  FIELD(struct nvme_error, sq),  FIELD(struct nvme_error, cid),
    FIELD(struct nvme_error, status), FIELD(struct nvme_error, lba), FIELD(struct nvme_error, nsid),
};
static const struct field_table error_table =
    FIELD_TABLE(struct nvme_error, "nvme_error", error_fields);

static const struct field fields[] = {
    FIELD_NONE(struct nvme, cfg),
    FIELD_NONE(struct nvme, mem),
    FIELD_NONE(struct nvme, serial),
    FIELD_NONE(struct nvme, dma), /* of the bus: nvme_pci.c */
    FIELD_NONE(struct nvme, gen),
    FIELD_NONE(struct nvme, inflight),
    FIELD_NONE(struct nvme, disabling),
    FIELD_NONE(struct nvme, flushing),
    FIELD(struct nvme, cc, .max = CC_WRITABLE),
    FIELD(struct nvme, csts),
    FIELD(struct nvme, aqa, .max = 0x0fff0fff),
    FIELD(struct nvme, intmask),
    FIELD(struct nvme, asq),
    FIELD(struct nvme, acq),
    FIELD_STRUCTS(struct nvme, sq, nvme_sq_fields),
    FIELD_STRUCTS(struct nvme, cq, nvme_cq_fields),
    FIELD_NONE(struct nvme, pool),
    FIELD_NONE(struct nvme, shutdown),
    FIELD(struct nvme, write_cache),
    FIELD_ARRAY(struct nvme, feature),
    FIELD_NONE(struct nvme, aer),
    FIELD(struct nvme, naer, .max = NVME_AERS),
    FIELD_ARRAY(struct nvme, aer_cid),
    FIELD(struct nvme, events),
    FIELD(struct nvme, masked),
    FIELD(struct nvme, error_info),
    FIELD(struct nvme, ns_changed),
    FIELD_STRUCTS(struct nvme, error, error_table),
    FIELD(struct nvme, errors),
    FIELD(struct nvme, reads),
    FIELD(struct nvme, writes),
    FIELD(struct nvme, read_bytes),
    FIELD(struct nvme, written_bytes),
};
const struct field_table nvme_fields =
    FIELD_TABLE(struct nvme, "nvme", fields, .pre_save = pre_save, .post_load = post_load);
