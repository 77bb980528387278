/*
 * x86_harness.h - a vCPU with 16 MiB of RAM and nothing else, that executes code given as bytes.
 *
 * The code is fetched from the caller's array, as if it lay at linear address RIG_CODE. In every
 * mode linear addresses are guest-physical ones; in 64-bit mode page tables at RIG_TABLES say so.
 */
#ifndef SOSIA_TESTS_UNIT_X86_HARNESS_H
#define SOSIA_TESTS_UNIT_X86_HARNESS_H

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "isa/x86/access.h"
#include "isa/x86/code.h"

#define RIG_RAM    (16 * MIB)
#define RIG_CODE   0x10000u
#define RIG_TABLES 0x20000u
#define RIG_OK     (-1) /* the end of the code was reached */
#define RIG_LOST   (-2) /* RIP left the code */
#define RIG_STEPS  (-3) /* the step limit was reached */

struct rig {
    struct ram ram;
    struct space space;
    struct x86_cpu *c;
    struct x86_insn insn;
    unsigned steps; /* instructions executed by the last rig_run() */
    unsigned mmio_reads, mmio_writes;
    uint8_t mmio[PAGE_SIZE]; /* what accesses outside RAM see, by address modulo page size */
};

static inline uint64_t rig_mem_read(void *ctx, gpa_t addr, unsigned size)
{
    struct rig *r = ctx;
    uint64_t v = 0;
    r->mmio_reads++;
    memcpy(&v, r->mmio + addr % PAGE_SIZE, size);
    return v;
}

static inline void rig_mem_write(void *ctx, gpa_t addr, uint64_t val, unsigned size)
{
    struct rig *r = ctx;
    r->mmio_writes++;
    memcpy(r->mmio + addr % PAGE_SIZE, &val, size);
}

static inline void rig_unwrite(void *ctx, uint64_t roff, uint64_t places)
{
}

static inline void *rig_mem(struct rig *r, gpa_t addr)
{
    return r->ram.host + addr;
}

/* PML4 -> PDPT -> one PD of 2 MiB pages: the first GiB, user-accessible and writable. */
static inline void rig_page_tables(struct rig *r)
{
    uint64_t *pml4 = rig_mem(r, RIG_TABLES), *pdpt = pml4 + 512, *pd = pdpt + 512;
    pml4[0] = (RIG_TABLES + 0x1000) | 7;
    pdpt[0] = (RIG_TABLES + 0x2000) | 7;
    for (unsigned n = 0; n < 512; n++)
        pd[n] = (uint64_t)n << 21 | 0x87;
}

/* 16: real mode; 32: flat protected mode without paging; 64: 64-bit mode. CPL 0. */
static inline void rig_mode(struct rig *r, unsigned bits)
{
    struct x86_cpu *c = r->c;
    x86_reset(c, false);
    c->s.gpr[X86_RSP] = 0x8000;
    for (unsigned n = 0; n < X86_NSEG; n++) {
        uint32_t attr = X86_ATTR_P | X86_ATTR_S | X86_TYPE_RW | X86_TYPE_A;
        if (n == X86_CS && bits != 16)
            attr |= X86_TYPE_X;
        if (bits == 32 || (bits == 64 && n != X86_CS))
            attr |= X86_ATTR_DB | X86_ATTR_G;
        if (bits == 64 && n == X86_CS)
            attr |= X86_ATTR_L | X86_ATTR_G;
        c->s.seg[n] = (struct x86_seg){.limit = bits == 16 ? 0xffff : ~0u, .attr = attr};
    }
    c->s.cr0 = X86_CR0_ET | (bits == 16 ? 0 : X86_CR0_PE);
    if (bits == 16) {
        c->s.seg[X86_CS].base = RIG_CODE;
        c->s.seg[X86_CS].sel = RIG_CODE >> 4;
    }
    if (bits == 64) {
        c->s.cr0 |= X86_CR0_PG | X86_CR0_WP;
        c->s.cr4 = X86_CR4_PAE;
        c->s.cr3 = RIG_TABLES;
        c->s.efer = X86_EFER_LME | X86_EFER_LMA;
        rig_page_tables(r);
    }
    x86_tlb_flush_all(c);
    x86_update_mode(c);
}

static inline struct rig *rig_create(unsigned bits)
{
    struct rig *r = calloc(1, sizeof *r);
    unsigned id;
    r->c = aligned_alloc(64, (sizeof *r->c + 63) / 64 * 64);
    memset(r->c, 0, sizeof *r->c);
    if (ram_init(&r->ram, RIG_RAM, NULL) || space_init(&r->space, 1ull << 40, &r->ram, NULL) ||
        space_add_ram(&r->space, 0, RIG_RAM, 0, 0, &id, NULL))
        abort();
    r->c->ram = &r->ram;
    r->c->mem = &r->space;
    r->c->ncpus = 1;
    r->c->a20_mask = ~0ull;
    r->c->bus = (struct x86_bus){.mem_read = rig_mem_read,
                                 .mem_write = rig_mem_write,
                                 .unwrite_others = rig_unwrite,
                                 .ctx = r};
    rig_mode(r, bits);
    return r;
}

static inline void rig_destroy(struct rig *r)
{
    space_fini(&r->space);
    ram_fini(&r->ram);
    free(r->c);
    free(r);
}

static inline uint64_t rig_code_base(const struct rig *r)
{
    return r->c->code_size == 16 ? 0 : RIG_CODE;
}

/* Executes at most `max` instructions of `code` from s.rip on, one by one. */
static inline int rig_continue(struct rig *r, const uint8_t *code, unsigned len, unsigned max)
{
    struct x86_cpu *c = r->c;
    sigjmp_buf env;
    c->env = &env;
    if (sigsetjmp(env, 0)) {
        if (r->c->cur && !r->c->exc.trap && !r->c->exc.soft)
            r->c->s.rip = x86_insn_rip(r->c);
        r->c->cur = NULL;
        return r->c->exc.vector;
    }
    for (r->steps = 0; r->steps < max; r->steps++) {
        uint64_t off = c->s.rip - rig_code_base(r);
        if (off == len)
            return RIG_OK;
        if (off > len)
            return RIG_LOST;
        unsigned n = x86_decode(c, code + off, len - (unsigned)off, 0, &r->insn);
        if (!n)
            return RIG_LOST;
        c->s.gpr[X86_REG_RIP] = c->s.rip;
        c->s.rip = (c->s.rip + n) & c->ip_mask;
        c->cur = &r->insn;
        c->block_end = &r->insn + 1;
        r->insn.fn(c, &r->insn);
        c->cur = NULL;
    }
    return c->s.rip - rig_code_base(r) == len ? RIG_OK : RIG_STEPS;
}

/* The same from the start. Returns RIG_* or the vector of the exception raised. */
static inline int rig_run(struct rig *r, const uint8_t *code, unsigned len)
{
    r->c->s.rip = rig_code_base(r);
    return rig_continue(r, code, len, 10000);
}

#endif
