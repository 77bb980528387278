/*
 * jit.c - the engine jit: its run loop, and what translated code calls.
 */
#define _GNU_SOURCE
#include "engine/jit/jit.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bigmem.h"
#include "engine/boundary.h"
#include "engine/jit/log.h"
#include "isa/x86/access.h"
#include "isa/x86/code.h"
#include "isa/x86/native.h"

/* Of all vCPUs together; each gets its share, but not less than the minimum. */
#define CODE_TOTAL (256 * MIB)
#define DATA_TOTAL (192 * MIB)
#define SHARE_MIN  (4 * MIB)
/* Decoded blocks are needed only for instructions that are stepped over. */
#define DECODED_BYTES (MIB / 4)
#define JMP_REL32     0xe9
#define HEAT          1000

static bool set_gs(const void *base)
{
    return syscall(SYS_arch_prctl, ARCH_SET_GS, base) == 0;
}

static int probe(struct error *e)
{
    if (!set_gs(NULL))
        return error_errno(e, ERR_HOST, errno, "cannot set the GS base");
    return 0;
}

static void detect(struct jit *j)
{
    unsigned a, b, cx, d;
    j->avx = __builtin_cpu_supports("avx");
    j->xsave = __get_cpuid(1, &a, &b, &cx, &d) && (cx & bit_OSXSAVE);
    if (__get_cpuid_count(7, 0, &a, &b, &cx, &d))
        j->bmi2 = b & bit_BMI2;
}

void jit_destroy(struct x86_cpu *c)
{
    struct jit *j = c->jit;
    if (j) {
        jit_tell_runs(j);
        jit_arena_destroy(j);
        jit_translator_destroy(j);
        bigmem_free(j->bucket, JIT_BUCKETS * sizeof *j->bucket);
        bigmem_free(j->order, jit_order_bytes(j));
        free(j);
        c->jit = NULL;
    }
    x86_native_destroy(c);
    x86_code_destroy(c);
}

static int create_jit(struct x86_cpu *c, const struct jit_sizes *z, bool exact, struct error *e)
{
    struct jit *j = calloc(1, sizeof *j);
    if (!j)
        return error_set(e, ERR_NOMEM, "out of memory for the translator");
    c->jit = j;
    c->self = c;
    for (unsigned n = 0; n < ARRAY_LEN(c->jit_returned); n++)
        c->jit_returned[n].cs_sel = ~0u;
    j->exact = exact;
    j->counting = jit_log_counts();
    detect(j);
    j->heat = z->heat ? z->heat : HEAT;
    j->size = z->code;
    j->bucket = bigmem_alloc(JIT_BUCKETS * sizeof *j->bucket);
    j->order = bigmem_alloc(jit_order_bytes(j));
    if (!j->bucket || !j->order)
        return error_set(e, ERR_NOMEM, "out of memory for the translator");
    j->granule = j->order + j->size / JIT_TB_LEAST;
    int rc = jit_translator_create(j, e);
    if (!rc)
        rc = jit_arena_create(j, z->code, z->data, e);
    if (rc)
        return rc;
    if (!jit_thunks_make(c))
        return error_set(e, ERR_LIMIT, "the translator's thunks do not fit");
    jit_flush(c);
    return 0;
}

static const struct jit_sizes *forced_sizes;

void jit_set_sizes(const struct jit_sizes *z)
{
    forced_sizes = z;
}

int jit_create(struct x86_cpu *c, const struct jit_sizes *z, bool exact, struct error *e)
{
    if (forced_sizes)
        z = forced_sizes;
    int rc = x86_code_create(c, z->decoded, e);
    if (!rc)
        rc = x86_native_create(c, e);
    if (!rc)
        rc = create_jit(c, z, exact, e);
    if (rc)
        jit_destroy(c);
    return rc;
}

static int vcpu_create(struct x86_cpu *c, struct error *e)
{
    const struct jit_sizes z = {.code = max_u64(CODE_TOTAL / c->ncpus, SHARE_MIN),
                                .data = max_u64(DATA_TOTAL / c->ncpus, SHARE_MIN),
                                .decoded = DECODED_BYTES};
    return jit_create(c, &z, false, e);
}

/* ---- called by translated code; all state is in memory ---- */

/* Takes note of what has changed since translated code ran last. */
static void settle(struct x86_cpu *c)
{
    struct jit *j = c->jit;
    if (UNLIKELY(j->code_epoch != atomic_load_explicit(&c->ram->code_epoch, memory_order_relaxed)))
        jit_sync_code(c);
    c->code_seen = j->code_epoch;
    if (UNLIKELY(j->native_flushes != c->native->flushes)) {
        jit_flush(c);
        j->native_flushes = c->native->flushes;
    }
    jit_mode_update(c);
}

struct jit_tb *jit_lookup(struct x86_cpu *c)
{
    settle(c);
    struct jit_tb *tb = jit_find(c, 0);
    if (LIKELY(tb != NULL)) {
        jit_jump_insert(c, tb);
        c->jit_page = c->s.rip - tb->rip;
    }
    return tb;
}

struct jit_tb *jit_lookup_single(struct x86_cpu *c, unsigned single)
{
    settle(c);
    struct jit_tb *tb = jit_find(c, single);
    if (LIKELY(tb != NULL))
        c->jit_page = c->s.rip - tb->rip;
    return tb;
}

/* Host code to continue with. NULL: there is none, see jit_find(). */
static const uint8_t *host_code(struct x86_cpu *c)
{
    settle(c);
    const struct x86_jump *e = &c->jump[jit_jump_index(c->s.rip)];
    const uint8_t *far = e->host;
    if (LIKELY((e->key == (c->s.rip ^ c->jit_key_global) || e->key == (c->s.rip ^ c->jit_key)) &&
               *far != JMP_REL32)) { /* which a translation that was killed begins with */
        c->jit_page = c->code_size == 64 ? c->s.rip & X86_PAGE_MASK : 0;
        return far + JIT_FAR_BYTES;
    }
    const struct jit_tb *tb = jit_lookup(c);
    return tb ? tb->entry : NULL;
}

const uint8_t *jit_c_dispatch(struct x86_cpu *c)
{
    const uint8_t *host = UNLIKELY(boundary_needed(c)) ? NULL : host_code(c);
    return host ? host : c->jit->thunk.leave;
}

const uint8_t *jit_c_link(struct x86_cpu *c, struct jit_link *l)
{
    struct jit *j = c->jit;
    struct jit_tb *from = l->from;
    uint64_t flushes = j->flushes, killed = j->stat.killed;
    c->s.rip = c->jit_page + l->rip;
    struct jit_tb *tb;
    if (l->single) /* goes on at once: what leaves before it could leave for ever */
        tb = jit_lookup_single(c, l->single);
    else
        tb = boundary_needed(c) ? NULL : jit_lookup(c);
    if (!tb)
        return j->thunk.leave;
    /* Only if the page is still the same, and `from` still alive. */
    bool same = flushes == j->flushes && killed == j->stat.killed && tb->mode == from->mode;
    if (same && tb->cross)
        jit_link_cached(c, l);
    else if (same && (tb->roff ^ from->roff) / PAGE_SIZE == 0)
        jit_link_to(c, l, tb);
    return tb->entry;
}

void jit_x87_to_memory(const struct x86_cpu *c)
{
    if (c->jit_x87_live)
        c->jit->thunk.x87_save();
}

static void call(struct x86_cpu *c, const struct jit_insn *ji)
{
    const struct x86_insn *i = &ji->i;
    c->s.gpr[X86_REG_RIP] = c->jit_page + ji->tb->rip;
    c->s.rip = (c->jit_page + ji->tb->rip + i->end) & c->ip_mask;
    c->block_end = i + 2; /* lowered if the translation must be left */
    c->cur = i;
    c->jit->stat.interps++;
    if (UNLIKELY(ji->x87))
        jit_x87_to_memory(c);
    i->fn(c, i);
    c->cur = NULL;
}

/* Code that others have written is met at the latest behind a serializing instruction (SDM vol. 3,
 * 8.1.3), and these all come here. */
static bool code_is_same(const struct x86_cpu *c)
{
    return c->jit->code_epoch == atomic_load_explicit(&c->ram->code_epoch, memory_order_acquire);
}

bool jit_c_interp(struct x86_cpu *c, struct jit_insn *ji)
{
    uint64_t behind = (c->jit_page + ji->tb->rip + ji->i.end) & c->ip_mask;
    call(c, ji);
    return c->block_end == &ji->i + 2 && !c->slow && c->s.rip == behind && !c->s.activity &&
           code_is_same(c);
}

const uint8_t *jit_c_interp_end(struct x86_cpu *c, struct jit_insn *ji)
{
    call(c, ji);
    return jit_c_dispatch(c);
}

void jit_c_raced(struct x86_cpu *c, const void *host, unsigned size)
{
    if (!(size & JIT_RACED_HELD))
        atomic_store(&c->jit_unwritten, 0);
    x86_st_raced(c, host, size & ~JIT_RACED_HELD);
}

/* ---- the run loop ---- */

/* Not inlined into the function that calls sigsetjmp, where nothing may live in registers. */
static __attribute__((noinline)) void loop(struct x86_cpu *c, enum engine_exit *why)
{
    for (;;) {
        if (UNLIKELY(boundary_needed(c))) {
            if (!boundary_look(c, why))
                return;
            if (c->slow) {
                jit_x87_to_memory(c);
                boundary_step(c);
                continue;
            }
        }
        /* Something may still be pending that is masked: one translation is executed all the same.
         */
        const uint8_t *host = host_code(c);
        if (host) {
            c->jit->thunk.enter(host);
        } else {
            jit_x87_to_memory(c);
            boundary_step(c); /* an instruction in device memory */
        }
    }
}

void jit_bind_thread(struct x86_cpu *c)
{
    static _Thread_local struct x86_cpu *gs;
    if (gs != c) {
        set_gs(c);
        gs = c;
    }
}

static enum engine_exit run(struct x86_cpu *c)
{
    sigjmp_buf env;
    enum engine_exit why = ENGINE_EXIT_KICK;
    jit_bind_thread(c);
    x86_set_arith_flags(c, (uint32_t)c->s.rflags);
    x86_update_mode(c);
    c->cur = NULL;
    c->env = &env;
    if (sigsetjmp(env, 0))
        boundary_deliver(c);
    loop(c, &why);
    jit_x87_to_memory(c);
    c->s.rflags = x86_rflags(c);
    c->env = NULL;
    return why;
}

const struct engine engine_jit = {
    .name = "jit",
    .technique = "dynamic recompilation",
    .probe = probe,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = jit_destroy,
    .run = run,
};
