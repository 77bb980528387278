/*
 * ahci_ncq.c - READ and WRITE FPDMA QUEUED: each command is a request of its own on the guest's
 * memory. Sources: AHCI 1.3.1, 5.6.4; Serial ATA 3.0, 13.6; ACS-3.
 *
 * A list of more than AHCI_PIECES pieces takes several requests, one after the other. The drive
 * accepts a command by clearing BSY, which clears its bit in PxCI, and reports its end with a frame
 * that clears the bit in PxSACT.
 *
 * A command that fails stops the port: the drive aborts all others, which the guest learns from
 * PxSACT, and says in a log which one it was.
 */
#include "base/checked.h"
#include "chip/ahci_core.h"
#include "chip/ide_core.h"

static void proceed(struct ahci_ncq *c);

bool ahci_ncq_busy(const struct ahci_port *p, unsigned slot)
{
    return p->ncq && p->ncq[slot].busy;
}

void ahci_ncq_cancel(struct ahci_port *p)
{
    for (unsigned i = 0; p->ncq && i < AHCI_SLOTS; i++)
        p->ncq[i].stale = p->ncq[i].busy;
}

/* ---- the end ---- */

static void succeed(struct ahci_ncq *c)
{
    struct ahci_port *p = c->port;
    p->sact &= ~(1u << c->slot);
    p->ide.drive[0].status = ST_DRDY | ST_DSC;
    ahci_write_count(p, c->slot, c->list.moved);
    ahci_post_device_bits(p, 1u << c->slot);
}

static void fail(struct ahci_ncq *c, uint8_t error)
{
    struct ahci_port *p = c->port;
    const struct ata_queued q = {.tag = c->slot, .offset = c->offset, .len = c->len};
    ata_queued_failed(&p->ide.drive[0], &q, error);
    ahci_post_device_bits(p, 0);
    ahci_port_fatal(p, IS_TFES);
}

static void io_done(struct blk_req *io, int result)
{
    struct ahci_ncq *c = io->arg;
    struct ahci_port *p = c->port;
    if (io->op == BLK_READ)
        for (int i = 0; i < io->niov; i++)
            dma_wrote(p->hba->mem, io->iov[i].iov_base, io->iov[i].iov_len);
    c->busy = false;
    p->inflight--;
    if (c->stale || p->stalled) {
        c->stale = false;
    } else if (result < 0) {
        fail(c, c->write ? ER_ABRT : ER_UNC);
    } else {
        c->offset += io->len;
        c->len -= io->len;
        proceed(c);
    }
    if (!p->inflight)
        ahci_drained(p->hba);
    ahci_port_run(p);
}

/* ---- the data ---- */

/* Makes pieces of host memory of the list's next entries, for at most `max` bytes. Returns how many
 * bytes, or -1: not memory. */
static int64_t gather(struct ahci_ncq *c, uint64_t max, int *niov)
{
    struct ahci_list *l = &c->list;
    uint64_t sum = 0;
    *niov = 0;
    while (sum < max && *niov < AHCI_PIECES) {
        if (!l->count) {
            int rc = ahci_list_next(c->port, l);
            if (rc < 0)
                return -1;
            if (!rc)
                break;
        }
        uint64_t n = min_u64(l->count, max - sum);
        void *host = dma_map(c->port->hba->mem, l->addr, &n);
        if (!host)
            return -1;
        c->iov[(*niov)++] = (struct iovec){host, n};
        l->addr += n;
        l->count -= (uint32_t)n;
        sum += n;
    }
    return (int64_t)sum;
}

/* Takes only `keep` bytes, whole sectors, of what was gathered since `before`. The entries are read
 * again, and what the first reading said is forgotten: the guest may show another list by then, but
 * only one that is checked like any other. */
static void step_back(struct ahci_ncq *c, const struct ahci_list *before, uint64_t keep, int *niov)
{
    uint64_t sum = 0;
    c->list = *before;
    gather(c, keep, niov);
    for (int i = 0; i < *niov; i++)
        sum += c->iov[i].iov_len;
    c->io.len = sum;
}

/* Submits as much as one request takes, or ends the command. */
static void proceed(struct ahci_ncq *c)
{
    struct ahci_port *p = c->port;
    struct ahci_list before = c->list;
    int niov;
    if (!c->len) {
        succeed(c);
        return;
    }
    int64_t n = gather(c, c->len, &niov);
    c->io = (struct blk_req){.op = c->write ? BLK_WRITE : BLK_READ,
                             .offset = c->offset,
                             .len = n < 0 ? 0 : (uint64_t)n,
                             .fua = c->fua,
                             .done = io_done,
                             .arg = c};
    if (n > 0 && n % IDE_SECTOR && (uint64_t)n < c->len)
        step_back(c, &before, (uint64_t)n - (uint64_t)n % IDE_SECTOR, &niov);
    if (n < 0) {
        ahci_port_fatal(p, IS_HBFS);
        return;
    }
    if (!c->io.len || c->io.len % IDE_SECTOR) { /* the list is too short */
        p->is |= IS_OFS;
        fail(c, ER_ABRT);
        return;
    }
    c->list.moved += (uint32_t)c->io.len;
    c->io.iov = c->iov;
    c->io.niov = niov;
    c->busy = true;
    p->inflight++;
    blk_submit(p->ide.drive[0].blk, &c->io);
}

void ahci_ncq_start(struct ahci_port *p, unsigned slot, uint8_t cmd,
                    const struct ahci_command *cmdh)
{
    struct ide_drive *d = &p->ide.drive[0];
    struct ahci_ncq *c = &p->ncq[slot];
    struct ata_queued q;
    uint8_t error = ata_decode_queued(d, cmd, &q);
    p->ci &= ~(1u << slot);
    c->write = q.write;
    c->fua = q.fua;
    c->offset = q.offset;
    c->len = q.len;
    c->list = (struct ahci_list){.table = cmdh->table, .entries = cmdh->prdtl};
    if (q.tag != slot || !(p->sact & (1u << slot))) /* 5.6.4: software's duty */
        error = ER_ABRT;
    d->status = ST_DRDY | ST_DSC;
    d->error = 0;
    ahci_post_registers(p, false);
    if (error)
        fail(c, error);
    else
        proceed(c);
}
