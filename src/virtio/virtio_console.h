/* virtio_console.h - the console device, one port. Source: virtio 1.2, clause 5.3. */
#ifndef SOSIA_VIRTIO_VIRTIO_CONSOLE_H
#define SOSIA_VIRTIO_VIRTIO_CONSOLE_H

#include "char/char.h"
#include "virtio/virtio.h"

#define VCON_FIFO 1024u /* power of two */

struct virtio_console {
    struct virtio_dev v;
    struct char_out out;
    struct char_ready ready;
    uint8_t fifo[VCON_FIFO]; /* input that waits for the driver's buffers */
    unsigned head, count;
    bool sending;  /* `tx` is a chain that the back end did not take whole */
    uint64_t sent; /* bytes of it that are gone */
    struct vchain tx;
};

extern const struct field_table virtio_console_fields;

/* `out` takes what the guest writes; `ready` (may be zeroed) is told when there is room for input.
 */
void virtio_console_init(struct virtio_console *d, struct space *mem, struct char_out out,
                         struct char_ready ready);
/* What the back end calls. */
struct char_in virtio_console_input(struct virtio_console *d);

#endif
