/* nvme_core.h - what the parts of the NVMe controller share: nvme.c (registers), nvme_queue.c
 * (rings and lists of pages), nvme_admin.c, nvme_page.c (identify and log pages), nvme_io.c. */
#ifndef SOSIA_CHIP_NVME_CORE_H
#define SOSIA_CHIP_NVME_CORE_H

#include "chip/nvme.h"

#define NVME_NSID 1u
#define NVME_ALL  0xffffffffu /* of namespaces */

/* Status: type << 8 | code (4.6.1), and "do not retry". WAIT: the end comes later. */
#define NVME_DNR  0x4000
#define NVME_WAIT (-1)
enum {
    SC_OK = 0x000,
    SC_OPCODE = 0x001 | NVME_DNR,
    SC_FIELD = 0x002 | NVME_DNR,
    SC_TRANSFER = 0x004,
    SC_INTERNAL = 0x006,
    SC_NAMESPACE = 0x00b | NVME_DNR,
    SC_SEQUENCE = 0x00c | NVME_DNR,
    SC_PRP_OFFSET = 0x013 | NVME_DNR,
    SC_PROTECTED = 0x020 | NVME_DNR,
    SC_LBA_RANGE = 0x080 | NVME_DNR,
    SC_CAPACITY = 0x081,
    SC_BAD_CQ = 0x100 | NVME_DNR,
    SC_BAD_QUEUE = 0x101 | NVME_DNR,
    SC_BAD_SIZE = 0x102 | NVME_DNR,
    SC_AER_LIMIT = 0x105,
    SC_BAD_VECTOR = 0x108 | NVME_DNR,
    SC_BAD_LOG = 0x109 | NVME_DNR,
    SC_BAD_DELETION = 0x10c | NVME_DNR,
    SC_NOT_SAVEABLE = 0x10d | NVME_DNR,
    SC_NOT_CHANGEABLE = 0x10e | NVME_DNR,
    SC_WRITE_FAULT = 0x280,
    SC_READ_ERROR = 0x281,
};

/* Asynchronous events: a bit of `events` for each type (5.2.1). */
enum { NVME_EVENT_ERROR = 0, NVME_EVENT_NOTICE = 2 };

/* ---- nvme.c ---- */

void nvme_fatal(struct nvme *n, const char *why); /* CSTS.CFS */
void nvme_drained(struct nvme *n);                /* no request is in flight any more */

/* ---- nvme_queue.c ---- */

extern const struct field_table nvme_sq_fields, nvme_cq_fields;
int nvme_queues_loaded(struct nvme *n, struct error *e);

void nvme_sq_start(struct nvme_sq *q, gpa_t base, uint32_t size, unsigned cq);
void nvme_cq_start(struct nvme_cq *q, gpa_t base, uint32_t size, unsigned vector, bool interrupts);
void nvme_queues_stop(struct nvme *n); /* all of them; begins a new life */
void nvme_doorbell(struct nvme *n, unsigned reg, uint32_t val);
void nvme_run_all(struct nvme *n);
/* The end of a command that was taken; the request goes back to its pool. */
void nvme_finish(struct nvme_req *r, int status, uint32_t result);
/* The same for one whose request was in the back end's hands; the queue goes on. */
void nvme_io_finish(struct nvme_req *r, int status);
/* Whether the guest still waits for it. */
bool nvme_live(const struct nvme_req *r);
/* Makes r->iov of the command's pages, for `len` bytes, at most NVME_MAX_TRANSFER. A status. */
int nvme_map(struct nvme_req *r, uint64_t len);
/* Copies to or from the pages of a command that moves `total` bytes; at most `len` of them. */
int nvme_copy_out(struct nvme_req *r, const void *buf, uint64_t len, uint64_t total);
int nvme_copy_in(struct nvme_req *r, void *buf, uint64_t len);

/* ---- nvme_admin.c ---- */

int nvme_admin(struct nvme_req *r, uint32_t *result); /* a status, or NVME_WAIT */
void nvme_event(struct nvme *n, unsigned type);
void nvme_sq_idle(struct nvme *n, unsigned sq); /* a deleted queue's last command has ended */
int nvme_events_loaded(struct nvme *n, struct error *e);
void nvme_admin_reset(struct nvme *n);

/* ---- nvme_page.c ---- */

int nvme_identify(struct nvme_req *r);
int nvme_get_log(struct nvme_req *r);
void nvme_note_error(struct nvme_req *r, int status);

/* ---- nvme_io.c ---- */

uint64_t nvme_blocks(const struct nvme *n);
int nvme_io(struct nvme_req *r); /* a status, or NVME_WAIT */

#endif
