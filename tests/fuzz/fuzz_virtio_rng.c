/* fuzz_virtio_rng.c - the virtio entropy device with hostile rings. */
#include "fuzz_virtio.h"
#include "virtio/virtio_rng.h"

static struct fuzz f;
static struct virtio_rng d;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vf_begin(&f, data, size);
    virtio_rng_init(&d, &f.mem);
    vf_run(&f, &d.v);
    virtio_pci_fini(&vf.fn);
    fuzz_end(&f);
    return 0;
}
