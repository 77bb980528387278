/* fuzz_virtio_blk.c - the virtio block device with hostile rings and requests. */
#include "fuzz_virtio.h"
#include "virtio/virtio_blk.h"

static struct fuzz f;
static struct virtio_blk d;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vf_begin(&f, data, size);
    uint8_t kind = fuzz_u8(&f.in);
    const struct virtio_blk_config cfg = {.blk = fuzz_disk(&f, kind & 1),
                                          .serial = "FUZZ",
                                          .queues = kind & 2 ? 2 : 1,
                                          .block_size = kind & 4 ? 4096 : 512};
    FUZZ_REQUIRE(!virtio_blk_init(&d, &f.mem, &cfg, NULL));
    vf_run(&f, &d.v);
    virtio_pci_fini(&vf.fn);
    virtio_blk_fini(&d);
    fuzz_end(&f);
    return 0;
}
