/*
 * pc.h - the board `pc`: i440FX and PIIX3/4 with what every PC operating system expects on it.
 *
 * The only place that knows addresses, interrupt lines and slots. All functions but pc_create() and
 * pc_destroy() are called with the device lock held, unless told otherwise.
 */
#ifndef SOSIA_MACHINE_PC_H
#define SOSIA_MACHINE_PC_H

#include <stdio.h>

#include "base/clock.h"
#include "block/block.h"
#include "char/char.h"
#include "isa/x86/cpu.h"
#include "machine/kvm_pv.h"
#include "spec/spec.h"
#include "state/stream.h"

#define PC_NSERIAL 2
#define PC_TSC_HZ  1000000000ull /* the machine's TSC counts nanoseconds of the VM clock */

/* What the board asks of the VM around it. */
struct pc_host {
    void (*post)(void *ctx, unsigned cpu, uint32_t pend); /* X86_PEND_* to a vCPU; no lock taken */
    void (*sipi)(void *ctx, unsigned cpu, uint8_t vector);
    void (*unhalt)(void *ctx, unsigned cpu); /* its HLT ends, or the next one at once */
    void (*map_changed)(void *ctx);          /* every vCPU drops its translations */
    void (*a20)(void *ctx, bool open);
    void (*reset)(void *ctx, const char *why);
    void (*poweroff)(void *ctx);
    void (*exit)(void *ctx, uint32_t status); /* the test device's way to end */
    void *ctx;
};

struct pc_config {
    const struct spec *spec;
    struct ram *ram;
    struct timerq *timers;
    struct pc_host host;
    struct blk *disk[SPEC_MAX_DISKS];       /* as in the spec; the VM's to close */
    struct blk *cdrom, *floppy;             /* or NULL */
    struct char_out serial, console, debug; /* COM1, virtio console, port 0x402 */
    struct char_ready serial_ready, console_ready;
    int64_t
        wall_clock; /* what the RTC shows at VM time 0: seconds since 1970 in the guest's zone */
};

struct pc;

/* Builds the board in power-on state. ERR_NOMEM, ERR_IO (firmware, kernel), ERR_FORMAT, ERR_LIMIT.
 */
int pc_create(struct pc **out, const struct pc_config *cfg, struct error *e);
void pc_destroy(struct pc *p);

/* All chips to power-on state. */
void pc_reset(struct pc *p);
/* After pc_reset() and x86_reset() of every vCPU: loads a directly booted kernel and puts the boot
 * processor at its entry. No-op when firmware boots the machine. Lock not needed; no vCPU runs. */
int pc_boot(struct pc *p, struct x86_cpu *bsp, struct error *e);

struct space *pc_mem(struct pc *p);
struct space *pc_port(struct pc *p);
struct char_in pc_serial_in(struct pc *p);
struct char_in pc_console_in(struct pc *p);

/* A vCPU's accesses. */
uint64_t pc_mem_read(struct pc *p, unsigned cpu, gpa_t addr, unsigned size);
void pc_mem_write(struct pc *p, unsigned cpu, gpa_t addr, uint64_t val, unsigned size);
int pc_intr_ack(struct pc *p, unsigned cpu); /* vector or -1 */
bool pc_intr_pending(struct pc *p, unsigned cpu);
uint64_t pc_get_cr8(struct pc *p, unsigned cpu);
void pc_set_cr8(struct pc *p, unsigned cpu, uint64_t cr8);
bool pc_apic_msr(struct pc *p, unsigned cpu, uint32_t msr, bool write, uint64_t *val);
struct kvm_pv *pc_kvm_pv(struct pc *p); /* lock not needed */

/* FERR# of the vCPUs (any of them): interrupt 13, as on the AT. */
void pc_set_ferr(struct pc *p, bool level);

/* What the guest shows in a text mode: lines that end with '\n', NUL-terminated, cut to `size`. */
void pc_screen_text(struct pc *p, char *buf, size_t size);

/* Names all that is state. For saving, with the VM clock and the vCPUs stopped and nothing in
 * flight on the disks, after pc_state_begin(), which lets timers run that are due or lazy; for
 * loading, into a board that was just created or reset. */
void pc_state_begin(struct pc *p);
void pc_state_list(struct pc *p, struct state_list *l);

/* What the user types: a Linux key code is pressed or released. Only while pc_key_room(): a
 * keyboard that is not read forgets keys. */
void pc_key(struct pc *p, unsigned key, bool pressed);
bool pc_key_room(const struct pc *p);

/* For people, no vCPU runs: the 8259s and the I/O APIC; a local APIC; the address maps. */
void pc_print_pic(const struct pc *p, FILE *out);
void pc_print_lapic(const struct pc *p, unsigned cpu, FILE *out);
void pc_print_map(const struct pc *p, FILE *out);

/* The user presses the power button. */
void pc_power_button(struct pc *p);

#endif
