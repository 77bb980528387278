/*
 * char.h - bytes between a device (UART, virtio console) and the host.
 *
 * Both directions are non-blocking and called with the device lock held.
 */
#ifndef SOSIA_CHAR_CHAR_H
#define SOSIA_CHAR_CHAR_H

#include "base/types.h"

/* Device to host. write() takes as much as it can and returns how much; the rest is offered again
 * after the back end has called the device's `drained`. A zeroed struct swallows everything. */
struct char_out {
    size_t (*write)(void *ctx, const uint8_t *buf, size_t len);
    void *ctx;
};

/* Host to device: given to the back end by wiring. */
struct char_in {
    size_t (*room)(void *dev);                               /* how many bytes push() accepts now */
    void (*push)(void *dev, const uint8_t *buf, size_t len); /* len <= room() */
    void (*drained)(void *dev);                              /* output can be written again */
    void *dev;
};

/* The device tells its back end that room() grew, so that held-back input can flow. */
struct char_ready {
    void (*fn)(void *ctx);
    void *ctx;
};

static inline size_t char_write(const struct char_out *o, const uint8_t *buf, size_t len)
{
    return o->write ? o->write(o->ctx, buf, len) : len;
}

#endif
