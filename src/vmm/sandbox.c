/* sandbox.c - see sandbox.h. */
#define _GNU_SOURCE
#include "vmm/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

/* Who needs a call. */
#define VCPU   1u /* threads that execute the guest */
#define REST   2u /* the event loop, and the disks' threads */
#define REMOTE 4u /* the threads of remote disks */
#define ALL    (VCPU | REST)

#define WX (PROT_WRITE | PROT_EXEC)

/* A call is allowed if (argument & mask) == value; mask 0: whatever the arguments are. */
static const struct rule {
    int call;
    unsigned who;
    const char *why;
    unsigned arg;
    uint64_t mask, value;
} rules[] = {
    /* memory: never writable and executable at once; vCPUs make none executable */
    {SCMP_SYS(mmap), ALL, "malloc", 2, PROT_EXEC, 0},
    {SCMP_SYS(mmap), REST, "arenas of another engine", 2, WX, PROT_EXEC},
    {SCMP_SYS(mprotect), ALL, "malloc's arenas; stacks of new threads", 2, PROT_EXEC, 0},
    {SCMP_SYS(mprotect), REST, "arenas of another engine", 2, WX, PROT_EXEC},
    {SCMP_SYS(memfd_create), REST, "arenas of another engine", 0, 0, 0},
    {SCMP_SYS(munmap), ALL, "malloc; stacks of threads that ended", 0, 0, 0},
    {SCMP_SYS(mremap), ALL, "realloc of large blocks", 0, 0, 0},
    {SCMP_SYS(madvise), ALL, "large pages for guest memory and code; freed stacks", 0, 0, 0},
    {SCMP_SYS(brk), ALL, "malloc", 0, 0, 0},
    {SCMP_SYS(membarrier), ALL, "modified code: mem/ram.h", 0, 0, 0},
    /* waiting, threads */
    {SCMP_SYS(futex), ALL, "locks; halted vCPUs", 0, 0, 0},
    {SCMP_SYS(sched_yield), ALL, "waiting for another vCPU", 0, 0, 0},
    {SCMP_SYS(sched_getaffinity), REST, "how many processors there are", 0, 0, 0},
    {SCMP_SYS(sched_setaffinity), REST, "a disk's own thread: block/disk_near.h", 0, ~0ull, 0},
    {SCMP_SYS(getcpu), ALL, "malloc", 0, 0, 0},
    {SCMP_SYS(nanosleep), REST, "throttled disks", 0, 0, 0},
    {SCMP_SYS(clock_nanosleep), REST, "likewise", 0, 0, 0},
    {SCMP_SYS(clock_gettime), ALL, "time, where the vDSO has none; a thread's own", 0, 0, 0},
    {SCMP_SYS(gettimeofday), ALL, "time", 0, 0, 0},
    {SCMP_SYS(clone), REST, "vCPUs; who saves memory; arrays' helpers", 0, CLONE_THREAD,
     CLONE_THREAD},
    {SCMP_SYS(set_robust_list), REST, "a new thread", 0, 0, 0},
    {SCMP_SYS(rseq), REST, "a new thread", 0, 0, 0},
    {SCMP_SYS(arch_prctl), ALL, "the GS base of translated code", 0, 0, 0},
    {SCMP_SYS(prctl), REST, "names of threads", 0, ~0ull, PR_SET_NAME},
    {SCMP_SYS(prctl), REST, "a vCPU gives up more", 0, ~0ull, PR_SET_NO_NEW_PRIVS},
    {SCMP_SYS(seccomp), REST, "likewise", 0, 0, 0},
    {SCMP_SYS(gettid), ALL, "who a thread is", 0, 0, 0},
    {SCMP_SYS(getpid), ALL, "who we are", 0, 0, 0},
    {SCMP_SYS(geteuid), REST, "who may use the control socket", 0, 0, 0},
    {SCMP_SYS(exit), ALL, "the end of a thread", 0, 0, 0},
    {SCMP_SYS(exit_group), REST, "the end", 0, 0, 0},
    /* signals */
    {SCMP_SYS(rt_sigaction), ALL, "x87 and SIMD errors: isa/x86/native.c; last words", 0, 0, 0},
    {SCMP_SYS(rt_sigprocmask), ALL, "likewise; new threads", 0, 0, 0},
    {SCMP_SYS(rt_sigreturn), ALL, "likewise", 0, 0, 0},
    {SCMP_SYS(tgkill), ALL, "abort() and last words", 0, 0, 0},
    {SCMP_SYS(restart_syscall), ALL, "a wait that a signal interrupted", 0, 0, 0},
    /* devices */
    {SCMP_SYS(read), REST, "timers, wake-ups, the control socket", 0, 0, 0},
    {SCMP_SYS(write), ALL, "the log, wake-ups, the control socket", 0, 0, 0},
    {SCMP_SYS(timerfd_settime), ALL, "the guest's timers", 0, 0, 0},
    {SCMP_SYS(getrandom), ALL, "virtio-rng", 0, 0, 0},
    /* disks: what can be done at once is, by the vCPU itself */
    {SCMP_SYS(preadv2), ALL, "disks", 0, 0, 0},
    {SCMP_SYS(pwritev2), ALL, "disks", 0, 0, 0},
    {SCMP_SYS(io_uring_enter), ALL, "disks: reads and writes only, block/uring.c", 0, 0, 0},
    {SCMP_SYS(preadv), REST, "disks", 0, 0, 0},
    {SCMP_SYS(pwritev), REST, "disks", 0, 0, 0},
    {SCMP_SYS(pread64), REST, "disks", 0, 0, 0},
    {SCMP_SYS(pwrite64), REST, "disks, logs, the record of the run", 0, 0, 0},
    {SCMP_SYS(readv), REST, "disks, sockets", 0, 0, 0},
    {SCMP_SYS(writev), REST, "disks, sockets", 0, 0, 0},
    {SCMP_SYS(lseek), REST, "holes of disks; the file of a suspended VM", 0, 0, 0},
    {SCMP_SYS(fallocate), REST, "discarded and zeroed blocks", 0, 0, 0},
    {SCMP_SYS(ftruncate), REST, "images that grow, logs that start anew", 0, 0, 0},
    {SCMP_SYS(fsync), REST, "what is durable", 0, 0, 0},
    {SCMP_SYS(fdatasync), REST, "what is durable", 0, 0, 0},
    {SCMP_SYS(sync_file_range), REST, "disks", 0, 0, 0},
    {SCMP_SYS(copy_file_range), REST, "disks", 0, 0, 0},
    {SCMP_SYS(sendfile), REST, "the old log", 0, 0, 0},
    {SCMP_SYS(fstat), REST, "sizes of files", 0, 0, 0},
    {SCMP_SYS(newfstatat), REST, "sizes of files, and when disks changed", 3, AT_EMPTY_PATH,
     AT_EMPTY_PATH},
    {SCMP_SYS(fcntl), REST, "locks on images, states of the VM", 0, 0, 0},
    {SCMP_SYS(ioctl), REST, "a new client's socket", 1, ~0ull, FIONBIO},
    {SCMP_SYS(ioctl), REST, "discarded blocks of devices", 1, ~0ull, BLKDISCARD},
    {SCMP_SYS(ioctl), REST, "zeroed blocks of devices", 1, ~0ull, BLKZEROOUT},
    {SCMP_SYS(ioctl), REST, "sizes of devices", 1, ~0ull, BLKGETSIZE64},
    {SCMP_SYS(close), REST, "clients that leave; the end", 0, 0, 0},
    /* the event loop */
    {SCMP_SYS(epoll_wait), REST, "the event loop", 0, 0, 0},
    {SCMP_SYS(epoll_pwait), REST, "the event loop", 0, 0, 0},
    {SCMP_SYS(epoll_ctl), REST, "the event loop", 0, 0, 0},
    {SCMP_SYS(poll), REST, "remote disks; libuv", 0, 0, 0},
    {SCMP_SYS(ppoll), REST, "likewise", 0, 0, 0},
    {SCMP_SYS(accept4), REST, "the control socket", 0, 0, 0},
    {SCMP_SYS(getsockopt), REST, "who a client is", 0, 0, 0},
    {SCMP_SYS(recvmsg), REST, "the control socket", 0, 0, 0},
    {SCMP_SYS(sendmsg), REST, "the control socket", 0, 0, 0},
    {SCMP_SYS(shutdown), REST, "the control socket, remote disks", 0, 0, 0},
    {SCMP_SYS(unlinkat), REST, "the control socket, at the end", 0, 0, 0},
    /* remote disks, which are connected by now; what is lost stays lost */
    {SCMP_SYS(sendto), REMOTE, "iSCSI and NBD", 0, 0, 0},
    {SCMP_SYS(recvfrom), REMOTE, "iSCSI and NBD", 0, 0, 0},
};

static int add_rules(scmp_filter_ctx f, unsigned who)
{
    for (unsigned i = 0; i < ARRAY_LEN(rules); i++) {
        const struct rule *r = &rules[i];
        if (!(r->who & who))
            continue;
        int rc = r->mask ? seccomp_rule_add(f, SCMP_ACT_ALLOW, r->call, 1,
                                            SCMP_CMP(r->arg, SCMP_CMP_MASKED_EQ, r->mask, r->value))
                         : seccomp_rule_add(f, SCMP_ACT_ALLOW, r->call, 0);
        if (rc && rc != -EEXIST)
            return rc;
    }
    /* Its flags are out of a filter's sight; glibc then uses clone(). */
    return seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

int sandbox_enter(enum sandbox_role role, bool network, struct error *e)
{
    unsigned who = role == SANDBOX_VCPU ? VCPU : network ? ALL | REMOTE : ALL;
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!f)
        return error_set(e, ERR_NOMEM, "out of memory for the sandbox");
    int rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_NNP, 1);
    if (!rc && role == SANDBOX_PROCESS)
        rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!rc)
        rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: the list is long */
    if (!rc)
        rc = add_rules(f, who);
    if (!rc)
        rc = seccomp_load(f);
    seccomp_release(f);
    return rc ? error_errno(e, ERR_HOST, -rc, "this kernel refuses the sandbox (seccomp)") : 0;
}

/* ---- namespaces ---- */

static bool write_text(const char *path, const char *text, int len)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, (size_t)len) == len;
}

/* We stay who we are: files are opened later, and the control socket asks who its clients are. */
static bool map_ids(uid_t uid, gid_t gid)
{
    char text[64];
    if (!write_text("/proc/self/setgroups", "deny", 4))
        return false;
    int n = snprintf(text, sizeof text, "%u %u 1", gid, gid);
    if (!write_text("/proc/self/gid_map", text, n))
        return false;
    n = snprintf(text, sizeof text, "%u %u 1", uid, uid);
    return write_text("/proc/self/uid_map", text, n);
}

void sandbox_namespaces(bool network)
{
    int flags = CLONE_NEWIPC | CLONE_NEWUTS | (network ? 0 : CLONE_NEWNET);
    uid_t uid = geteuid();
    gid_t gid = getegid();
    /* Root needs no user namespace, and would lose files of others with one. */
    if (unshare(uid == 0 ? flags : flags | CLONE_NEWUSER) < 0)
        log_info("no namespaces of its own: the host does not allow it");
    else if (uid != 0 && !map_ids(uid, gid))
        log_warn("the user namespace has no user: files may be out of reach");
}
