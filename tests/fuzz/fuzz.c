/*
 * fuzz.c - the script that inputs are read as, and the machine it works on; see fuzz.h.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"

/* ---- input ---- */

uint64_t fuzz_uint(struct fuzz_in *in, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned n = 0; n < bytes && in->left; n++, in->left--)
        v |= (uint64_t)*in->p++ << (8 * n);
    return v;
}

size_t fuzz_take(struct fuzz_in *in, const uint8_t **p, size_t max)
{
    size_t n = max < in->left ? max : in->left;
    *p = in->p;
    in->p += n;
    in->left -= n;
    return n;
}

/* ---- disks ---- */

static bool in_ram(const struct fuzz_disk *d, const struct iovec *v)
{
    uint64_t at = (uint64_t)((const uint8_t *)v->iov_base - d->ram->host);
    return range_within(at, v->iov_len, d->ram->ram_size);
}

static void submit(struct blk *b, struct blk_req *req)
{
    struct fuzz_disk *d = CONTAINER_OF(b, struct fuzz_disk, blk);
    FUZZ_REQUIRE(range_within(req->offset, req->len, b->size));
    uint64_t sum = 0;
    for (int n = 0; n < req->niov && (req->op == BLK_READ || req->op == BLK_WRITE); n++)
        sum += req->iov[n].iov_len;
    FUZZ_REQUIRE(sum == req->len || (req->op != BLK_READ && req->op != BLK_WRITE));
    FUZZ_REQUIRE(d->nheld < FUZZ_MAX_INFLIGHT);
    d->held[d->nheld++] = req;
}

/* Memory outside the guest's RAM is the heap's, where the sanitizer looks. */
static void transfer(struct fuzz_disk *d, const struct blk_req *req)
{
    uint8_t *at = d->data + req->offset;
    d->written |= req->op != BLK_READ;
    for (int n = 0; n < req->niov; n++) {
        const struct iovec *v = &req->iov[n];
        const uint8_t *p = v->iov_base;
        if (p >= d->ram->host && p < d->ram->host + d->ram->total)
            FUZZ_REQUIRE(in_ram(d, v));
        if (req->op == BLK_READ)
            memcpy(v->iov_base, at, v->iov_len);
        else
            memcpy(at, v->iov_base, v->iov_len);
        at += v->iov_len;
    }
}

static void complete(struct fuzz_disk *d, unsigned which, int result)
{
    struct blk_req *req = d->held[which];
    d->held[which] = d->held[--d->nheld];
    if (!result && d->blk.readonly && req->op != BLK_READ && req->op != BLK_FLUSH)
        result = -EROFS;
    if (!result && (req->op == BLK_READ || req->op == BLK_WRITE))
        transfer(d, req);
    req->done(req, result);
}

void fuzz_complete_all(struct fuzz *f)
{
    for (unsigned n = 0; n < f->ndisk; n++)
        while (f->disk[n].nheld)
            complete(&f->disk[n], 0, 0);
}

struct blk *fuzz_disk(struct fuzz *f, bool readonly)
{
    static const struct blk_driver driver = {.name = "fuzz", .submit = submit};
    FUZZ_REQUIRE(f->ndisk < FUZZ_DISKS);
    struct fuzz_disk *d = &f->disk[f->ndisk++];
    d->blk = (struct blk){.drv = &driver, .size = FUZZ_DISK_SIZE, .readonly = readonly};
    d->ram = &f->ram;
    d->data =
        mmap(NULL, FUZZ_DISK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FUZZ_REQUIRE(d->data != MAP_FAILED);
    return &d->blk;
}

void fuzz_resize(struct fuzz *f)
{
    if (!f->ndisk)
        return;
    struct blk *b = &f->disk[0].blk;
    b->size = b->size == FUZZ_DISK_SIZE ? FUZZ_DISK_SIZE / 3 : FUZZ_DISK_SIZE;
    if (b->resized)
        b->resized(b->ctx);
}

/* ---- the machine ---- */

void fuzz_begin_ram(struct fuzz *f, const uint8_t *data, size_t size, uint64_t ram_size)
{
    memset(f, 0, sizeof *f);
    f->in = (struct fuzz_in){data, size};
    FUZZ_REQUIRE(!ram_init(&f->ram, ram_size, NULL));
    vclock_init_manual(&f->clock);
    timerq_init(&f->timers, &f->clock);
}

void fuzz_begin(struct fuzz *f, const uint8_t *data, size_t size)
{
    unsigned id;
    fuzz_begin_ram(f, data, size, FUZZ_RAM);
    FUZZ_REQUIRE(!space_init(&f->mem, 1ull << 40, &f->ram, NULL));
    FUZZ_REQUIRE(!space_init(&f->port, 65536, &f->ram, NULL));
    FUZZ_REQUIRE(!space_add_ram(&f->mem, 0, FUZZ_RAM, 0, 0, &id, NULL));
}

void fuzz_end(struct fuzz *f)
{
    for (unsigned n = 0; n < f->ndisk; n++)
        munmap(f->disk[n].data, FUZZ_DISK_SIZE);
    timerq_fini(&f->timers);
    if (f->port.limit)
        space_fini(&f->port);
    if (f->mem.limit)
        space_fini(&f->mem);
    ram_fini(&f->ram);
}

void fuzz_window(struct fuzz *f, struct space *s, uint64_t base, uint32_t len)
{
    FUZZ_REQUIRE(f->nwindow < FUZZ_WINDOWS);
    f->window[f->nwindow++] = (struct fuzz_window){s, base, len};
}

void fuzz_map(struct fuzz *f, const struct chip_desc *d, void *dev)
{
    FUZZ_REQUIRE(f->npart < FUZZ_PARTS);
    f->part[f->npart].desc = d;
    f->part[f->npart++].dev = dev;
    for (const struct chip_range *r = d->ranges; r->len; r++) {
        struct space *s = r->port ? &f->port : &f->mem;
        unsigned id;
        FUZZ_REQUIRE(!space_add_io(s, r->base, r->len, r->ops, dev, 1, &id, NULL));
        fuzz_window(f, s, r->base, (uint32_t)r->len);
    }
}

static size_t char_out(void *ctx, const uint8_t *buf, size_t len)
{
    struct fuzz *f = ctx;
    uint8_t sum = 0;
    size_t n = len < f->out_room ? len : f->out_room;
    for (size_t k = 0; k < n; k++)
        sum ^= buf[k];
    f->out_room -= (unsigned)n;
    __asm__ volatile("" ::"r"(sum)); /* all bytes are looked at */
    return n;
}

struct char_out fuzz_char_out(struct fuzz *f)
{
    f->out_room = 16;
    return (struct char_out){char_out, f};
}

static void pin_ignore(void *ctx, unsigned line, bool level)
{
}

struct pin fuzz_pin(void)
{
    return (struct pin){.set = pin_ignore};
}

static void intx_ignore(void *ctx, unsigned devfn, unsigned pin, bool level)
{
}

static void msi_ignore(void *ctx, uint64_t addr, uint32_t data)
{
}

void fuzz_bus(struct fuzz *f, struct pci_bus *b)
{
    FUZZ_REQUIRE(!pci_bus_init(b, &f->mem, &f->port, NULL));
    b->intx = intx_ignore;
    b->msi = msi_ignore;
}

void fuzz_cfg_write(struct fuzz *f, unsigned devfn, unsigned off, uint32_t val)
{
    space_write(&f->port, 0xcf8, 0x80000000u | devfn << 8 | off, 4);
    space_write(&f->port, 0xcfc, val, 4);
}

/* ---- the script ---- */

enum op {
    OP_WRITE,
    OP_WRITE2, /* twice as likely */
    OP_WRITE_ADDRESS,
    OP_WRITE_NEXT,
    OP_WRITE_BURST,
    OP_READ,
    OP_READ2,
    OP_READ_BURST,
    OP_RAM,
    OP_RAM_ADDRESS,
    OP_TIME,
    OP_COMPLETE,
    OP_CHARS,
    OP_CHAR_ROOM,
    OP_EXTRA,
    OP_RESET, /* rare, or nothing lives long */
};

struct cursor {
    const struct fuzz_window *w;
    uint32_t off;
    unsigned size;
};

/* Where the operation works: a byte for the window, one or two for the offset. */
static void aim(struct fuzz *f, struct cursor *c, unsigned size_code)
{
    c->w = &f->window[fuzz_u8(&f->in) % f->nwindow];
    c->off = (c->w->len > 256 ? fuzz_u16(&f->in) : fuzz_u8(&f->in));
    if (c->w->len > 65536)
        c->off |= (uint32_t)fuzz_u8(&f->in) << 16;
    c->off %= c->w->len;
    c->size = 1u << size_code;
    if (c->w->space == &f->port && c->size == 8) /* no processor does that */
        c->size = 4;
}

static void write_at(const struct cursor *c, uint64_t val)
{
    uint64_t mask = c->size == 8 ? ~0ull : (1ull << (8 * c->size)) - 1;
    space_write(c->w->space, c->w->base + c->off, val & mask, c->size);
}

static void burst(struct fuzz *f, const struct cursor *c, bool write)
{
    unsigned n = fuzz_u8(&f->in);
    for (unsigned k = 0; k < n; k++) {
        if (!write)
            space_read(c->w->space, c->w->base + c->off, c->size);
        else if (f->in.left)
            write_at(c, fuzz_uint(&f->in, c->size));
    }
}

static void ram_op(struct fuzz *f, bool address)
{
    uint64_t at = fuzz_uint(&f->in, 3) % f->ram.ram_size;
    const uint8_t *p;
    uint8_t word[8] = {0};
    size_t n;
    if (address) {
        uint64_t v = fuzz_uint(&f->in, 3) % f->ram.ram_size;
        memcpy(word, &v, sizeof v);
        p = word;
        n = sizeof word;
    } else {
        n = fuzz_u8(&f->in) % 64u + 1;
        n = fuzz_take(&f->in, &p, n);
    }
    if (n > f->ram.ram_size - at)
        n = f->ram.ram_size - at;
    memcpy(f->ram.host + at, p, n);
}

static void advance(struct fuzz *f)
{
    const ns_t end = 1ll << 60; /* 36 years: no VM is older */
    ns_t t = vclock_now(&f->clock) + ((ns_t)(fuzz_u8(&f->in) + 1) << (fuzz_u8(&f->in) % 48));
    vclock_set(&f->clock, t < end ? t : end);
    FUZZ_REQUIRE(timerq_run(&f->timers) > vclock_now(&f->clock));
}

static void complete_op(struct fuzz *f)
{
    static const int results[4] = {0, 0, -EIO, -ENOSPC};
    uint8_t what = fuzz_u8(&f->in);
    struct fuzz_disk *d = f->ndisk ? &f->disk[what % f->ndisk] : NULL;
    if (d && d->nheld)
        complete(d, (what >> 2 & 15) % d->nheld, results[what >> 6]);
}

static void chars_op(struct fuzz *f, bool room)
{
    uint8_t n = fuzz_u8(&f->in);
    const uint8_t *p;
    if (!f->nchars)
        return;
    const struct char_in *c = &f->chars[n % f->nchars];
    if (room) {
        f->out_room = n;
        if (c->drained)
            c->drained(c->dev);
        return;
    }
    size_t max = c->room(c->dev);
    max = fuzz_take(&f->in, &p, max < n ? max : n);
    if (max)
        c->push(c->dev, p, max);
}

static void reset_all(struct fuzz *f)
{
    for (unsigned n = 0; n < f->npart; n++)
        if (f->part[n].desc->reset)
            f->part[n].desc->reset(f->part[n].dev);
    if (f->reset)
        f->reset(f);
}

static void step(struct fuzz *f, struct cursor *c, uint8_t op)
{
    switch ((enum op)(op & 15)) {
    case OP_WRITE:
    case OP_WRITE2:
        aim(f, c, op >> 4 & 3);
        write_at(c, fuzz_uint(&f->in, c->size));
        break;
    case OP_WRITE_ADDRESS:
        aim(f, c, op >> 4 & 3);
        write_at(c, fuzz_uint(&f->in, 3) % f->ram.ram_size);
        break;
    case OP_WRITE_NEXT:
        c->off = (c->off + c->size) % c->w->len;
        write_at(c, fuzz_uint(&f->in, c->size));
        break;
    case OP_READ:
    case OP_READ2:
        aim(f, c, op >> 4 & 3);
        space_read(c->w->space, c->w->base + c->off, c->size);
        break;
    case OP_WRITE_BURST:
    case OP_READ_BURST:
        aim(f, c, op >> 4 & 3);
        burst(f, c, (op & 15) == OP_WRITE_BURST);
        break;
    case OP_RAM:
    case OP_RAM_ADDRESS:
        ram_op(f, (op & 15) == OP_RAM_ADDRESS);
        break;
    case OP_TIME:
        advance(f);
        break;
    case OP_COMPLETE:
        complete_op(f);
        break;
    case OP_CHARS:
    case OP_CHAR_ROOM:
        chars_op(f, (op & 15) == OP_CHAR_ROOM);
        break;
    case OP_EXTRA:
        if (f->extra)
            f->extra(f, fuzz_u8(&f->in));
        break;
    case OP_RESET:
        if (op >> 4 == 5)
            reset_all(f);
        break;
    }
}

void fuzz_run(struct fuzz *f)
{
    struct cursor c = {.w = &f->window[0], .size = 1};
    while (f->in.left)
        step(f, &c, fuzz_u8(&f->in));
    fuzz_complete_all(f);
}
