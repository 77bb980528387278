/* fuzz_virtio_console.c - the virtio console with hostile rings and a slow back end. */
#include "fuzz_virtio.h"
#include "virtio/virtio_console.h"

static struct fuzz f;
static struct virtio_console d;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vf_begin(&f, data, size);
    virtio_console_init(&d, &f.mem, fuzz_char_out(&f), (struct char_ready){0});
    f.chars[0] = virtio_console_input(&d);
    f.nchars = 1;
    vf_run(&f, &d.v);
    virtio_pci_fini(&vf.fn);
    fuzz_end(&f);
    return 0;
}
