/* nvme_io.c - commands on the namespace: NVM Command Set, NVMe 1.4, chapter 6. */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/endian.h"
#include "chip/nvme_core.h"

enum {
    IO_FLUSH = 0x00,
    IO_WRITE = 0x01,
    IO_READ = 0x02,
    IO_WRITE_ZEROES = 0x08,
    IO_DATASET = 0x09,
};

#define DW12_DEAC  (1u << 25) /* Write Zeroes may deallocate */
#define DW12_FUA   (1u << 30)
#define DATASET_AD (1u << 2) /* of dw11: deallocate; the other attributes are hints */
#define RANGE_LEN  16u

uint64_t nvme_blocks(const struct nvme *n)
{
    return n->cfg.blk->size / n->cfg.block_size;
}

static int status_of(const struct blk_req *io, int result)
{
    switch (result) {
    case 0:
        return SC_OK;
    case -ENOSPC:
    case -EDQUOT:
        return SC_CAPACITY;
    case -EROFS:
        return SC_PROTECTED;
    default:
        return io->op == BLK_READ ? SC_READ_ERROR : SC_WRITE_FAULT;
    }
}

static void io_done(struct blk_req *io, int result)
{
    struct nvme_req *r = io->arg;
    if (io->op == BLK_READ)
        for (int i = 0; i < r->niov; i++)
            dma_wrote(r->n->mem, r->iov[i].iov_base, r->iov[i].iov_len);
    nvme_io_finish(r, status_of(io, result));
}

static int submit(struct nvme_req *r, enum blk_op op, uint64_t offset, uint64_t len)
{
    r->io = (struct blk_req){.op = op, .offset = offset, .len = len, .done = io_done, .arg = r};
    if (op == BLK_READ || op == BLK_WRITE) {
        r->io.iov = r->iov;
        r->io.niov = r->niov;
    }
    r->io.no_unmap = op == BLK_WRITE_ZEROES && !(r->cmd.dw12 & DW12_DEAC);
    if (op == BLK_WRITE || op == BLK_WRITE_ZEROES)
        r->io.fua = !r->n->write_cache || (r->cmd.dw12 & DW12_FUA);
    blk_submit(r->n->cfg.blk, &r->io);
    return NVME_WAIT;
}

/* The range of Read, Write and Write Zeroes (6.9), in bytes. */
static int decode_range(const struct nvme_req *r, uint64_t *offset, uint64_t *len)
{
    const struct nvme *n = r->n;
    uint64_t lba = r->cmd.dw10 | (uint64_t)r->cmd.dw11 << 32;
    uint64_t count = (r->cmd.dw12 & 0xffff) + 1ull;
    if (!range_within(lba, count, nvme_blocks(n)))
        return SC_LBA_RANGE;
    *offset = lba * n->cfg.block_size;
    *len = count * n->cfg.block_size;
    return SC_OK;
}

static int transfer(struct nvme_req *r, bool write)
{
    struct nvme *n = r->n;
    uint64_t offset, len;
    if (write && n->cfg.blk->readonly)
        return SC_PROTECTED;
    int rc = decode_range(r, &offset, &len);
    if (!rc)
        rc = nvme_map(r, len);
    if (rc)
        return rc;
    *(write ? &n->writes : &n->reads) += 1;
    *(write ? &n->written_bytes : &n->read_bytes) += len;
    return submit(r, write ? BLK_WRITE : BLK_READ, offset, len);
}

static int write_zeroes(struct nvme_req *r)
{
    uint64_t offset, len;
    if (r->n->cfg.blk->readonly)
        return SC_PROTECTED;
    int rc = decode_range(r, &offset, &len);
    return rc ? rc : submit(r, BLK_WRITE_ZEROES, offset, len);
}

/* ---- Dataset Management, 6.7 ---- */

static bool range_at(const struct nvme_req *r, unsigned i, uint64_t *lba, uint32_t *count)
{
    const uint8_t *p = r->ranges + (size_t)i * RANGE_LEN;
    *count = load_le32(p + 4);
    *lba = load_le64(p + 8);
    return range_within(*lba, *count, nvme_blocks(r->n));
}

/* The next range that is not empty: false if there is none. They have been checked, but the disk
 * may have become smaller: what it lost needs no discarding. */
static bool next_range(struct nvme_req *r, uint64_t *lba, uint32_t *count)
{
    while (r->next_range < r->nranges)
        if (range_at(r, r->next_range++, lba, count) && *count)
            return true;
    return false;
}

static void discarded(struct blk_req *io, int result)
{
    struct nvme_req *r = io->arg;
    uint64_t lba, size = r->n->cfg.block_size;
    uint32_t count;
    if (result || !nvme_live(r) || !next_range(r, &lba, &count)) {
        nvme_io_finish(r, status_of(io, result));
        return;
    }
    io->offset = lba * size;
    io->len = count * size;
    blk_submit(r->n->cfg.blk, io);
}

static int dataset(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint64_t lba, size = n->cfg.block_size;
    uint32_t count;
    if (!(r->cmd.dw11 & DATASET_AD))
        return SC_OK;
    if (n->cfg.blk->readonly)
        return SC_PROTECTED;
    r->nranges = (r->cmd.dw10 & 0xff) + 1;
    r->next_range = 0;
    r->ranges = malloc((size_t)r->nranges * RANGE_LEN);
    if (!r->ranges)
        return SC_INTERNAL;
    int rc = nvme_copy_in(r, r->ranges, (uint64_t)r->nranges * RANGE_LEN);
    for (unsigned i = 0; i < r->nranges && !rc; i++)
        if (!range_at(r, i, &lba, &count))
            rc = SC_LBA_RANGE;
    if (rc || !next_range(r, &lba, &count))
        return rc;
    r->io = (struct blk_req){
        .op = BLK_DISCARD, .offset = lba * size, .len = count * size, .done = discarded, .arg = r};
    blk_submit(n->cfg.blk, &r->io);
    return NVME_WAIT;
}

/* ---- dispatch ---- */

int nvme_io(struct nvme_req *r)
{
    uint32_t nsid = r->cmd.nsid;
    if (nsid != NVME_NSID && !(nsid == NVME_ALL && r->cmd.opcode == IO_FLUSH))
        return SC_NAMESPACE;
    switch (r->cmd.opcode) {
    case IO_FLUSH:
        return submit(r, BLK_FLUSH, 0, 0);
    case IO_WRITE:
    case IO_READ:
        return transfer(r, r->cmd.opcode == IO_WRITE);
    case IO_WRITE_ZEROES:
        return write_zeroes(r);
    case IO_DATASET:
        return dataset(r);
    default:
        return SC_OPCODE;
    }
}
