/*
 * fuzz.h - what the fuzz targets share: a small machine, and a script of operations on it.
 *
 * A target is a function LLVMFuzzerTestOneInput() in fuzz_NAME.c. It builds its devices on a
 * `struct fuzz`, names the windows through which a guest reaches them, and lets fuzz_run() read the
 * input as a script: register accesses, contents of guest memory, time, answers of disks,
 * characters. The clock is a manual one and disks are memory, so that a run depends on the input
 * alone. Everything is built anew for each input and torn down after it: a leak is a finding.
 */
#ifndef SOSIA_TESTS_FUZZ_FUZZ_H
#define SOSIA_TESTS_FUZZ_FUZZ_H

#include "base/clock.h"
#include "block/block.h"
#include "char/char.h"
#include "chip/chip.h"
#include "chip/pin.h"
#include "pci/pci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process if a promise between the parts of the product is broken. */
#define FUZZ_REQUIRE(cond)    \
    do {                      \
        if (!(cond))          \
            __builtin_trap(); \
    } while (0)

/* ---- the input, read from its start; zeroes beyond its end ---- */

struct fuzz_in {
    const uint8_t *p;
    size_t left;
};

uint64_t fuzz_uint(struct fuzz_in *in, unsigned bytes); /* little-endian, 1..8 bytes */
static inline uint8_t fuzz_u8(struct fuzz_in *in)
{
    return (uint8_t)fuzz_uint(in, 1);
}
static inline uint16_t fuzz_u16(struct fuzz_in *in)
{
    return (uint16_t)fuzz_uint(in, 2);
}
/* Up to `max` bytes; *p points to them. */
size_t fuzz_take(struct fuzz_in *in, const uint8_t **p, size_t max);

/* ---- the machine ---- */

#define FUZZ_WINDOWS      80
#define FUZZ_DISKS        10
#define FUZZ_CHARS        4
#define FUZZ_PARTS        8
#define FUZZ_DISK_SIZE    (1440u * 1024) /* a floppy's, so that one size serves all */
#define FUZZ_RAM          MIB
#define FUZZ_MAX_INFLIGHT 256

struct fuzz_window {
    struct space *space;
    uint64_t base;
    uint32_t len;
};

/* A disk in memory. A request waits until the script, or the end, completes it. */
struct fuzz_disk {
    struct blk blk;
    struct ram *ram; /* memory of requests is here or on the heap */
    uint8_t *data;
    bool written;
    struct blk_req *held[FUZZ_MAX_INFLIGHT];
    unsigned nheld;
};

struct fuzz {
    struct fuzz_in in;
    struct ram ram;
    struct space mem, port;
    struct vclock clock;
    struct timerq timers;
    struct fuzz_window window[FUZZ_WINDOWS];
    unsigned nwindow;
    struct fuzz_disk disk[FUZZ_DISKS];
    unsigned ndisk;
    struct char_in chars[FUZZ_CHARS];
    unsigned nchars;
    unsigned out_room; /* bytes that the characters' back end takes */
    struct {
        const struct chip_desc *desc;
        void *dev;
    } part[FUZZ_PARTS];
    unsigned npart;
    /* What only this target can do, and what a reset is besides that of the mapped chips; may be
     * NULL. */
    void (*extra)(struct fuzz *f, uint8_t what);
    void (*reset)(struct fuzz *f);
};

/* With FUZZ_RAM bytes of RAM at 0, or without RAM: the target has its own map. */
void fuzz_begin(struct fuzz *f, const uint8_t *data, size_t size);
void fuzz_begin_ram(struct fuzz *f, const uint8_t *data, size_t size, uint64_t ram_size);
void fuzz_end(struct fuzz *f);

/* Names a window; maps a chip at its fixed addresses and names them. */
void fuzz_window(struct fuzz *f, struct space *s, uint64_t base, uint32_t len);
void fuzz_map(struct fuzz *f, const struct chip_desc *d, void *dev);

struct blk *fuzz_disk(struct fuzz *f, bool readonly);
/* Changes the size of the first disk, if there is one, and tells its device. */
void fuzz_resize(struct fuzz *f);
/* Takes what there is room for. */
struct char_out fuzz_char_out(struct fuzz *f);

/* A pin, and a PCI bus on the machine's spaces whose interrupts lead nowhere. */
struct pin fuzz_pin(void);
void fuzz_bus(struct fuzz *f, struct pci_bus *b);
/* A configuration write of four bytes, as firmware does it. */
void fuzz_cfg_write(struct fuzz *f, unsigned devfn, unsigned off, uint32_t val);

/* Carries the script out to its end, then completes all requests. */
void fuzz_run(struct fuzz *f);
/* For teardown of devices: no request is held afterwards. */
void fuzz_complete_all(struct fuzz *f);

#endif
