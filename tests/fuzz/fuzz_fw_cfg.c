/* fuzz_fw_cfg.c - the firmware configuration device: selector, data port, DMA. */
#include "chip/fw_cfg.h"
#include "fuzz.h"

static struct {
    struct fuzz f;
    struct fw_cfg cfg;
} m;

static void extra(struct fuzz *f, uint8_t what)
{
    const uint8_t *p;
    char name[] = "etc/file-0";
    name[9] = (char)('a' + what % 16);
    size_t n = fuzz_take(&f->in, &p, what);
    if (what & 0x80)
        fw_cfg_add(&m.cfg, what & 0x3f, p, n, NULL);
    else
        fw_cfg_add_file(&m.cfg, name, p, n, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    FUZZ_REQUIRE(!fw_cfg_init(&m.cfg, &m.f.mem, NULL));
    FUZZ_REQUIRE(!fw_cfg_add_u64(&m.cfg, FW_CFG_RAM_SIZE, FUZZ_RAM, NULL));
    FUZZ_REQUIRE(!fw_cfg_add_file(&m.cfg, "etc/empty", NULL, 0, NULL));
    fuzz_map(&m.f, &fw_cfg_desc, &m.cfg);
    fuzz_run(&m.f);
    fw_cfg_fini(&m.cfg);
    fuzz_end(&m.f);
    return 0;
}
