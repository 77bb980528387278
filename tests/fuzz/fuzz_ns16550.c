/* fuzz_ns16550.c - the serial port, with a back end that is slow and one that swallows all. */
#include "chip/debugport.h"
#include "chip/ns16550.h"
#include "fuzz.h"

static struct {
    struct fuzz f;
    struct ns16550 uart[2];
    struct debugport debug;
    struct post_latch post;
} m;

static void ready(void *ctx)
{
    struct char_in in = ns16550_char_in(ctx);
    FUZZ_REQUIRE(in.room(in.dev) <= NS16550_FIFO);
}

static void extra(struct fuzz *f, uint8_t what)
{
    ns16550_break(&m.uart[what & 1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    ns16550_init(&m.uart[0], fuzz_char_out(&m.f), (struct char_ready){ready, &m.uart[0]},
                 fuzz_pin());
    ns16550_init(&m.uart[1], (struct char_out){0}, (struct char_ready){0}, fuzz_pin());
    debugport_init(&m.debug, fuzz_char_out(&m.f));
    post_latch_init(&m.post);
    fuzz_map(&m.f, &ns16550_com1_desc, &m.uart[0]);
    fuzz_map(&m.f, &ns16550_com2_desc, &m.uart[1]);
    fuzz_map(&m.f, &debugport_desc, &m.debug);
    fuzz_map(&m.f, &post_latch_desc, &m.post);
    m.f.chars[0] = ns16550_char_in(&m.uart[0]);
    m.f.chars[1] = ns16550_char_in(&m.uart[1]);
    m.f.nchars = 2;
    fuzz_run(&m.f);
    fuzz_end(&m.f);
    return 0;
}
