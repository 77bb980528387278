/*
 * ahci_port.c - a port of the AHCI controller: its registers, and the way of a command from the
 * list through the drive. Clauses are AHCI 1.3.1's.
 */
#include <string.h>

#include "chip/ahci_core.h"
#include "chip/ide_core.h"

/* Registers, 3.3. */
enum {
    PX_CLB = 0x00,
    PX_CLBU = 0x04,
    PX_FB = 0x08,
    PX_FBU = 0x0c,
    PX_IS = 0x10,
    PX_IE = 0x14,
    PX_CMD = 0x18,
    PX_TFD = 0x20,
    PX_SIG = 0x24,
    PX_SSTS = 0x28,
    PX_SCTL = 0x2c,
    PX_SERR = 0x30,
    PX_SACT = 0x34,
    PX_CI = 0x38,
};

#define IS_CLEARABLE 0xfdc000afu /* 3.3.5: PCS and PRCS follow PxSERR */
#define IE_BITS      0xfdc000ffu
#define CMD_WRITABLE ((uint32_t)(CMD_ST | CMD_FRE | CMD_ATAPI))
#define SERR_DIAG_X  (1u << 26) /* a device was exchanged: here, reset */
#define SSTS_LINK    0x133u     /* device there, third generation, active */
#define SSTS_OFFLINE 0x004u
#define TFD_NOBODY   0x7fu

#define FIS_COMMAND 0x27u /* register frame, host to device */
#define FIS_C       0x80u /* in its byte 1: a command, not the control register */
#define CTL_BYTE    15

static bool present(const struct ahci_port *p)
{
    return p->ide.drive[0].kind != IDE_NONE;
}

/* ---- events ---- */

void ahci_port_event(struct ahci_port *p, uint32_t is)
{
    p->is |= is;
    ahci_update_irq(p->hba);
}

void ahci_port_fatal(struct ahci_port *p, uint32_t is)
{
    p->stalled = true;
    ahci_port_event(p, is);
}

/* ---- commands ---- */

static bool carry(struct ahci_port *p, uint8_t *buf, uint32_t n, bool to_guest)
{
    struct ahci_list *l = &p->list;
    struct space *mem = p->hba->mem;
    bool ok = to_guest ? dma_write(mem, l->addr, buf, n) : dma_read(mem, l->addr, buf, n);
    l->addr += n;
    l->count -= n;
    l->moved += n;
    return ok;
}

/* ide_dma.move: the packet from the command table, all else by the scatter list. */
static size_t move(void *ctx, uint8_t *buf, size_t n, bool to_guest)
{
    struct ahci_port *p = ctx;
    size_t done = 0;
    if (!p->hba->dma) {
        ahci_port_event(p, IS_HBFS);
        return 0;
    }
    if (p->packet) {
        p->packet = false;
        return dma_read(p->hba->mem, p->table + 0x40, buf, n) ? n : 0;
    }
    while (done < n) {
        int rc = p->list.count ? 1 : ahci_list_next(p, &p->list);
        if (rc <= 0) {
            ahci_port_event(p, rc < 0 ? IS_HBFS : IS_OFS);
            break;
        }
        uint32_t part = (uint32_t)min_u64(n - done, p->list.count);
        if (!carry(p, buf + done, part, to_guest)) {
            ahci_port_event(p, IS_HBFS);
            break;
        }
        done += part;
    }
    return done;
}

/* ide_link.ended */
static void ended(void *ctx, bool told)
{
    struct ahci_port *p = ctx;
    const struct ide_drive *d = &p->ide.drive[0];
    if (p->slot < 0)
        return;
    unsigned slot = (unsigned)p->slot;
    p->slot = -1;
    ahci_write_count(p, slot, p->list.moved);
    bool error = d->status & ST_ERR;
    if (!error)
        p->ci &= ~(1u << slot);
    if (told || error)
        ahci_post_registers(p, true);
    else
        ahci_post_pio_setup(p, p->list.moved);
    if (error) /* the command keeps its bit (6.2.2.1) */
        ahci_port_fatal(p, IS_TFES);
    ahci_port_run(p);
}

static void load_registers(struct ide_drive *d, const uint8_t *fis)
{
    static const struct {
        uint8_t reg, now, before; /* where the frame has the register, 0: nowhere */
    } map[] = {{IDE_FEATURE, 3, 11}, {IDE_COUNT, 12, 13}, {IDE_LBA0, 4, 8},
               {IDE_LBA1, 5, 9},     {IDE_LBA2, 6, 10},   {IDE_DEVICE, 7, 0}};
    for (unsigned i = 0; i < ARRAY_LEN(map); i++) {
        d->reg[map[i].reg][0] = fis[map[i].now];
        d->reg[map[i].reg][1] = map[i].before ? fis[map[i].before] : 0;
    }
}

/* A frame for the control register (Serial ATA 3.0, 11.4): software reset is what it can do. */
static void control_frame(struct ahci_port *p, unsigned slot, const uint8_t *fis)
{
    bool srst = fis[CTL_BYTE] & CTL_SRST, was = p->srst;
    p->srst = srst;
    p->ci &= ~(1u << slot);
    if (srst || was) {
        ahci_ncq_cancel(p);
        ide_cancel(&p->ide);
        ide_drive_reset(&p->ide.drive[0]);
    }
    if (was && !srst)
        ahci_post_registers(p, false);
}

static void begin(struct ahci_port *p, unsigned slot)
{
    struct ahci_command c;
    struct ide_drive *d = &p->ide.drive[0];
    p->last = (uint8_t)slot;
    if (!ahci_read_command(p, slot, &c)) {
        ahci_port_fatal(p, IS_HBFS);
        return;
    }
    if (c.fis[0] != FIS_COMMAND) {
        ahci_port_fatal(p, IS_IFS);
        return;
    }
    if (!(c.fis[1] & FIS_C)) {
        control_frame(p, slot, c.fis);
        return;
    }
    load_registers(d, c.fis);
    uint8_t cmd = c.fis[2];
    if (p->ncq && (cmd == 0x60 || cmd == 0x61)) {
        ahci_ncq_start(p, slot, cmd, &c);
        return;
    }
    p->slot = (int)slot;
    p->table = c.table;
    p->packet = c.atapi && cmd == 0xa0;
    p->list = (struct ahci_list){.table = c.table, .entries = c.prdtl};
    p->ide.dma_ready = true;
    ide_command(&p->ide, cmd);
}

/* Commands that may begin now. A slot whose former request is still in flight has to wait. */
static uint32_t waiting(const struct ahci_port *p)
{
    uint32_t set = p->ci;
    if (!p->hba->dma || !(p->cmd & CMD_ST) || !present(p) || p->offline || p->stalled ||
        p->slot >= 0 || (p->ide.drive[0].status & (ST_BSY | ST_DRQ)))
        return 0;
    for (unsigned i = 0; i < AHCI_SLOTS; i++)
        if (ahci_ncq_busy(p, i))
            set &= ~(1u << i);
    return set;
}

/* In the order of the slots, beginning behind the last one (5.3.2.3). Each turn takes a command's
 * bit out of PxCI, hands the drive to it or stalls the port. */
static void take(struct ahci_port *p)
{
    uint32_t set;
    while ((set = waiting(p))) {
        unsigned slot = (p->last + 1u) % AHCI_SLOTS;
        while (!(set & (1u << slot)))
            slot = (slot + 1) % AHCI_SLOTS;
        begin(p, slot);
    }
}

/* Requests go to the back end together, which may end some at once. */
void ahci_port_run(struct ahci_port *p)
{
    struct blk *blk = p->ide.drive[0].blk;
    if (p->running)
        return;
    p->running = true;
    while (waiting(p)) {
        if (blk)
            blk_begin(blk);
        take(p);
        if (blk)
            blk_end(blk);
    }
    p->running = false;
}

/* ---- start, stop, resets ---- */

/* PxCMD.ST is cleared (3.3.7, 10.1.2): no command is left. What the drive was at is over, too. */
static void stop(struct ahci_port *p)
{
    p->ci = p->sact = 0;
    p->slot = -1;
    ahci_ncq_cancel(p);
    if (p->ide.active)
        ide_cancel(&p->ide);
}

static void write_cmd(struct ahci_port *p, uint32_t val)
{
    uint32_t was = p->cmd;
    p->cmd = val & CMD_WRITABLE;
    if (!(val & CMD_FRE))
        p->cmd &= ~(uint32_t)CMD_ST; /* 10.3.1: frames must be received first */
    if (was & ~p->cmd & CMD_ST)
        stop(p);
    if ((val & CMD_CLO) && !(p->cmd & CMD_ST)) { /* done at once, so it reads as 0 */
        ide_cancel(&p->ide);
        p->ide.drive[0].status &= (uint8_t) ~(ST_BSY | ST_DRQ);
    }
    if (p->cmd & ~was & CMD_ST) {
        p->stalled = false;
        p->last = AHCI_SLOTS - 1;
        ahci_port_run(p);
    }
}

/* The link is reset while DET is 1 and taken down while it is 4 (3.3.11); back at 0 the device
 * answers as after power-on. */
static void write_sctl(struct ahci_port *p, uint32_t val)
{
    uint32_t was = p->sctl & 0xf;
    p->sctl = val & 0xfff;
    uint32_t det = p->sctl & 0xf;
    if (!present(p) || det == was)
        return;
    if (det == 1 || det == 4) {
        p->offline = true;
        p->slot = -1;
        p->srst = false;
        ahci_ncq_cancel(p);
        ide_reset(&p->ide);
        p->ide.drive[0].status = ST_BSY;
    } else if (!p->inflight) {
        ahci_port_ready(p);
    }
}

void ahci_port_ready(struct ahci_port *p)
{
    uint32_t det = p->sctl & 0xf;
    if (!p->offline || det == 1 || det == 4 || !present(p))
        return;
    p->offline = false;
    ide_reset(&p->ide);
    ide_drive_reset(&p->ide.drive[0]);
    p->serr |= SERR_DIAG_X;
    ahci_post_registers(p, false);
    ahci_update_irq(p->hba);
    ahci_port_run(p);
}

void ahci_port_reset(struct ahci_port *p)
{
    stop(p);
    p->clb = p->fb = 0;
    p->is = p->ie = p->cmd = p->sctl = p->serr = 0;
    p->last = 0;
    p->stalled = p->srst = false;
    p->offline = true;
    ide_reset(&p->ide);
}

/* ---- registers ---- */

static uint32_t read_cmd(const struct ahci_port *p)
{
    uint32_t v = p->cmd | CMD_SUD | CMD_POD | (uint32_t)p->last << 8;
    if (!(p->cmd & CMD_ST))
        v &= ~0x1f00u; /* CCS is valid while it is set */
    if (p->cmd & CMD_FRE)
        v |= CMD_FR;
    if ((p->cmd & CMD_ST) || p->inflight)
        v |= CMD_CR;
    return v;
}

static uint32_t read_tfd(const struct ahci_port *p)
{
    const struct ide_drive *d = &p->ide.drive[0];
    if (!present(p))
        return TFD_NOBODY;
    if (p->offline)
        return ST_BSY;
    return d->status | (uint32_t)d->error << 8;
}

static uint32_t read_sig(const struct ahci_port *p)
{
    if (!present(p) || p->offline)
        return 0xffffffff;
    return p->ide.drive[0].kind == IDE_CDROM ? 0xeb140101 : 0x00000101;
}

static uint32_t read_ssts(const struct ahci_port *p)
{
    uint32_t det = p->sctl & 0xf;
    if (det == 4)
        return SSTS_OFFLINE;
    return present(p) && det != 1 ? SSTS_LINK : 0;
}

uint32_t ahci_port_read(struct ahci_port *p, unsigned reg)
{
    switch (reg) {
    case PX_CLB:
        return (uint32_t)p->clb;
    case PX_CLBU:
        return (uint32_t)(p->clb >> 32);
    case PX_FB:
        return (uint32_t)p->fb;
    case PX_FBU:
        return (uint32_t)(p->fb >> 32);
    case PX_IS:
        return p->is | (p->serr & SERR_DIAG_X ? IS_PCS : 0);
    case PX_IE:
        return p->ie;
    case PX_CMD:
        return read_cmd(p);
    case PX_TFD:
        return read_tfd(p);
    case PX_SIG:
        return read_sig(p);
    case PX_SSTS:
        return read_ssts(p);
    case PX_SCTL:
        return p->sctl;
    case PX_SERR:
        return p->serr;
    case PX_SACT:
        return p->sact;
    case PX_CI:
        return p->ci;
    default:
        return 0;
    }
}

static gpa_t with_low(gpa_t addr, uint32_t val)
{
    return (addr & ~0xffffffffull) | val;
}

static gpa_t with_high(gpa_t addr, uint32_t val)
{
    return (addr & 0xffffffff) | (gpa_t)val << 32;
}

void ahci_port_write(struct ahci_port *p, unsigned reg, uint32_t val)
{
    switch (reg) {
    case PX_CLB:
        p->clb = with_low(p->clb, val & ~0x3ffu);
        break;
    case PX_CLBU:
        p->clb = with_high(p->clb, val);
        break;
    case PX_FB:
        p->fb = with_low(p->fb, val & ~0xffu);
        break;
    case PX_FBU:
        p->fb = with_high(p->fb, val);
        break;
    case PX_IS:
        p->is &= ~(val & IS_CLEARABLE);
        break;
    case PX_IE:
        p->ie = val & IE_BITS;
        break;
    case PX_CMD:
        write_cmd(p, val);
        break;
    case PX_SCTL:
        write_sctl(p, val);
        break;
    case PX_SERR:
        p->serr &= ~val;
        break;
    case PX_SACT: /* set before the command's bit in PxCI */
        if (p->cmd & CMD_ST)
            p->sact |= val;
        break;
    case PX_CI:
        if (p->cmd & CMD_ST)
            p->ci |= val;
        ahci_port_run(p);
        break;
    default:
        break;
    }
    ahci_update_irq(p->hba);
}

void ahci_port_init(struct ahci_port *p, struct ahci *h, unsigned n)
{
    p->hba = h;
    p->n = n;
    p->slot = -1;
    p->ide.dma = (struct ide_dma){move, p};
    p->ide.link = (struct ide_link){ended, p};
}

static const struct field fields[] = {
    FIELD_NONE(struct ahci_port, hba),
    FIELD_NONE(struct ahci_port, n),
    FIELD_STRUCT(struct ahci_port, ide, ide_fields),
    FIELD(struct ahci_port, clb),
    FIELD(struct ahci_port, fb),
    FIELD(struct ahci_port, is),
    FIELD(struct ahci_port, ie),
    FIELD(struct ahci_port, cmd, .max = CMD_WRITABLE),
    FIELD(struct ahci_port, sctl, .max = 0xfff),
    FIELD(struct ahci_port, serr),
    FIELD(struct ahci_port, sact),
    FIELD(struct ahci_port, ci),
    FIELD_NONE(
        struct ahci_port,
        slot), /* no command is in progress when the state is saved: what can be done has been */
    FIELD(struct ahci_port, last, .max = AHCI_SLOTS - 1),
    FIELD(struct ahci_port, stalled),
    FIELD_NONE(struct ahci_port, running),
    FIELD(struct ahci_port, srst),
    FIELD(struct ahci_port, offline),
    FIELD_NONE(struct ahci_port, packet),
    FIELD_NONE(struct ahci_port, table),
    FIELD_NONE(struct ahci_port, list),
    FIELD_NONE(struct ahci_port, ncq),
    FIELD_NONE(struct ahci_port, inflight),
};
const struct field_table ahci_port_fields = FIELD_TABLE(struct ahci_port, "ahci_port", fields);
