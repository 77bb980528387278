/*
 * vm_bus.c - the way between vCPUs and the board: each crossing takes the device lock.
 */
#include <stdio.h>

#include "isa/x86/native.h"
#include "vmm/vm.h"

static struct vcpu *vcpu_of(void *ctx)
{
    return ctx;
}

static uint64_t io_read(void *ctx, uint16_t port, unsigned size)
{
    struct vm *vm = vcpu_of(ctx)->vm;
    pthread_mutex_lock(&vm->lock);
    uint64_t v = space_read(pc_port(vm->pc), port, size);
    pthread_mutex_unlock(&vm->lock);
    return v;
}

/* The old way to report x87 errors (SDM vol. 1, D.2.1): FERR# raises interrupt 13; writing port F0h
 * lowers it and asserts IGNNE# until the error is gone. */
#define FERR_LATCH 0xf0

static void ferr(void *ctx, bool level)
{
    struct vm *vm = vcpu_of(ctx)->vm;
    pthread_mutex_lock(&vm->lock);
    pc_set_ferr(vm->pc, level);
    pthread_mutex_unlock(&vm->lock);
}

static void io_write(void *ctx, uint16_t port, uint64_t val, unsigned size)
{
    struct vm *vm = vcpu_of(ctx)->vm;
    if (UNLIKELY(port == FERR_LATCH)) {
        x86_set_ignne(vcpu_of(ctx)->cpu, true);
        ferr(ctx, false);
        return;
    }
    vm_lock_devices(vm);
    space_write(pc_port(vm->pc), port, val, size);
    vm_unlock_devices(vm);
}

static uint64_t mem_read(void *ctx, gpa_t addr, unsigned size)
{
    struct vcpu *v = ctx;
    pthread_mutex_lock(&v->vm->lock);
    uint64_t r = pc_mem_read(v->vm->pc, v->cpu->index, addr, size);
    pthread_mutex_unlock(&v->vm->lock);
    return r;
}

static void mem_write(void *ctx, gpa_t addr, uint64_t val, unsigned size)
{
    struct vcpu *v = ctx;
    vm_lock_devices(v->vm);
    pc_mem_write(v->vm->pc, v->cpu->index, addr, val, size);
    vm_unlock_devices(v->vm);
}

static int intr_ack(void *ctx)
{
    struct vcpu *v = ctx;
    pthread_mutex_lock(&v->vm->lock);
    int vector = pc_intr_ack(v->vm->pc, v->cpu->index);
    if (vector >= 0 && pc_intr_pending(v->vm->pc, v->cpu->index))
        vcpu_post(v, X86_PEND_INTR);
    pthread_mutex_unlock(&v->vm->lock);
    vcpu_report_steal(v); /* guests look at it in their timer interrupt */
    return vector;
}

static uint64_t tsc(void *ctx)
{
    return muldiv_u64((uint64_t)vclock_now(&vcpu_of(ctx)->vm->clock), PC_TSC_HZ, NS_PER_SEC);
}

static uint64_t get_tpr(void *ctx)
{
    struct vcpu *v = ctx;
    pthread_mutex_lock(&v->vm->lock);
    uint64_t r = pc_get_cr8(v->vm->pc, v->cpu->index);
    pthread_mutex_unlock(&v->vm->lock);
    return r;
}

static void set_tpr(void *ctx, uint64_t cr8)
{
    struct vcpu *v = ctx;
    pthread_mutex_lock(&v->vm->lock);
    pc_set_cr8(v->vm->pc, v->cpu->index, cr8);
    pthread_mutex_unlock(&v->vm->lock);
}

static bool apic_msr(void *ctx, uint32_t msr, bool write, uint64_t *val)
{
    struct vcpu *v = ctx;
    vm_lock_devices(v->vm);
    bool ok = pc_apic_msr(v->vm->pc, v->cpu->index, msr, write, val);
    vm_unlock_devices(v->vm);
    return ok;
}

static bool pv_msr(void *ctx, uint32_t msr, bool write, uint64_t *val)
{
    struct vcpu *v = ctx;
    struct kvm_pv *pv = pc_kvm_pv(v->vm->pc);
    pthread_mutex_lock(&v->vm->lock);
    bool ok = write ? kvm_pv_write_msr(pv, v->cpu->index, msr, *val)
                    : kvm_pv_read_msr(pv, v->cpu->index, msr, val);
    pthread_mutex_unlock(&v->vm->lock);
    return ok;
}

static int64_t hypercall(void *ctx, const struct x86_hypercall *h)
{
    struct vcpu *v = ctx;
    pthread_mutex_lock(&v->vm->lock);
    int64_t r = kvm_pv_hypercall(pc_kvm_pv(v->vm->pc), h);
    pthread_mutex_unlock(&v->vm->lock);
    return r;
}

static void tsc_moved(void *ctx, uint64_t offset)
{
    struct vcpu *v = ctx;
    pthread_mutex_lock(&v->vm->lock);
    kvm_pv_tsc_moved(pc_kvm_pv(v->vm->pc), v->cpu->index, offset);
    pthread_mutex_unlock(&v->vm->lock);
}

static void unwrite_others(void *ctx, uint64_t roff, uint64_t places)
{
    struct vcpu *self = ctx;
    for (unsigned n = 0; n < self->vm->nvcpu; n++)
        if (&self->vm->vcpu[n] != self)
            x86_tlb_unwrite(self->vm->vcpu[n].cpu, roff, places);
}

/* A vCPU that sleeps looks when it wakes for another reason. */
void vm_code_written(void *ctx)
{
    struct vm *vm = ctx;
    for (unsigned n = 0; n < vm->nvcpu; n++)
        vcpu_note(&vm->vcpu[n], X86_PEND_CODE);
}

void vm_setup_cpu(struct vm *vm, struct x86_cpu *c)
{
    c->ncpus = vm->spec->cpus;
    c->mem = pc_mem(vm->pc);
    c->ram = &vm->ram;
    c->model = &vm->model;
    atomic_store(&c->a20_mask, ~0ull);
    c->bus = (struct x86_bus){
        .io_read = io_read,
        .io_write = io_write,
        .mem_read = mem_read,
        .mem_write = mem_write,
        .intr_ack = intr_ack,
        .tsc = tsc,
        .tsc_line = PC_TSC_HZ == NS_PER_SEC ? &vm->clock.line : NULL,
        .get_tpr = get_tpr,
        .set_tpr = set_tpr,
        .apic_msr = apic_msr,
        .pv_msr = pv_msr,
        .hypercall = hypercall,
        .tsc_moved = tsc_moved,
        .unwrite_others = unwrite_others,
        .ctx = &vm->vcpu[c->index],
    };
    c->ferr.fn = ferr;
    c->ferr.ctx = &vm->vcpu[c->index];
}

/* ---- what the board asks of us; the device lock is held ---- */

static void host_post(void *ctx, unsigned cpu, uint32_t pend)
{
    struct vm *vm = ctx;
    if (cpu < vm->nvcpu)
        vcpu_post_locked(&vm->vcpu[cpu], pend);
}

static void host_sipi(void *ctx, unsigned cpu, uint8_t vector)
{
    struct vm *vm = ctx;
    if (cpu >= vm->nvcpu)
        return;
    atomic_store(&vm->vcpu[cpu].cpu->sipi_vector, vector);
    vcpu_post(&vm->vcpu[cpu], X86_PEND_SIPI);
}

static void host_unhalt(void *ctx, unsigned cpu)
{
    struct vm *vm = ctx;
    if (cpu < vm->nvcpu)
        vcpu_unhalt(&vm->vcpu[cpu]);
}

static void host_map_changed(void *ctx)
{
    vm_post_all(ctx, X86_PEND_TLB);
}

static void host_a20(void *ctx, bool open)
{
    struct vm *vm = ctx;
    for (unsigned n = 0; n < vm->nvcpu; n++)
        atomic_store(&vm->vcpu[n].cpu->a20_mask, open ? ~0ull : ~(uint64_t)MIB);
    vm_post_all(vm, X86_PEND_TLB);
}

static void host_reset(void *ctx, const char *why)
{
    vm_request(ctx, VM_REQ_RESET, why);
}

static void host_poweroff(void *ctx)
{
    vm_request(ctx, VM_REQ_POWEROFF, "power-off");
}

static void host_exit(void *ctx, uint32_t status)
{
    char why[32];
    snprintf(why, sizeof why, "status %u", status);
    vm_request(ctx, status ? VM_REQ_EXIT : VM_REQ_POWEROFF, why);
}

struct pc_host vm_pc_host(struct vm *vm)
{
    return (struct pc_host){
        .post = host_post,
        .sipi = host_sipi,
        .unhalt = host_unhalt,
        .map_changed = host_map_changed,
        .a20 = host_a20,
        .reset = host_reset,
        .poweroff = host_poweroff,
        .exit = host_exit,
        .ctx = vm,
    };
}
