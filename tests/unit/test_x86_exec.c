/* Generations of executable mappings (exec.c): they stay as long as what was executed stays where
 * it was, whatever the guest makes the TLB forget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "isa/x86/code.h"
#include "x86_sysrig.h"

#define TABLES  0x200000u
#define TABLE   (TABLES + 0x3000u) /* of the 4 MiB from AREA on */
#define LARGE   (2 * MIB)
#define AREA    0x800000u /* linear */
#define HOME    0x400000u /* where its pages are */
#define P_RWX   0x63u     /* present, writable, accessed, dirty */
#define P_LARGE 0x80u
#define P_G     0x100u
#define P_NX    (1ull << 63)

static uint64_t *pte(struct sysrig *s, unsigned page)
{
    return (uint64_t *)rig_mem(s->r, TABLE) + page;
}

static gva_t lin_of(unsigned page)
{
    return AREA + (gva_t)page * PAGE_SIZE;
}

static struct sysrig *create(uint64_t bits)
{
    struct sysrig *s = sr_create(64, 0);
    uint64_t *pml4 = rig_mem(s->r, TABLES), *pdpt = pml4 + 512, *pd = pdpt + 512;
    s->r->ram.low_end = RIG_RAM;
    pml4[0] = (TABLES + 0x1000) | P_RWX;
    pdpt[0] = (TABLES + 0x2000) | P_RWX;
    pd[0] = P_RWX | P_LARGE; /* the rig's own */
    pd[AREA / LARGE] = TABLE | P_RWX;
    pd[AREA / LARGE + 1] = (TABLE + 0x1000) | P_RWX;
    for (unsigned n = 0; n < 1024; n++)
        *pte(s, n) = (HOME + n * PAGE_SIZE) | P_RWX | bits;
    s->c->s.cr3 = TABLES;
    s->c->s.cr4 |= X86_CR4_PGE;
    s->c->s.efer |= X86_EFER_NXE;
    x86_update_mode(s->c);
    x86_tlb_flush_all(s->c);
    return s;
}

/* As an engine does that executes code there. */
static void execute(struct sysrig *s, unsigned page)
{
    uint64_t roff;
    gpa_t gpa;
    assert_true(x86_code_locate(s->c, lin_of(page), &roff, &gpa));
    x86_exec_gen(s->c, false);
    x86_exec_gen(s->c, true);
    x86_exec_note(s->c, lin_of(page));
}

static void same_pages_same_generation(void **state)
{
    struct sysrig *s = create(0);
    execute(s, 1);
    execute(s, 2);
    uint64_t gen = x86_exec_gen(s->c, false);
    x86_tlb_flush_all(s->c);
    assert_int_equal(x86_exec_gen(s->c, false), gen);
    x86_tlb_flush_nonglobal(s->c);
    assert_int_equal(x86_exec_gen(s->c, false), gen);
    x86_tlb_flush_pcid(s->c, 0);
    assert_int_equal(x86_exec_gen(s->c, false), gen);
    x86_tlb_flush_page(s->c, lin_of(1));
    assert_int_equal(x86_exec_gen(s->c, false), gen);
    *pte(s, 3) = 0; /* never executed */
    x86_tlb_flush_all(s->c);
    assert_int_equal(x86_exec_gen(s->c, false), gen);
    sr_destroy(s);
}

static void other_pages_other_generation(void **state)
{
    static const struct {
        uint64_t clear, set;
    } change[] = {{~0ull, 0},                        /* absent */
                  {0, 0x1000},                       /* another page */
                  {0, P_NX},                         /* not to be executed */
                  {0x20, 0},                         /* a fetch must set the accessed bit */
                  {X86_PAGE_MASK, 0x8000000000ull}}; /* not RAM */
    for (unsigned n = 0; n < ARRAY_LEN(change); n++) {
        struct sysrig *s = create(0);
        execute(s, 4);
        execute(s, 6);
        uint64_t gen = x86_exec_gen(s->c, false), global = x86_exec_gen(s->c, true);
        *pte(s, 4) = (*pte(s, 4) & ~change[n].clear) | change[n].set;
        if (n % 2)
            x86_tlb_flush_all(s->c);
        else
            x86_tlb_flush_page(s->c, lin_of(4));
        assert_int_not_equal(x86_exec_gen(s->c, false), gen);
        assert_int_equal(x86_exec_gen(s->c, true), global);
        sr_destroy(s);
    }
}

static void global_pages(void **state)
{
    struct sysrig *s = create(P_G);
    execute(s, 1);
    uint64_t gen = x86_exec_gen(s->c, true);
    *pte(s, 1) += 0x1000;
    x86_tlb_flush_nonglobal(s->c); /* which keeps them */
    assert_int_equal(x86_exec_gen(s->c, true), gen);
    x86_tlb_flush_all(s->c);
    assert_int_not_equal(x86_exec_gen(s->c, true), gen);
    sr_destroy(s);
}

static void large_pages(void **state)
{
    struct sysrig *s = create(0);
    uint64_t *pd = (uint64_t *)rig_mem(s->r, TABLES + 0x2000) + AREA / LARGE, was = *pd;
    *pd = HOME | P_RWX | P_LARGE;
    execute(s, 1);
    execute(s, 2);
    uint64_t gen = x86_exec_gen(s->c, false);
    x86_tlb_flush_all(s->c);
    assert_int_equal(x86_exec_gen(s->c, false), gen);
    *pd = was; /* the same memory, in small pages: not looked at further */
    x86_tlb_flush_all(s->c);
    assert_int_not_equal(x86_exec_gen(s->c, false), gen);
    sr_destroy(s);
}

static void too_many_pages(void **state)
{
    struct sysrig *s = create(0);
    for (unsigned n = 0; n <= X86_EXEC_PAGES; n++)
        execute(s, n);
    uint64_t gen = x86_exec_gen(s->c, false);
    *pte(s, 700) = 0;
    x86_tlb_flush_page(s->c, lin_of(700)); /* never executed */
    assert_int_equal(x86_exec_gen(s->c, false), gen);
    x86_tlb_flush_all(s->c);
    assert_int_not_equal(x86_exec_gen(s->c, false), gen);
    sr_destroy(s);
}

static void address_spaces(void **state)
{
    struct sysrig *s = create(0);
    s->c->s.cr4 |= X86_CR4_PCIDE;
    x86_tlb_set_pcid(s->c, 1);
    execute(s, 1);
    uint64_t one = x86_exec_gen(s->c, false);
    x86_tlb_set_pcid(s->c, 2);
    execute(s, 1);
    uint64_t two = x86_exec_gen(s->c, false);
    assert_int_not_equal(one, two);
    x86_tlb_set_pcid(s->c, 1);
    assert_int_equal(x86_exec_gen(s->c, false), one);
    *pte(s, 1) += 0x1000;
    x86_tlb_flush_pcid(s->c, 2); /* the other one */
    assert_int_equal(x86_exec_gen(s->c, false), one);
    x86_tlb_set_pcid(s->c, 2);
    assert_int_not_equal(x86_exec_gen(s->c, false), two);
    x86_tlb_set_pcid(s->c, 2 + X86_EXEC_SETS); /* takes the place of 2 */
    assert_int_not_equal(x86_exec_gen(s->c, false), one);
    x86_tlb_set_pcid(s->c, 1);
    assert_int_equal(x86_exec_gen(s->c, false), one);
    sr_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_pages_same_generation),
        cmocka_unit_test(other_pages_other_generation),
        cmocka_unit_test(global_pages),
        cmocka_unit_test(large_pages),
        cmocka_unit_test(too_many_pages),
        cmocka_unit_test(address_spaces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
