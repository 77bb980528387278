/*
 * mem.c - memory and page tables. mem.h
 */
#include "mem.h"

#define POOL     0x800000u
#define POOL_END 0x3000000u

static ulong pool = POOL;

void *pages_alloc(unsigned n, unsigned align)
{
    ulong p = (pool + align - 1) & ~(ulong)(align - 1);
    pool = p + n * 4096;
    if (pool > POOL_END)
        power_off(); /* the runner misses the rest of the plan */
    return memset((void *)p, 0, n * 4096);
}

void *page_alloc(void)
{
    return pages_alloc(1, 4096);
}

#ifdef __x86_64__

uint64_t *pml4;
static uint8_t *user_code;

volatile uint64_t *entry_of(uint64_t va, unsigned level)
{
    uint64_t *table = pml4;
    for (unsigned l = 4;; l--) {
        volatile uint64_t *e = &table[va >> (12 + 9 * (l - 1)) & 511];
        if (l == level)
            return e;
        if (!(*e & P_P))
            *e = (uint64_t)page_alloc() | P_P | P_W | P_U;
        table = (uint64_t *)(*e & 0xffffffff000ull);
    }
}

void map_page(uint64_t va, uint64_t pa, uint64_t flags)
{
    *entry_of(va, 1) = pa | flags;
    invlpg((void *)va);
}

void mem_init(void)
{
    pml4 = page_alloc();
    for (uint64_t a = 0; a < 1ull << 32; a += 2 << 20)
        *entry_of(a, 2) = a | P_P | P_W | P_PS;
    user_code = page_alloc();
    set_cr3((ulong)pml4);
    map_page(USER_CODE, (ulong)user_code, P_P | P_U);
    for (unsigned n = 1; n <= 4; n++)
        map_page(USER_STACK - n * 4096, (ulong)page_alloc(), P_P | P_W | P_U);
}

void user_frame(struct frame *f, const void *code, size_t len, ulong arg)
{
    memset(f, 0, sizeof *f);
    memset(user_code, 0xcc, 4096);
    memcpy(user_code, code, len);
    f->ip = USER_CODE;
    f->cs = U_CS64;
    f->flags = 2;
    f->sp = USER_STACK;
    f->ss = U_DS;
    f->di = arg;
}

#else

static uint8_t user_stack[4096] __attribute__((aligned(16)));

void mem_init(void)
{
}

void user_frame(struct frame *f, const void *code, size_t len, ulong arg)
{
    memset(f, 0, sizeof *f);
    f->ip = (ulong)code;
    f->cs = U_CS32;
    f->flags = 2;
    f->sp = (ulong)user_stack + sizeof user_stack;
    f->ss = f->ds = f->es = f->fs = f->gs = U_DS;
    f->di = arg;
}

#endif

unsigned user_run(const void *code, size_t len, ulong arg)
{
    struct frame f;
    user_frame(&f, code, len, arg);
    return run_frame(&f);
}
