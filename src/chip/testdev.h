/*
 * testdev.h - what public test kernels (kvm-unit-tests and its like) use to provoke the machine, as
 * QEMU's "pc-testdev" and "isa-debug-exit" present it: a port that remembers, memory behind
 * register accesses, a switch for every interrupt line, and an end with a number.
 *
 *   port 0xe0..0xe3        four bytes that read back
 *   port 0xf4              writing ends the VM; the number is its status
 *   port 0x2000 + n        drives interrupt line n (0..23): 0 low, else high
 *   memory 0xff000000      64 KiB that are not RAM: every access goes through a device
 */
#ifndef SOSIA_CHIP_TESTDEV_H
#define SOSIA_CHIP_TESTDEV_H

#include "chip/chip.h"
#include "chip/pin.h"

#define TESTDEV_LINES 24
#define TESTDEV_MEM   0x10000u

struct testdev {
    struct pin line[TESTDEV_LINES];
    void (*exit)(void *ctx, uint32_t status);
    void *ctx;
    uint8_t port[4];
    uint8_t mem[TESTDEV_MEM];
};

extern const struct chip_desc testdev_desc;

void testdev_init(struct testdev *t, const struct pin line[TESTDEV_LINES],
                  void (*exit)(void *ctx, uint32_t status), void *ctx);

#endif
