/* fuzz_timers.c - the ISA interrupt controllers and what ticks: i8259, i8254, RTC, port 61h. */
#include "chip/i8254.h"
#include "chip/i8259.h"
#include "chip/mc146818.h"
#include "chip/port61.h"
#include "fuzz.h"

static struct {
    struct fuzz f;
    struct i8259 pic;
    struct i8254 pit;
    struct mc146818 rtc;
    struct port61 port61;
} m;

static void irq(void *ctx, unsigned line, bool level)
{
    i8259_set_irq(&m.pic, line, level);
}

static void extra(struct fuzz *f, uint8_t what)
{
    if (what & 0x80) {
        i8254_set_gate(&m.pit, what % 3, what & 0x40);
    } else if (what & 0x40) {
        int v = i8259_ack(&m.pic);
        FUZZ_REQUIRE(v >= 0 && v <= 255);
    } else {
        irq(NULL, what & 15, what & 0x10);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    i8259_init(&m.pic, fuzz_pin());
    FUZZ_REQUIRE(!i8254_init(&m.pit, &m.f.timers, (struct pin){.set = irq, .line = 0}, NULL));
    int64_t seconds = (int64_t)fuzz_uint(&m.f.in, 5);
    FUZZ_REQUIRE(!mc146818_init(&m.rtc, &m.f.timers, seconds, (struct pin){.set = irq, .line = 8},
                                fuzz_pin(), NULL));
    port61_init(&m.port61, &m.pit);
    fuzz_map(&m.f, &i8259_desc, &m.pic);
    fuzz_map(&m.f, &i8254_desc, &m.pit);
    fuzz_map(&m.f, &mc146818_desc, &m.rtc);
    fuzz_map(&m.f, &port61_desc, &m.port61);
    fuzz_run(&m.f);
    fuzz_end(&m.f);
    return 0;
}
