/*
 * native.c - the arena of native stubs: memory, lookup, and the signals a stub can cause.
 *
 * A stub runs the guest's instruction with the guest's MXCSR. If that unmasks an error, the host
 * reports it by SIGFPE; a guest instruction which the decoder accepts but the host does not ends in
 * SIGILL. The handler finds the program counter in one of the arenas, puts the host's MXCSR back
 * and lets the interrupted context continue in a C function, as if the stub had jumped there: RSP
 * is unchanged within stubs and RDI is the vCPU (invariant 2 of native.h). Nothing was stored yet.
 */
#define _GNU_SOURCE
#include "isa/x86/native.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "isa/x86/fpu.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u /* Linux 6.3: needed where vm.memfd_noexec is set */
#endif

#define HOST_MXCSR 0x1f80u

/* ---- the process-wide list of arenas, read by the signal handler ---- */

#define ARENAS_MAX 256
static _Atomic uintptr_t arenas[ARENAS_MAX]; /* start of the executable mapping, or 0 */
static struct sigaction old_fpe, old_ill;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int install_errno;

static bool in_arena(uintptr_t pc)
{
    for (unsigned n = 0; n < ARENAS_MAX; n++) {
        uintptr_t a = atomic_load_explicit(&arenas[n], memory_order_acquire);
        if (a && pc - a < X86_NATIVE_ARENA)
            return true;
    }
    return false;
}

/* MMX registers may be in use. If the unit holds the guest's state, this was no stub that uses it.
 */
static void default_x87(const struct x86_cpu *c)
{
    if (!c->jit_x87_live)
        __asm__ volatile("fninit");
}

/* SDM vol. 3, 2.5: without CR4.OSXMMEXCPT an unmasked SIMD error is #UD. */
static _Noreturn void simd_error(struct x86_cpu *c)
{
    default_x87(c);
    x86_raise(c, c->s.cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
}

static _Noreturn void stub_undefined(struct x86_cpu *c)
{
    default_x87(c);
    x86_ud(c);
}

static void pass_on(int sig, siginfo_t *info, void *ctx)
{
    const struct sigaction *old = sig == SIGFPE ? &old_fpe : &old_ill;
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(sig, info, ctx);
    else if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN)
        sigaction(sig, old, NULL); /* the instruction runs again and takes the default action */
    else
        old->sa_handler(sig);
}

static void on_signal(int sig, siginfo_t *info, void *ctx)
{
    ucontext_t *u = ctx;
    greg_t *r = u->uc_mcontext.gregs;
    if (!in_arena((uintptr_t)r[REG_RIP])) {
        pass_on(sig, info, ctx);
        return;
    }
    struct x86_cpu *c = (struct x86_cpu *)r[REG_RDI];
    struct _libc_fpstate *fp = u->uc_mcontext.fpregs;
    void (*to)(struct x86_cpu *) = stub_undefined;
    if (sig == SIGFPE) {
        c->s.fpu.mxcsr = fp->mxcsr; /* with the flags of the error */
        to = simd_error;
    }
    fp->mxcsr = HOST_MXCSR;
    r[REG_RIP] = (greg_t)(uintptr_t)to;
}

static void install(void)
{
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    if (sigaction(SIGFPE, &sa, &old_fpe) || sigaction(SIGILL, &sa, &old_ill))
        install_errno = errno;
}

static int register_arena(struct x86_native *n, struct error *e)
{
    pthread_once(&once, install);
    if (install_errno)
        return error_errno(e, ERR_HOST, install_errno, "cannot install a signal handler");
    for (unsigned k = 0; k < ARENAS_MAX; k++) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong(&arenas[k], &none, (uintptr_t)n->rx)) {
            n->registered = (int)k;
            return 0;
        }
    }
    return error_set(e, ERR_LIMIT, "more than %d virtual CPUs in one process", ARENAS_MAX);
}

/* ---- life cycle ---- */

static int map_arena(struct x86_native *n, struct error *e)
{
    int fd = memfd_create("sosia-stubs", MFD_CLOEXEC | MFD_EXEC);
    if (fd < 0 && errno == EINVAL) /* a kernel that does not know MFD_EXEC */
        fd = memfd_create("sosia-stubs", MFD_CLOEXEC);
    if (fd < 0)
        return error_errno(e, ERR_HOST, errno, "cannot create executable memory");
    void *rw = MAP_FAILED, *rx = MAP_FAILED;
    if (ftruncate(fd, X86_NATIVE_ARENA) == 0) {
        rw = mmap(NULL, X86_NATIVE_ARENA, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        rx = mmap(NULL, X86_NATIVE_ARENA, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    int err = errno;
    close(fd);
    n->rw = rw == MAP_FAILED ? NULL : rw;
    n->rx = rx == MAP_FAILED ? NULL : rx;
    if (!n->rw || !n->rx)
        return error_errno(e, ERR_HOST, err, "cannot map executable memory");
    return 0;
}

/* MXCSR_MASK is the processor's (SDM vol. 1, 11.6.6), but for AMD's bit 17, MM. */
static uint32_t host_mxcsr_mask(void)
{
    struct x86_xsave image;
    memset(&image, 0, sizeof image);
    __asm__ volatile("fxsave64 %0" : "+m"(image));
    return image.mxcsr_mask ? image.mxcsr_mask & X86_MXCSR_BITS : 0xffbf;
}

/* Which of the x87 pointers does an instruction without an error set here? FOP and FDP it may leave
 * (SDM vol. 1, 8.1.8 and 8.1.9). AMD's processors set all three, and FNSTENV stores them, but
 * FXSAVE stores zeros unless an error is pending (APM vol. 2, 11.4.4): there the system forgets
 * them, too, if it switches tasks before FNSTENV. */
static void probe_pointers(struct x86_native *n, struct x86_xsave *image)
{
    static const double one = 1.0;
    struct x86_xsave after = *image;
    uint32_t env[7];
    for (unsigned tries = 0; tries < 100; tries++) {
        __asm__ volatile("fxrstor64 %2; faddl %3; fxsave64 %0; fnstenv %1; fninit"
                         : "+m"(after), "=m"(env)
                         : "m"(*image), "m"(one));
        if (env[3]) /* FIP: and so the others are what the instruction made them */
            break;
    }
    n->pointers_hidden = !after.fip;
    n->fop_always = n->pointers_hidden ? env[4] >> 16 & 0x7ff : after.fop;
    n->fdp_always = n->pointers_hidden ? env[5] : after.fdp;
}

static void probe_x87(struct x86_native *n)
{
    struct x86_xsave image;
    memset(&image, 0, sizeof image);
    image.fcw = 0x37f;
    image.mxcsr = HOST_MXCSR;
    image.ftw = 0xff;
    probe_pointers(n, &image);
    image.fsw = 0x200;
    __asm__ volatile("fxrstor64 %0; fcomi %%st(1), %%st; fxsave64 %0; fninit"
                     : "+m"(image)
                     :
                     : "cc");
    n->fcomi_clears_c1 = !(image.fsw & 0x200);
    n->lean.host_fcw = 0x37f;
}

int x86_native_create(struct x86_cpu *c, struct error *e)
{
    struct x86_native *n = aligned_alloc(64, (sizeof *n + 63) & ~(size_t)63);
    if (!n)
        return error_set(e, ERR_NOMEM, "out of memory for native stubs");
    memset(n, 0, sizeof *n);
    n->registered = -1;
    c->native = n;
    int rc = map_arena(n, e);
    if (rc == 0)
        rc = register_arena(n, e);
    if (rc) {
        x86_native_destroy(c);
        return rc;
    }
    c->s.fpu.mxcsr_mask = host_mxcsr_mask();
    probe_x87(n);
    x86_native_flush(c);
    return 0;
}

void x86_native_destroy(struct x86_cpu *c)
{
    struct x86_native *n = c->native;
    if (!n)
        return;
    if (n->registered >= 0)
        atomic_store_explicit(&arenas[n->registered], 0, memory_order_release);
    if (n->rx)
        munmap(n->rx, X86_NATIVE_ARENA);
    if (n->rw)
        munmap(n->rw, X86_NATIVE_ARENA);
    free(n);
    c->native = NULL;
}

void x86_native_flush(struct x86_cpu *c)
{
    struct x86_native *n = c->native;
    if (!n || (n->count == 0 && n->used))
        return;
    memset(n->slot, 0, sizeof n->slot);
    n->count = 0;
    n->flushes++;
    uint32_t mxcsr = HOST_MXCSR;
    memcpy(n->rw + X86_NATIVE_MXCSR_OFFSET, &mxcsr, sizeof mxcsr);
    n->used = 64;
    /* Code is about to be replaced through another linear address than it is executed at: SDM 9.1.3
     * asks for a serializing instruction. */
    uint32_t a = 0, b, cx = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(cx), "=d"(d) : : "memory");
}

bool x86_native_full(const struct x86_cpu *c)
{
    const struct x86_native *n = c->native;
    return n &&
           (X86_NATIVE_ARENA - n->used < X86_NATIVE_RESERVE || n->count > X86_NATIVE_SLOTS / 4 * 3);
}

/* ---- lookup: open addressing ---- */

static struct x86_native_slot *slot_of(struct x86_native *n, const struct x86_stub_key *k)
{
    uint64_t w[3], h;
    _Static_assert(sizeof *k == sizeof w, "the key is hashed as three words");
    memcpy(w, k, sizeof w);
    h = (w[0] ^ (w[1] << 23 | w[1] >> 41) ^ w[2] << 11) * 0x9e3779b97f4a7c15ull;
    for (unsigned at = (unsigned)(h >> 40);; at++) {
        struct x86_native_slot *s = &n->slot[at & (X86_NATIVE_SLOTS - 1)];
        if (!s->offset || memcmp(&s->key, k, sizeof *k) == 0)
            return s;
    }
}

x86_stub_fn x86_native_find(struct x86_cpu *c, const struct x86_stub_key *k)
{
    const struct x86_native_slot *s = slot_of(c->native, k);
    return s->offset ? (x86_stub_fn)(uintptr_t)(c->native->rx + s->offset) : NULL;
}

x86_stub_fn x86_native_add(struct x86_cpu *c, const struct x86_stub_key *k, const uint8_t *code,
                           unsigned len)
{
    struct x86_native *n = c->native;
    if (X86_NATIVE_ARENA - n->used < len + 16 || n->count >= X86_NATIVE_SLOTS - 1)
        return NULL;
    struct x86_native_slot *s = slot_of(n, k);
    s->key = *k;
    s->offset = n->used;
    memcpy(n->rw + n->used, code, len);
    n->used = (n->used + len + 15) & ~15u;
    n->count++;
    return (x86_stub_fn)(uintptr_t)(n->rx + s->offset);
}
