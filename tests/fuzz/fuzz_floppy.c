/* fuzz_floppy.c - the floppy controller and the DMA controllers that carry its data. */
#include "chip/i82077.h"
#include "fuzz.h"

static struct {
    struct fuzz f;
    struct i8237 dma;
    struct i82077 fdc;
    struct blk *disk[2];
} m;

static void extra(struct fuzz *f, uint8_t what)
{
    if (what & 0x80) { /* some other device on the DMA controller */
        uint8_t buf[300] = {0};
        bool tc;
        size_t len = fuzz_u16(&f->in) % sizeof buf;
        size_t n = i8237_transfer(&m.dma, what & 7, buf, len, what & 8, &tc);
        FUZZ_REQUIRE(n <= len);
    } else {
        FUZZ_REQUIRE(!i82077_insert(&m.fdc, what & 2 ? NULL : m.disk[what & 1], NULL));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    m.disk[0] = fuzz_disk(&m.f, false);
    m.disk[1] = fuzz_disk(&m.f, true);
    i8237_init(&m.dma, &m.f.mem);
    FUZZ_REQUIRE(!i82077_init(&m.fdc, &m.dma, m.disk[0], fuzz_pin(), NULL));
    fuzz_map(&m.f, &i82077_desc, &m.fdc);
    fuzz_map(&m.f, &i8237_desc, &m.dma);
    fuzz_run(&m.f);
    fuzz_end(&m.f);
    return 0;
}
