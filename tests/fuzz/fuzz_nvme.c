/* fuzz_nvme.c - the NVMe controller: registers, doorbells, commands and lists of pages. */
#include "base/endian.h"
#include "fuzz.h"
#include "pci/nvme_pci.h"

#define BAR     0xe0000000u
#define MSIX    0xe1000000u
#define DEVFN   PCI_DEVFN(5, 0)
#define QUEUES  2u
#define SIZE    8u
#define SQ(q)   (0x1000u + 0x2000u * (q))
#define CQ(q)   (0x2000u + 0x2000u * (q))
#define LISTS   0x20000u
#define BUFFERS 0x40000u

static struct {
    struct fuzz f;
    struct pci_bus bus;
    struct nvme_pci nvme;
    uint16_t tail[QUEUES + 1];
} m;

static void wr(struct fuzz *f, unsigned off, uint32_t val)
{
    space_write(&f->mem, BAR + off, val, 4);
}

static void reset(struct fuzz *f)
{
    pci_bus_reset(&m.bus);
    fuzz_cfg_write(f, DEVFN, 0x10, BAR);
    fuzz_cfg_write(f, DEVFN, 0x14, 0);
    fuzz_cfg_write(f, DEVFN, 0x20, MSIX);
    fuzz_cfg_write(f, DEVFN, 4, 6);
}

static uint8_t *command(struct fuzz *f, unsigned q, uint8_t opcode)
{
    uint8_t *c = f->ram.host + SQ(q) + 64 * (m.tail[q] % SIZE);
    memset(c, 0, 64);
    c[0] = opcode;
    store_le32(c + 4, 1);
    m.tail[q] = (m.tail[q] + 1) % SIZE;
    return c;
}

static void ring(struct fuzz *f, unsigned q)
{
    wr(f, 0x1000 + 8 * q, m.tail[q]);
}

/* What a driver does before it uses the controller. */
static void start(struct fuzz *f)
{
    memset(m.tail, 0, sizeof m.tail);
    wr(f, 0x14, 0);
    fuzz_complete_all(f);
    wr(f, 0x24, (SIZE - 1) | (SIZE - 1) << 16);
    wr(f, 0x28, SQ(0));
    wr(f, 0x2c, 0);
    wr(f, 0x30, CQ(0));
    wr(f, 0x34, 0);
    wr(f, 0x14, 0x460001);
    for (unsigned q = 1; q <= QUEUES; q++) {
        uint8_t *c = command(f, 0, 5);
        store_le64(c + 24, CQ(q));
        store_le32(c + 40, q | (SIZE - 1) << 16);
        store_le32(c + 44, 3 | q << 16);
        c = command(f, 0, 1);
        store_le64(c + 24, SQ(q));
        store_le32(c + 40, q | (SIZE - 1) << 16);
        store_le32(c + 44, 1 | q << 16);
    }
    ring(f, 0);
    wr(f, 0x1004, m.tail[0]);
}

static uint64_t page(struct fuzz *f)
{
    uint16_t v = fuzz_u16(&f->in);
    return v & 1 ? LISTS + (v & 0x3ff8u) : v & 2 ? fuzz_uint(&f->in, 8) : BUFFERS + 4ull * v;
}

static void make_command(struct fuzz *f, uint8_t what)
{
    unsigned q = (what >> 3) % (QUEUES + 1);
    uint8_t *c = command(f, q, fuzz_u8(&f->in) % 16);
    const uint8_t *p;
    store_le64(c + 24, page(f));
    store_le64(c + 32, page(f));
    size_t n = fuzz_take(&f->in, &p, 12);
    memcpy(c + 40, p, n);
    if (what & 0x40)
        c[1] = fuzz_u8(&f->in);
    if (what & 0x80)
        store_le32(c + 4, fuzz_u16(&f->in));
    ring(f, q);
}

static void extra(struct fuzz *f, uint8_t what)
{
    switch (what & 7) {
    case 0:
        start(f);
        break;
    case 1: /* an entry of a list */
        store_le64(f->ram.host + LISTS + 8 * (fuzz_u16(&f->in) & 0x7ff),
                   page(f) & ~(what & 8 ? 0xfffull : 0));
        break;
    case 2: /* the driver has read a queue of ends */
        wr(f, 0x1004 + 8 * ((what >> 3) % (QUEUES + 1)), fuzz_u8(&f->in) % SIZE);
        break;
    case 3:
        fuzz_resize(f);
        break;
    default:
        make_command(f, what);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    m.f.reset = reset;
    fuzz_bus(&m.f, &m.bus);
    uint8_t kind = fuzz_u8(&m.f.in);
    const struct nvme_config cfg = {.blk = fuzz_disk(&m.f, kind & 1),
                                    .serial = "FUZZ",
                                    .queues = QUEUES,
                                    .block_size = kind & 2 ? 4096 : 512};
    FUZZ_REQUIRE(!nvme_pci_init(&m.nvme, &m.bus, DEVFN, &cfg, NULL));
    reset(&m.f);
    fuzz_window(&m.f, &m.f.mem, BAR, 0x40);
    fuzz_window(&m.f, &m.f.mem, BAR + 0x1000, 0x40);
    fuzz_window(&m.f, &m.f.mem, MSIX, 0x1000);
    fuzz_window(&m.f, &m.f.port, 0xcf8, 8);
    if (kind & 4)
        start(&m.f);
    fuzz_run(&m.f);
    nvme_pci_fini(&m.nvme);
    fuzz_end(&m.f);
    return 0;
}
