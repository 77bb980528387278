/*
 * lapic.h - the local APIC of one vCPU, xAPIC mode: registers, priorities, LVT, timer.
 * Source: Intel SDM volume 3, chapter "Advanced Programmable Interrupt Controller (APIC)".
 *
 * The register page is per vCPU, so it is not in the address map's regions: the vCPU's bus asks
 * lapic_claims() first and calls lapic_read()/lapic_write() of the accessing vCPU's own APIC.
 * Everything here is called with the device lock held.
 */
#ifndef SOSIA_CHIP_LAPIC_H
#define SOSIA_CHIP_LAPIC_H

#include "base/clock.h"
#include "base/field.h"
#include "chip/apic_bus.h"
#include "mem/space.h"

#define LAPIC_BASE             0xfee00000ull
#define LAPIC_SIZE             0x1000u
#define LAPIC_TIMER_HZ         1000000000u /* the APIC bus clock: one tick is one nanosecond */
#define LAPIC_MSR_BASE         0x1bu
#define LAPIC_MSR_TSC_DEADLINE 0x6e0u

enum lapic_event {
    LAPIC_INTR, /* arg: 1 if lapic_has_intr() became true, 0 if it became false */
    LAPIC_NMI,
    LAPIC_INIT,
    LAPIC_SIPI, /* arg: vector; execution starts at vector << 12 */
};

/* The vCPU behind the APIC. */
struct lapic_host {
    void (*event)(void *ctx, enum lapic_event ev, unsigned arg);
    /* The VM clock's first nanosecond at which this vCPU's TSC has reached `tsc`. */
    ns_t (*tsc_to_ns)(void *ctx, uint64_t tsc);
    void *ctx;
};

enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

struct lapic_timer {
    struct timer timer;
    uint32_t divide;       /* divide configuration register */
    uint32_t initial;      /* initial count register */
    uint32_t load;         /* the count held this value ... */
    ns_t loaded_at;        /* ... at this time; 0 ticks later it counts down from there */
    bool stopped;          /* the count is 0 and stays there */
    uint64_t tsc_deadline; /* 0: not armed */
};

struct lapic_pv {      /* end of interrupt by memory: lapic_pv.c */
    struct space *mem; /* NULL: switched off */
    gpa_t addr;        /* of the guest's word */
    bool offered;      /* for the highest vector in service */
};

struct lapic {
    struct apic_bus *bus;
    struct timerq *tq;
    struct lapic_host host;
    bool bsp;
    uint8_t phys_bits;
    uint64_t base; /* IA32_APIC_BASE */
    uint8_t id;
    uint8_t tpr;
    uint32_t ldr, dfr, svr;
    uint32_t icr[2];
    uint32_t esr;         /* as read: latched by the last write */
    uint32_t esr_pending; /* errors since then */
    uint32_t lvt[LVT_COUNT];
    uint32_t isr[8], irr[8], tmr[8];
    bool lint[2]; /* levels of the LINT0 and LINT1 pins */
    bool intr;    /* what the vCPU was last told */
    struct lapic_timer t;
    struct lapic_pv pv;
};

/* Connects the APIC to the bus; id is its position there and initial APIC ID. phys_bits is the
 * width of physical addresses (bounds the base MSR). The APIC is in power-on state afterwards. */
int lapic_init(struct lapic *l, struct apic_bus *bus, struct timerq *tq, bool bsp,
               unsigned phys_bits, const struct lapic_host *host, struct error *e);
extern const struct field_table lapic_fields;
void lapic_fini(struct lapic *l);
void lapic_reset(struct lapic *l); /* power-on */

/* True if `addr` lies in this APIC's register page and the APIC is globally enabled. */
static inline bool lapic_claims(const struct lapic *l, gpa_t addr)
{
    return (l->base & 0x800) && addr - (l->base & ~0xfffull) < LAPIC_SIZE;
}
uint64_t lapic_read(struct lapic *l, uint64_t off, unsigned size);
void lapic_write(struct lapic *l, uint64_t off, uint64_t val, unsigned size);

/* IA32_APIC_BASE and IA32_TSC_DEADLINE. False: the value is refused (#GP) or the MSR is not ours.
 */
bool lapic_msr(struct lapic *l, uint32_t msr, bool write, uint64_t *val);

/* CR8 is bits 7:4 of the TPR (SDM "Task Priority in IA-32e Mode"). */
uint64_t lapic_get_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, uint64_t cr8);

/* Lets ends of interrupt be told by bit 0 of the word at `addr`, or no longer (mem NULL). Like
 * lapic_ack(), lapic_read() and lapic_write() only for the vCPU's own thread, between two
 * instructions of its guest. */
void lapic_pv_set(struct lapic *l, struct space *mem, gpa_t addr);

/* What the vCPU asks at an instruction boundary: may there be something, and its vector (-1:
 * nothing). */
bool lapic_has_intr(const struct lapic *l);
int lapic_ack(struct lapic *l);

/* The pins. LINT0 of the BSP is the 8259's INTR (apic_bus_set_extint), LINT1 is NMI. */
void lapic_set_lint(struct lapic *l, unsigned n, bool level);

/* The state in which firmware hands a PC over (MP specification 3.6.2.1, virtual wire mode):
 * software enabled, LINT0 = ExtINT and LINT1 = NMI on the BSP. For booting a kernel without
 * firmware. */
void lapic_set_virtual_wire(struct lapic *l);

/* ---- for the bus ---- */

/* True if the message's logical or physical destination names this APIC. */
bool lapic_match(const struct lapic *l, const struct apic_msg *m);
/* Takes a message addressed to this APIC; false if it cannot. */
bool lapic_accept(struct lapic *l, const struct apic_msg *m);
bool lapic_sw_enabled(const struct lapic *l);
/* What the guest has said by memory takes effect: before lapic_apr() and lapic_ppr(). */
void lapic_pv_sync(struct lapic *l);
uint8_t lapic_ppr(const struct lapic *l);
uint8_t lapic_apr(const struct lapic *l);

/* ---- between lapic.c, lapic_pv.c and lapic_timer.c ---- */

void lapic_eoi(struct lapic *l);         /* the highest vector in service is done */
void lapic_pv_withdraw(struct lapic *l); /* own thread: the guest must use the register */
void lapic_pv_offer(struct lapic *l);    /* own thread: for the highest vector in service */

int lapic_timer_init(struct lapic *l, struct error *e);
extern const struct field_table lapic_timer_fields;
void lapic_timer_reset(struct lapic *l);
int lapic_timer_loaded(struct lapic *l, struct error *e); /* arms the timer */
uint32_t lapic_timer_count(const struct lapic *l);
void lapic_timer_set_initial(struct lapic *l, uint32_t v);
void lapic_timer_set_divide(struct lapic *l, uint32_t v);
void lapic_timer_set_lvt(struct lapic *l,
                         uint32_t v); /* `v` is already reduced to its valid bits */
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
/* Delivers a local interrupt of this LVT entry unless it is masked. */
void lapic_local(struct lapic *l, enum lapic_lvt n);

#endif
