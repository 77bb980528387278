/* virtio_rng.h - the entropy device. Source: virtio 1.2, clause 5.4. */
#ifndef SOSIA_VIRTIO_VIRTIO_RNG_H
#define SOSIA_VIRTIO_VIRTIO_RNG_H

#include "virtio/virtio.h"

struct virtio_rng {
    struct virtio_dev v;
};

extern const struct field_table virtio_rng_fields;
void virtio_rng_init(struct virtio_rng *d, struct space *mem);

#endif
