/*
 * kill.c - a process that works on an image is killed at a random moment: a child of this test that
 * writes as a VM does, with many requests in flight, or the program `sosia disk`.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "block/disk.h"
#include "crash.h"

#define DEPTH    12
#define MAX_LEN  64u   /* sectors of a request */
#define PATIENCE 20000 /* ms for the child to do something */

extern char **environ;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void sleep_us(uint64_t us)
{
    nanosleep(&(struct timespec){(time_t)(us / 1000000), (long)(us % 1000000) * 1000}, NULL);
}

/* ---- a child that writes ---- */

struct slot {
    struct blk_req req;
    struct iovec iov;
    uint32_t *buf, stamp;
    bool busy;
};

struct writer {
    struct blk *blk;
    pthread_mutex_t lock; /* of all that follows, and of the model */
    pthread_cond_t news;
    struct slot slot[DEPTH];
    unsigned inflight;
    bool flushing;
    unsigned *done; /* requests, in memory that the parent sees */
};

static void ended(struct writer *w, int result)
{
    if (result)
        _exit(2);
    __atomic_fetch_add(w->done, 1, __ATOMIC_RELAXED);
    pthread_cond_signal(&w->news);
}

static void written(struct blk_req *req, int result)
{
    struct slot *s = CONTAINER_OF(req, struct slot, req);
    struct writer *w = req->arg;
    uint64_t first = req->offset / SECTOR, n = req->len / SECTOR;
    if (!result && req->fua)
        model_durable(rig.m, first, n, s->stamp);
    if (!w->flushing) /* else the flush may have begun before */
        model_busy(rig.m, first, n, false);
    s->busy = false;
    w->inflight--;
    ended(w, result);
}

static void flushed(struct blk_req *req, int result)
{
    struct writer *w = req->arg;
    if (!result)
        model_flushed(rig.m);
    w->flushing = false;
    for (uint64_t i = 0; i < MAX_SECTORS; i++)
        rig.m->sector[i].busy = false;
    for (unsigned i = 0; i < DEPTH; i++)
        if (w->slot[i].busy)
            model_busy(rig.m, w->slot[i].req.offset / SECTOR, w->slot[i].req.len / SECTOR, true);
    ended(w, result);
}

static bool overlaps(const struct writer *w, uint64_t first, uint64_t n)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        uint64_t at = w->slot[i].req.offset / SECTOR, len = w->slot[i].req.len / SECTOR;
        if (w->slot[i].busy && first < at + len && at < first + n)
            return true;
    }
    return false;
}

static void write_something(struct writer *w, struct slot *s)
{
    uint64_t n = 1 + rig_rnd(rig_rnd(3) ? 8 : MAX_LEN);
    uint64_t first = rig_rnd(rig.m->size / SECTOR - n);
    bool zero = rig_rnd(5) == 0;
    if (overlaps(w, first, n))
        return;
    s->stamp = zero ? 0 : ++rig.m->stamp;
    for (uint64_t i = 0; i < n * SECTOR / 4; i++)
        s->buf[i] = s->stamp;
    s->iov = (struct iovec){s->buf, n * SECTOR};
    s->req = (struct blk_req){.op = zero ? BLK_WRITE_ZEROES : BLK_WRITE,
                              .offset = first * SECTOR,
                              .len = n * SECTOR,
                              .iov = &s->iov,
                              .niov = 1,
                              .fua = rig_rnd(20) == 0,
                              .no_unmap = rig_rnd(2),
                              .done = written,
                              .arg = w};
    s->busy = true;
    w->inflight++;
    model_write(rig.m, first, n, s->stamp);
    model_busy(rig.m, first, n, true);
    blk_submit(w->blk, &s->req);
}

__attribute__((noreturn)) static void write_for_ever(struct writer *w)
{
    struct blk_req flush = {.op = BLK_FLUSH, .done = flushed, .arg = w};
    pthread_mutex_lock(&w->lock);
    for (;;) {
        bool flush_now = rig.m->full || rig_rnd(25) == 0;
        while (w->inflight == DEPTH || w->flushing || (rig.m->full && w->inflight))
            pthread_cond_wait(&w->news, &w->lock);
        if (flush_now) {
            w->flushing = true;
            blk_submit(w->blk, &flush);
            continue;
        }
        struct slot *s = w->slot;
        while (s->busy)
            s++;
        write_something(w, s);
    }
}

__attribute__((noreturn)) static void child(unsigned *done)
{
    static struct writer w = {.lock = PTHREAD_MUTEX_INITIALIZER, .news = PTHREAD_COND_INITIALIZER};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned i = 0; i < DEPTH; i++)
        w.slot[i].buf = malloc((MAX_LEN + 1) * SECTOR);
    w.done = done;
    rig_open();
    struct disk_options o = {.io = rig_rnd(3) ? DISK_IO_AUTO : DISK_IO_THREADS};
    if (disk_open(rig.node, &o, &w.lock, &w.blk, NULL))
        _exit(3);
    write_for_ever(&w);
}

/* Kills the child once it has done so many requests, or a moment after. */
static void kill_after(pid_t pid, const unsigned *done, unsigned requests)
{
    int status = 0;
    uint64_t begun = now_us();
    while (__atomic_load_n(done, __ATOMIC_RELAXED) < requests) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            crash_fail("the writer ended by itself: %#x", status);
        if (now_us() - begun > PATIENCE * 1000)
            crash_fail("the writer does nothing");
        sleep_us(20);
    }
    sleep_us(rig_rnd(400));
    kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        crash_fail("the writer ended by itself: %#x", status);
    rig.kills++;
}

void kill_writes(const struct kind *k, unsigned times)
{
    unsigned *done =
        mmap(NULL, sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (done == MAP_FAILED)
        crash_fail("out of memory");
    rig_create(k);
    for (unsigned i = 0; i < times; i++) {
        *done = 0;
        pid_t pid = fork();
        if (pid < 0)
            crash_fail("no process");
        if (pid == 0)
            child(done);
        kill_after(pid, done, (unsigned)rig_rnd(200));
        for (uint64_t s = 0; s < MAX_SECTORS; s++)
            rig.m->sector[s].busy = false;
        rig_verify();
    }
    munmap(done, sizeof *done);
}

/* ---- the program ---- */

static pid_t start(char *const *args)
{
    posix_spawn_file_actions_t to;
    char out[192];
    pid_t pid;
    posix_spawn_file_actions_init(&to);
    posix_spawn_file_actions_addopen(&to, 1, rig_path("said", out), O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    posix_spawn_file_actions_adddup2(&to, 1, 2);
    int rc = posix_spawn(&pid, rig.sosia, &to, NULL, args, environ);
    posix_spawn_file_actions_destroy(&to);
    if (rc)
        crash_fail("%s cannot be started: %s", rig.sosia, strerror(rc));
    return pid;
}

/* Runs it for at most `us`; true: it was killed. */
static bool run_tool(char *const *args, uint64_t us)
{
    int status = 0;
    pid_t pid = start(args);
    sleep_us(us);
    kill(pid, SIGKILL); /* it is not waited for yet, so this is nobody else */
    if (waitpid(pid, &status, 0) != pid)
        crash_fail("waitpid");
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (!killed && status) {
        char cmd[256];
        snprintf(cmd, sizeof cmd, "sed 's/^/# /' %s/said", rig.folder);
        (void)!system(cmd);
        crash_fail("sosia disk %s: %#x", args[2], status);
    }
    rig.kills += killed;
    return killed;
}

static void write_some(void)
{
    rig_open();
    life_run(30);
    if (life_flush())
        crash_fail("the image cannot be flushed");
    rig_close();
}

enum verb { COMMIT, COMPACT, RESIZE, BENCH, CREATE, VERBS };

/* Starts a verb on "top", or for CREATE makes "top"; true: it was killed. */
static bool one_verb(enum verb verb, uint64_t us)
{
    char top[192], size[32], disk[] = "disk";
    char sosia[] = "sosia", s_disk[] = "disk", shrink[] = "--shrink", backing[] = "--backing";
    char destroy[] = "--destroy-contents", mode[] = "--mode", randwrite[] = "randwrite";
    char format[] = "--backing-format", its_format[16], qcow2[] = "qcow2", as[] = "--format";
    char names[VERBS][8] = {"commit", "compact", "resize", "bench", "create"};
    char *args[VERBS][12] = {
        {sosia, s_disk, names[COMMIT], top, as, qcow2},
        {sosia, s_disk, names[COMPACT], top, as, qcow2},
        {sosia, s_disk, names[RESIZE], top, size, shrink},
        {sosia, s_disk, names[BENCH], top, mode, randwrite, destroy},
        {sosia, s_disk, names[CREATE], top, backing, disk, format, its_format, as, qcow2},
    };
    uint64_t bytes = (MIB / 2 + rig_rnd(MAX_DISK - MIB / 2)) & ~(uint64_t)(SECTOR - 1);
    snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
    snprintf(its_format, sizeof its_format, "%s", rig.kind->format);
    rig_path("top", top);
    if (verb == RESIZE)
        model_resize(rig.m, bytes);
    if (verb == BENCH)
        rig.m->foreign = 256;
    bool killed = run_tool(args[verb], us);
    if (verb == RESIZE && !killed)
        rig.m->size = bytes;
    return killed;
}

static void tool_once(enum verb verb, uint64_t us)
{
    char path[192];
    if (verb == CREATE) {
        if (rig.layered && rig.m->size != DISK_SIZE)
            return;
        rig_remove_top();
        one_verb(verb, us);
        rig.layered = access(rig_path("top", path), F_OK) == 0;
    } else {
        one_verb(verb, us);
    }
    rig_sweep();
    rig_verify();
    rig.m->foreign = 0;
}

/* Merges until nothing interrupts, so that "disk" holds what "top" shows. */
static void merge(void)
{
    char top[192], sosia[] = "sosia", disk[] = "disk", commit[] = "commit";
    char *args[] = {sosia, disk, commit, top, NULL};
    int status = 0;
    rig_path("top", top);
    pid_t pid = start(args);
    if (waitpid(pid, &status, 0) != pid || status)
        crash_fail("sosia disk commit: %#x", status);
    rig_sweep();
    rig_verify();
}

void kill_tool(const struct kind *k, unsigned times)
{
    unsigned kills = rig.kills;
    uint64_t us = 10000; /* what a verb takes, roughly */
    rig_create(k);
    write_some();
    if (rig_overlay())
        crash_fail("no overlay");
    for (unsigned i = 0; rig.kills - kills < times && i < 6 * times; i++) {
        enum verb verb = (enum verb)rig_rnd(VERBS);
        unsigned before = rig.kills;
        if (verb == RESIZE && k->fixed)
            continue;
        if (verb == CREATE && rig.layered && rig.m->size == DISK_SIZE)
            merge();
        if (verb != CREATE && !rig.layered && rig_overlay())
            crash_fail("no overlay");
        if (verb == COMMIT || verb == COMPACT)
            write_some();
        tool_once(verb, rig_rnd(us));
        us = rig.kills > before ? us + us / 8 : us - us / 8; /* about as often killed as not */
    }
}
