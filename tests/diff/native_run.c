/*
 * native_run.c - the throw-away process, a program of its own: an instruction runs from a given
 * state.
 *
 * The process goes from case to case inside a signal handler. The kernel hands it the complete
 * state in which the last case ended, with the exception's vector, error code and address; the
 * handler notes that, writes the next case's state over it, and returns: the kernel loads it, code
 * segment and single-step flag included, and the next exception ends that case. So a case costs one
 * signal, and no code of ours runs between the state and the instruction.
 *
 * Inside the handler FS, GS, DS and ES are the case's, so that nothing there may use thread-local
 * storage; the outer state comes back with the last case. It is a program and not a mere fork
 * because its low addresses must be empty: a sanitizer has its tables there. It is built without.
 */
#define _GNU_SOURCE
#include "native.h"

#include <asm/ldt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define LEGACY_BYTES 416u /* of the FXSAVE image; what follows is the kernel's */
#define BREAKPOINT   0xcc
/* Without stack protector, which uses thread-local storage. */
#define BARE __attribute__((no_stack_protector))

static struct native_shared *shared;
static struct output *outputs;
static uint8_t *code_rw, *data_rw; /* writable mappings of what lies at CODE_AT and DATA_AT */
static unsigned case_no;
static bool started;
static greg_t home_gregs[NGREG];
static uint8_t home_fpu[LEGACY_BYTES];
static uint64_t home_fs, home_gs;

static inline BARE void copy(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static inline BARE void fill(void *to, int byte, size_t n)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
}

/* The order of struct regs. */
static const uint8_t greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                    REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                    REG_R12, REG_R13, REG_R14, REG_R15};

static BARE void save_case(ucontext_t *u, struct output *o)
{
    const greg_t *g = u->uc_mcontext.gregs;
    const uint8_t *x = (const uint8_t *)u->uc_mcontext.fpregs;
    for (unsigned n = 0; n < 16; n++)
        o->r.gpr[n] = (uint64_t)g[greg_of[n]];
    o->r.rip = (uint64_t)g[REG_RIP];
    o->r.rflags = (uint64_t)g[REG_EFL];
    o->r.seg[X86_CS] = (uint16_t)g[REG_CSGSFS];
    o->r.seg[X86_SS] = (uint16_t)((uint64_t)g[REG_CSGSFS] >> 48);
    __asm__ volatile("mov %%ds, %0" : "=r"(o->r.seg[X86_DS]));
    __asm__ volatile("mov %%es, %0" : "=r"(o->r.seg[X86_ES]));
    __asm__ volatile("mov %%fs, %0" : "=r"(o->r.seg[X86_FS]));
    __asm__ volatile("mov %%gs, %0" : "=r"(o->r.seg[X86_GS]));
    __asm__ volatile("rdfsbase %0" : "=r"(o->r.fs_base));
    __asm__ volatile("rdgsbase %0" : "=r"(o->r.gs_base));
    o->vector = (uint8_t)g[REG_TRAPNO];
    o->error = (uint32_t)g[REG_ERR];
    o->cr2 = (uint64_t)g[REG_CR2];
    copy(&o->r.fpu, x, LEGACY_BYTES);
    copy(&o->r.fpu.xstate_bv, x + 512, 64 + sizeof o->r.fpu.ymmh);
    copy(o->data, data_rw, DATA_SIZE);
}

static inline BARE void load_segments(const struct regs *r)
{
    __asm__ volatile("mov %0, %%ds" : : "r"((uint32_t)r->seg[X86_DS]));
    __asm__ volatile("mov %0, %%es" : : "r"((uint32_t)r->seg[X86_ES]));
    __asm__ volatile("mov %0, %%fs" : : "r"((uint32_t)r->seg[X86_FS]));
    __asm__ volatile("mov %0, %%gs" : : "r"((uint32_t)r->seg[X86_GS]));
    if (!r->seg[X86_FS])
        __asm__ volatile("wrfsbase %0" : : "r"(r->fs_base));
    if (!r->seg[X86_GS])
        __asm__ volatile("wrgsbase %0" : : "r"(r->gs_base));
}

static BARE void load_case(ucontext_t *u, const struct input *in)
{
    greg_t *g = u->uc_mcontext.gregs;
    uint8_t *x = (uint8_t *)u->uc_mcontext.fpregs;
    for (unsigned n = 0; n < 16; n++)
        g[greg_of[n]] = (greg_t)in->r.gpr[n];
    g[REG_RIP] = (greg_t)in->r.rip;
    g[REG_EFL] = (greg_t)in->r.rflags;
    g[REG_CSGSFS] = (greg_t)((uint64_t)in->r.seg[X86_SS] << 48 | in->r.seg[X86_CS]);
    copy(x, &in->r.fpu, LEGACY_BYTES);
    copy(x + 512, &in->r.fpu.xstate_bv, 64 + sizeof in->r.fpu.ymmh);
    copy(data_rw, shared->pool.data[in->pool], DATA_SIZE);
    copy(data_rw + in->patch_off, in->patch, in->npatch);
    uint64_t room = CODE_SIZE - in->code_off;
    copy(code_rw + in->code_off, in->code, in->len < room ? in->len : room);
    load_segments(&in->r);
}

static BARE void forget_case(const struct input *in)
{
    uint64_t room = CODE_SIZE - in->code_off;
    fill(code_rw + in->code_off, BREAKPOINT, in->len < room ? in->len : room);
}

static BARE void leave(ucontext_t *u)
{
    struct regs r = {.fs_base = home_fs, .gs_base = home_gs};
    copy(u->uc_mcontext.gregs, home_gregs, sizeof home_gregs);
    copy(u->uc_mcontext.fpregs, home_fpu, LEGACY_BYTES);
    u->uc_mcontext.gregs[REG_RIP] += 2; /* behind UD2 */
    started = false;
    load_segments(&r);
}

BARE __attribute__((used)) void diff_on_signal(int sig, siginfo_t *info, void *ctx);
void diff_on_signal(int sig, siginfo_t *info, void *ctx)
{
    ucontext_t *u = ctx;
    (void)sig;
    (void)info;
    if (!started) {
        started = true;
        copy(home_gregs, u->uc_mcontext.gregs, sizeof home_gregs);
        copy(home_fpu, u->uc_mcontext.fpregs, LEGACY_BYTES);
        __asm__ volatile("rdfsbase %0" : "=r"(home_fs));
        __asm__ volatile("rdgsbase %0" : "=r"(home_gs));
        case_no = 0;
    } else {
        save_case(u, &outputs[case_no]);
        forget_case(&shared->in[case_no]);
        atomic_store_explicit(&shared->done, ++case_no, memory_order_relaxed);
    }
    if (case_no == shared->count)
        leave(u);
    else
        load_case(u, &shared->in[case_no]);
}

/* The kernel lets a handler start with the interrupted code's AC, NT and ID. */
void diff_signal_entry(int sig, siginfo_t *info, void *ctx);
__asm__(".text\n"
        ".globl diff_signal_entry\n"
        ".hidden diff_signal_entry\n"
        ".type diff_signal_entry, @function\n"
        "diff_signal_entry:\n"
        "  pushq $0x202\n"
        "  popfq\n"
        "  jmp diff_on_signal\n");

static bool map_at(uint64_t at, size_t size, int prot, int fd, off_t off)
{
    void *p = (void *)(uintptr_t)at;
    return mmap(p, size, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, off) == p;
}

static bool map_pages(void)
{
    int fd = memfd_create("diff", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, CODE_SIZE + DATA_SIZE))
        return false;
    uint8_t *rw =
        mmap(NULL, CODE_SIZE + DATA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (rw == MAP_FAILED)
        return false;
    code_rw = rw;
    data_rw = rw + CODE_SIZE;
    memset(code_rw, BREAKPOINT, CODE_SIZE);
    memset(data_rw, 0, DATA_SIZE);
    return map_at(CODE_AT, CODE_SIZE, PROT_READ | PROT_EXEC, fd, 0) &&
           map_at(DATA_AT, DATA_RW * 4096, PROT_READ | PROT_WRITE, fd, CODE_SIZE) &&
           map_at(DATA_AT + DATA_RW * 4096, 4096, PROT_READ, fd, CODE_SIZE + DATA_RW * 4096);
}

static bool fill_ldt(void)
{
    for (unsigned n = 0; n < LDT_COUNT; n++) {
        const struct ldt_entry *e = &diff_ldt[n];
        struct user_desc d = {.entry_number = n,
                              .base_addr = e->base,
                              .limit = e->limit,
                              .seg_32bit = e->big,
                              .contents = e->contents,
                              .read_exec_only = e->read_exec_only,
                              .limit_in_pages = e->pages,
                              .seg_not_present = e->absent};
        if (syscall(SYS_modify_ldt, 1, &d, sizeof d))
            return false;
    }
    return true;
}

static bool catch_signals(void)
{
    static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    unsigned long need = getauxval(AT_MINSIGSTKSZ);
    size_t size = 65536 + 2 * need;
    stack_t ss = {.ss_sp = malloc(size), .ss_size = size};
    struct sigaction sa = {.sa_sigaction = diff_signal_entry, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (!ss.ss_sp || sigaltstack(&ss, NULL))
        return false;
    for (unsigned n = 0; n < ARRAY_LEN(sigs); n++)
        if (sigaction(sigs[n], &sa, NULL))
            return false;
    return true;
}

static bool map_shared(void)
{
    struct stat st;
    if (fstat(NATIVE_FD, &st))
        return false;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                   NATIVE_FD, 0);
    if (p == MAP_FAILED)
        return false;
    shared = p;
    outputs = native_shared_out(shared);
    return native_shared_size(shared->max) == (size_t)st.st_size;
}

int main(void)
{
    uint8_t b = NATIVE_BROKEN;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (map_shared() && catch_signals() && map_pages())
        b = fill_ldt() ? NATIVE_READY : NATIVE_NO_LDT;
    while (write(NATIVE_UP, &b, 1) == 1 && read(NATIVE_DOWN, &b, 1) == 1)
        __asm__ volatile("ud2" : : : "memory");
    return 0;
}
