/* fuzz_virtio_blk.c - the virtio block device with hostile rings and requests. */
#include "fuzz_virtio.h"
#include "virtio/virtio_blk.h"

static struct fuzz f;
static struct virtio_blk d;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vf_begin(&f, data, size);
    bool readonly = fuzz_u8(&f.in) & 1;
    FUZZ_REQUIRE(!virtio_blk_init(&d, &f.mem, fuzz_disk(&f, readonly), "FUZZ", NULL));
    vf_run(&f, &d.v);
    virtio_pci_fini(&vf.fn);
    virtio_blk_fini(&d);
    fuzz_end(&f);
    return 0;
}
