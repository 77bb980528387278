/*
 * lapic_pv.c - end of interrupt without an access to the APIC: KVM's PV EOI (Linux, Documentation/
 * virt/kvm/x86/msr.rst, MSR_KVM_EOI_EN).
 *
 * When an interrupt is delivered the APIC may offer that its end be told by memory: it sets bit 0
 * of a word of the guest. The guest clears the bit instead of writing the EOI register, with one
 * instruction that also tells it whether there was an offer. Nothing in the APIC runs at that
 * moment, so its ISR may be behind the guest. Invariants:
 *  1. An offer stands for the highest vector in service. The next acknowledge withdraws it first.
 *  2. The bit is written by the vCPU's own thread only, while its guest does not run: the guest's
 *     instruction need not be atomic. Any thread may read it: once it is clear under an offer it
 *     stays so, and the interrupt is over.
 *  3. Whoever needs the ISR calls lapic_pv_sync() before. While an offer stands and something is
 *     requested, the vCPU is told to look (lapic_has_intr), for only the guest could tell whether
 *     the interrupt in service still holds the request back.
 *  4. Only an end that nobody else waits for is offered: of a vector that is edge-triggered, so
 *     that no I/O APIC gets a message, while nothing else is requested.
 */
#include "chip/lapic.h"

#define OFFER 1u

/* The byte of the guest's word that holds the bit; NULL if that is no RAM. */
static uint8_t *byte_of(const struct lapic_pv *pv)
{
    uint64_t len = 1;
    return pv->mem ? dma_map(pv->mem, pv->addr, &len) : NULL;
}

static void write_bit(const struct lapic_pv *pv, uint8_t *byte, bool on)
{
    uint8_t v = __atomic_load_n(byte, __ATOMIC_RELAXED);
    __atomic_store_n(byte, on ? v | OFFER : v & ~OFFER, __ATOMIC_RELEASE);
    dma_wrote(pv->mem, byte, 1);
}

void lapic_pv_sync(struct lapic *l)
{
    if (!l->pv.offered)
        return;
    const uint8_t *byte = byte_of(&l->pv);
    if (byte && __atomic_load_n(byte, __ATOMIC_ACQUIRE) & OFFER)
        return;
    l->pv.offered = false;
    if (byte) /* otherwise the guest has mapped its word away, and must use the register */
        lapic_eoi(l);
}

void lapic_pv_withdraw(struct lapic *l)
{
    lapic_pv_sync(l);
    if (!l->pv.offered)
        return;
    l->pv.offered = false;
    uint8_t *byte = byte_of(&l->pv);
    if (byte)
        write_bit(&l->pv, byte, false);
}

void lapic_pv_offer(struct lapic *l)
{
    uint8_t *byte = byte_of(&l->pv);
    if (!byte)
        return;
    write_bit(&l->pv, byte, true);
    l->pv.offered = true;
}

void lapic_pv_set(struct lapic *l, struct space *mem, gpa_t addr)
{
    lapic_pv_withdraw(l);
    l->pv.mem = mem;
    l->pv.addr = addr;
}
