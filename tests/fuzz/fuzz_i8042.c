/* fuzz_i8042.c - the keyboard controller with keyboard and mouse. */
#include "chip/i8042.h"
#include "chip/port92.h"
#include "fuzz.h"

static struct {
    struct fuzz f;
    struct i8042 kbc;
    struct port92 port92;
} m;

static void extra(struct fuzz *f, uint8_t what)
{
    uint16_t a = fuzz_u16(&f->in);
    if (what & 0x80) {
        int dx = (int8_t)a, dy = (int8_t)(a >> 8);
        if (what & 0x40) { /* a host that adds up movement for long */
            dx *= 1 << 24;
            dy *= 1 << 24;
        }
        ps2mouse_event(&m.kbc.mouse, dx, dy, (int8_t)(what << 3), fuzz_u8(&f->in));
    } else {
        ps2kbd_key(&m.kbc.kbd, a % 0x300u, what & 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct i8042_pins pins = {fuzz_pin(), fuzz_pin(), fuzz_pin(), fuzz_pin()};
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    i8042_init(&m.kbc, &pins);
    port92_init(&m.port92, fuzz_pin(), fuzz_pin());
    fuzz_map(&m.f, &i8042_desc, &m.kbc);
    fuzz_map(&m.f, &port92_desc, &m.port92);
    fuzz_run(&m.f);
    fuzz_end(&m.f);
    return 0;
}
