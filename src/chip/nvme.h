/*
 * nvme.h - an NVM Express controller with one namespace. Pure core. Source: NVM Express Base
 * Specification 1.4 (clauses without a name are its).
 *
 * A submission queue (SQ) is a ring of commands in the guest's memory, a completion queue (CQ) one
 * of their ends; both begin with their first entry, and a doorbell register says how far the guest
 * is. Everything the guest wrote is read once, into a local, and checked before use: doorbells
 * against their queue, queue numbers, lists of pages (PRPs), of which a command has as many as its
 * length needs and no more than NVME_MAX_TRANSFER allows.
 *
 * Invariants:
 *  1. A command is taken from its SQ only if a request is free and the CQ has room for its end: a
 * CQ never overflows. `reserved` counts the commands whose end is still due.
 *  2. A request belongs to the life of the controller in which it was taken (`gen`); the end of an
 *     older one goes nowhere.
 *  3. Requests in flight write the guest's memory, so CSTS.RDY stays 1 after CC.EN was cleared
 * until the last one is back, and deleting an SQ waits for its own.
 */
#ifndef SOSIA_CHIP_NVME_H
#define SOSIA_CHIP_NVME_H

#include "base/field.h"
#include "block/block.h"
#include "chip/pin.h"
#include "mem/space.h"

#define NVME_MAX_QUEUES   9 /* the admin queue, and a pair for each of 8 vCPUs */
#define NVME_QUEUE_SIZE   1024u
#define NVME_POOL         64 /* commands in progress on each queue */
#define NVME_PAGE         4096u
#define NVME_MDTS         7 /* largest transfer: 2^7 pages */
#define NVME_MAX_TRANSFER (NVME_PAGE << NVME_MDTS)
#define NVME_PIECES       ((1u << NVME_MDTS) + 2)
#define NVME_AERS         4 /* asynchronous event requests that may wait */
#define NVME_ERRORS       4 /* entries of the error log */
#define NVME_BAR_LEN      0x4000u

/* A command, as read (4.2). */
struct nvme_cmd {
    uint8_t opcode, flags;
    uint16_t cid;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13;
};

struct nvme_req {
    struct nvme *n;
    unsigned sq;
    uint32_t gen;
    struct nvme_cmd cmd;
    struct blk_req io;
    uint8_t *ranges; /* Dataset Management: what is left to discard */
    unsigned next_range, nranges;
    int niov;
    struct iovec iov[NVME_PIECES];
    struct nvme_req *next_free;
};

struct nvme_sq {
    bool live, deleting;
    bool running; /* commands are being taken */
    uint16_t size, head, tail, cq;
    gpa_t base;
    unsigned inflight;
    struct nvme_req *deleted_by; /* the admin command that waits for inflight == 0 */
    struct nvme_req *free;
};

struct nvme_cq {
    bool live, phase, interrupts;
    uint16_t size, head, tail, vector;
    gpa_t base;
    unsigned reserved, sqs;
};

/* 5.14.1.1 */
struct nvme_error {
    uint64_t count;
    uint16_t sq, cid, status;
    uint64_t lba;
    uint32_t nsid;
};

struct nvme_config {
    struct blk *blk;     /* stays the caller's; `resized` and `ctx` become the controller's */
    const char *serial;  /* up to 20 characters */
    unsigned queues;     /* pairs of I/O queues, 1 to NVME_MAX_QUEUES - 1 */
    uint32_t block_size; /* 512 or 4096 */
    struct pin irq;      /* the interrupt line */
    /* A message for a vector; false: messages are switched off, the line is used. */
    bool (*message)(void *ctx, unsigned vector);
    void *ctx;
};

struct nvme {
    struct nvme_config cfg;
    struct space *mem;
    char serial[21];
    bool dma;
    uint32_t gen;
    unsigned inflight; /* requests out of their pools, of any life */
    bool disabling, flushing;
    uint32_t cc, csts, aqa, intmask;
    uint64_t asq, acq;
    struct nvme_sq sq[NVME_MAX_QUEUES];
    struct nvme_cq cq[NVME_MAX_QUEUES];
    struct nvme_req *pool;
    struct blk_req shutdown;

    bool write_cache;
    uint32_t feature[16]; /* those that are only stored */
    struct nvme_req *aer[NVME_AERS];
    unsigned naer;
    uint16_t aer_cid[NVME_AERS]; /* their commands, while the state is saved and loaded */
    uint32_t events, masked;     /* due; reported, and their log not read yet */
    uint8_t error_info;          /* of an error event */
    bool ns_changed;             /* since the guest read the log that says so */
    struct nvme_error error[NVME_ERRORS];
    uint64_t errors;
    uint64_t reads, writes, read_bytes, written_bytes;
};

/* ERR_NOMEM. */
int nvme_init(struct nvme *n, struct space *mem, const struct nvme_config *cfg, struct error *e);
extern const struct field_table nvme_fields;
void nvme_fini(struct nvme *n); /* after blk_close() */
void nvme_power_on(struct nvme *n);
/* Bus mastering, or the kind of interrupts, was switched. */
void nvme_set_dma(struct nvme *n, bool on);
void nvme_update_irq(struct nvme *n);

extern const struct io_ops nvme_ops; /* NVME_BAR_LEN bytes; dev: the controller */

#endif
