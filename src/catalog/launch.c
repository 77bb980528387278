/*
 * launch.c - from the tool's process to a VMM's: fork, a session of its own, files instead of a
 * terminal, locks, and a last word to the tool when the guest runs or cannot.
 */
#define _GNU_SOURCE
#include "catalog/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "catalog/lock.h"
#include "catalog/remote.h"
#include "catalog/saved.h"
#include "catalog/status.h"
#include "catalog/store.h"
#include "catalog/vmspec.h"
#include "vmm/vmm.h"

#define MAX_VMM_LOG (4 * 1024 * 1024)

/* The VMM's own. */
struct launch {
    const struct vm *vm;
    int lock;         /* a description of its own */
    int tell;         /* to the tool, until the guest runs; then -1 */
    const char *from; /* the state of a VM that is suspended; else NULL */
    struct vm_record record;
    struct vmm_service service;
};

/* ---- last words ---- */

static const struct {
    int signal;
    const char *words;
} fatal[] = {
    {SIGSEGV, "sosia: ended by signal SIGSEGV: a bad memory access\n"},
    {SIGBUS, "sosia: ended by signal SIGBUS: a file got shorter, or no memory is left\n"},
    {SIGABRT, "sosia: ended by signal SIGABRT\n"},
    {SIGILL, "sosia: ended by signal SIGILL: a bad instruction\n"},
    {SIGFPE, "sosia: ended by signal SIGFPE\n"},
    {SIGSYS, "sosia: ended by signal SIGSYS: a system call that the sandbox forbids\n"},
};

static void on_fatal(int sig, siginfo_t *info, void *ctx)
{
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++)
        if (fatal[i].signal == sig &&
            write(STDERR_FILENO, fatal[i].words, strlen(fatal[i].words)) < 0)
            break;
    signal(sig, SIG_DFL);
    raise(sig);
}

static void catch_fatal(void)
{
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++) {
        struct sigaction old, act = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        if (sigaction(fatal[i].signal, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            sigaction(fatal[i].signal, &act, NULL);
    }
}

/* ---- files ---- */

static int open_log(int dir, const char *name, int flags, struct error *e)
{
    char path[STORE_PATH];
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd < 0)
        error_file(e, errno, "%s: cannot write it", store_path(dir, name, path));
    return fd;
}

/* The last run's console becomes the old one. */
static int open_logs(struct launch *l, struct error *e)
{
    int dir = l->vm->dir;
    CLEANUP_CLOSE int logs = store_folder(dir, "logs", true, e);
    if (logs < 0)
        return logs;
    renameat(dir, VM_LOG_CONSOLE, dir, VM_LOG_CONSOLE_OLD);
    l->service.console_log = open_log(dir, VM_LOG_CONSOLE, O_TRUNC, e);
    l->service.console_old = open_log(dir, VM_LOG_CONSOLE_OLD, 0, e);
    l->service.events = open_log(dir, VM_LOG_EVENTS, 0, e);
    unlinkat(dir, vm_state_other(l->from), 0); /* a snapshot may have it, too */
    l->service.state = open_log(dir, vm_state_other(l->from), O_EXCL, e);
    return l->service.console_log < 0 || l->service.console_old < 0 || l->service.events < 0 ||
                   l->service.state < 0
               ? e->code
               : 0;
}

/* Standard input is empty, standard output and error are the VMM's log. */
static int take_streams(const struct launch *l, struct error *e)
{
    struct stat st;
    int dir = l->vm->dir;
    if (fstatat(dir, VM_LOG_VMM, &st, 0) == 0 && st.st_size > MAX_VMM_LOG)
        renameat(dir, VM_LOG_VMM, dir, VM_LOG_VMM_OLD);
    CLEANUP_CLOSE int log = open_log(dir, VM_LOG_VMM, O_APPEND, e);
    CLEANUP_CLOSE int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (log < 0)
        return e->code;
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
        dup2(log, STDERR_FILENO) < 0)
        return error_errno(e, ERR_HOST, errno, "cannot leave the terminal");
    return 0;
}

/* ---- the VMM ---- */

static void tell(struct launch *l, const struct error *e)
{
    if (l->tell < 0)
        return;
    if (write(l->tell, e, sizeof *e) != (ssize_t)sizeof *e)
        log_warn("the tool that started this VM has gone");
    close(l->tell);
    l->tell = -1;
}

static void on_change(void *arg, enum vmm_change what)
{
    static const struct error none;
    struct launch *l = arg;
    switch (what) {
    case VMM_READY:
        vm_lock_try(l->lock, VM_LOCK_READY);
        vm_record_ready(&l->record);
        if (l->from)
            unlinkat(l->vm->dir, l->from, 0);
        tell(l, &none);
        break;
    case VMM_PAUSED:
        vm_lock_try(l->lock, VM_LOCK_PAUSED);
        vm_record_touch(&l->record);
        break;
    case VMM_RESUMED:
        vm_lock_drop(l->lock, VM_LOCK_PAUSED);
        vm_record_touch(&l->record);
        break;
    }
}

/* Everything that the tool has open but what the VMM needs. */
static void close_others(const struct launch *l)
{
    const int keep[] = {l->vm->dir, l->tell, l->lock};
    int from = 3, next;
    do {
        next = INT_MAX;
        for (unsigned n = 0; n < ARRAY_LEN(keep); n++)
            if (keep[n] >= from && keep[n] < next)
                next = keep[n];
        if (next > from)
            close_range((unsigned)from, next == INT_MAX ? ~0u : (unsigned)next - 1, 0);
        from = next + (next < INT_MAX);
    } while (next < INT_MAX);
}

/* The tool's lock is ours, too, until we let go of it: if the tool is killed, no other verb comes
 * before this one is seen to be alive. */
static int take_over(struct launch *l, struct error *e)
{
    l->lock = vm_lock_open(l->vm->dir, true, e);
    if (l->lock < 0)
        return l->lock;
    if (!vm_lock_try(l->lock, VM_LOCK_ALIVE))
        return error_set(e, ERR_STATE, "%s runs already", l->vm->name);
    close_others(l);
    return 0;
}

static int set_up(struct launch *l, const struct spec *s, struct error *e)
{
    static const char *const engines[] = {"auto", "interp", "jit", "lockstep"};
    setsid();
    if (chdir("/") < 0)
        return error_errno(e, ERR_HOST, errno, "/");
    signal(SIGPIPE, SIG_IGN);
    int rc = take_over(l, e);
    if (!rc)
        rc = open_logs(l, e);
    if (!rc)
        rc = take_streams(l, e);
    if (rc)
        return rc;
    l->service.control = remote_listen(l->vm->dir, e);
    if (l->service.control < 0)
        return l->service.control;
    catch_fatal();
    return vm_record_begin(&l->record, l->vm->dir, engines[s->engine], l->from, e);
}

/* The end of a run, for run.json: an orderly one, or what went wrong. */
static void record(struct launch *l, const struct spec *s, int rc, const struct error *e,
                   const char *why)
{
    bool suspended = strcmp(why, VMM_WHY_SUSPENDED) == 0;
    const char *outcome = rc && rc != ERR_GUEST ? "failed" : "off";
    if (l->record.fd < 0)
        return;
    if (suspended || l->record.from)
        outcome = "suspended";
    vm_record_end(&l->record, outcome,
                  rc       ? e->msg
                  : why[0] ? why
                           : "power-off",
                  suspended ? vm_saved_note(s) : NULL);
}

static _Noreturn void be_vmm(struct launch *l, const struct spec *s)
{
    struct error e = {0};
    char why[VMM_WHY] = "";
    l->service.changed = on_change;
    l->service.arg = l;
    char state[STORE_PATH];
    const struct vmm_options o = {.verbose = 1,
                                  .state = l->from ? store_path(l->vm->dir, l->from, state) : NULL,
                                  .service = &l->service,
                                  .why = why};
    int rc = set_up(l, s, &e);
    if (!rc)
        rc = vmm_run(s, &o, &e);
    if (rc)
        log_error("%s%s%s", e.where, e.where[0] ? ": " : "", e.msg);
    record(l, s, rc, &e, why);
    if (l->lock >= 0)
        unlinkat(l->vm->dir, VM_SOCKET, 0);
    tell(l, &e);
    exit(rc ? 1 : 0);
}

int vm_launch(const struct vm *vm, const struct spec *s, struct error *e)
{
    int fd[2];
    struct vm_status status;
    vm_status_read(vm, &status);
    if (vm_is_alive(&status))
        return error_set(e, ERR_STATE, "%s is %s already", vm->name, vm_run_words[status.run]);
    if (pipe2(fd, O_CLOEXEC) < 0)
        return error_errno(e, ERR_HOST, errno, "cannot make a pipe");
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        close(fd[0]);
        close(fd[1]);
        return error_errno(e, ERR_HOST, errno, "cannot make a process");
    }
    if (pid == 0) {
        struct launch l = {.vm = vm,
                           .lock = -1,
                           .tell = fd[1],
                           .from = status.run == VM_SUSPENDED ? status.state : NULL,
                           .record = {.fd = -1}};
        be_vmm(&l, s);
    }
    close(fd[1]);
    struct error told;
    ssize_t n;
    while ((n = read(fd[0], &told, sizeof told)) < 0 && errno == EINTR)
        continue;
    close(fd[0]);
    if (n != (ssize_t)sizeof told || told.code) /* its locks end with it */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    if (n != (ssize_t)sizeof told) {
        vm_status_read(vm, &status);
        return error_set(e, ERR_GUEST, "%s could not be started: %s; see `sosia logs %s`", vm->name,
                         status.reason[0] ? status.reason : "it ended at once", vm->name);
    }
    if (told.code)
        *e = told;
    return told.code;
}

/* The record says how it is with the state from now on: it is `file`, or there is none. `saved` is
 * taken over. */
static int put_state(const struct vm *vm, const char *outcome, const char *reason, const char *file,
                     json_t *saved, struct error *e)
{
    struct vm_status status;
    struct vm_record r;
    vm_status_read(vm, &status);
    int rc = vm_record_begin(&r, vm->dir, status.engine, file ? file : status.state, e);
    if (rc) {
        json_decref(saved);
        return rc;
    }
    if (!file)
        r.from = NULL;
    vm_record_end(&r, outcome, reason, saved);
    return 0;
}

int vm_drop_state(const struct vm *vm, struct error *e)
{
    struct vm_status status;
    vm_status_read(vm, &status);
    int rc = put_state(vm, "off", "its saved state was thrown away", NULL, NULL, e);
    if (rc)
        return rc;
    unlinkat(vm->dir, status.state, 0);
    return store_sync(vm->dir, e);
}

int vm_adopt_state(const struct vm *vm, const char *file, struct error *e)
{
    struct spec s;
    int rc = vm_spec_load(vm, NULL, 0, &s, e);
    if (rc)
        return rc;
    rc = put_state(vm, "suspended", "its state is a snapshot's", file, vm_saved_note(&s), e);
    spec_fini(&s);
    return rc ? rc : store_sync(vm->dir, e);
}

int vm_forget_state(const struct vm *vm, struct error *e)
{
    struct vm_status status;
    CLEANUP_CLOSE int lock = vm_lock_open(vm->dir, true, e);
    if (lock < 0)
        return lock;
    vm_status_read(vm, &status);
    if (!vm_lock_try(lock, VM_LOCK_VERB) || status.run != VM_SUSPENDED)
        return error_set(e, ERR_STATE, "%s is not suspended any more", vm->name);
    return vm_drop_state(vm, e);
}
