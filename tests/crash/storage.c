/* storage.c - a storage whose power fails. One lock for everything: there is nothing to race. */
#define _GNU_SOURCE
#include "storage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/types.h"

#define SECTOR    512u
#define BUCKETS   4096u
#define MAX_FILES 16
#define MAX_SIZES 64
#define MAX_NAMES 64

int __real_open64(const char *path, int flags, ...);
ssize_t __real_preadv64(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __real_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
ssize_t __real_pwrite64(int fd, const void *buf, size_t len, off_t at);
ssize_t __real_pwritev64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
int __real_fallocate64(int fd, int mode, off_t at, off_t len);
int __real_ftruncate64(int fd, off_t size);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_rename(const char *from, const char *to);
int __real_renameat2(int fromfd, const char *from, int tofd, const char *to, unsigned flags);
int __real_unlink(const char *path);

int __wrap_open64(const char *path, int flags, ...);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t at);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int n, off_t at, int flags);
int __wrap_fallocate64(int fd, int mode, off_t at, off_t len);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat2(int fromfd, const char *from, int tofd, const char *to, unsigned flags);
int __wrap_unlink(const char *path);

/* Contents of a sector before a write, `older` before an earlier one; the file has the newest. */
struct version {
    struct version *older;
    uint8_t data[SECTOR];
};

struct sector {
    struct sector *next; /* of the bucket */
    uint64_t number;
    struct version *before;
};

struct file {
    dev_t dev;
    ino_t ino;
    int fd; /* of our own */
    uint64_t size[MAX_SIZES];
    unsigned nsize; /* [0]: durable */
    struct sector *bucket[BUCKETS];
};

enum change { MADE, RENAMED, REMOVED };

struct name {
    enum change change;
    char *from, *to;
    char *kept; /* where the file is that was replaced or removed; or NULL */
};

static struct {
    pthread_mutex_t lock;
    char folder[128];
    bool records, dead;
    uint64_t ops, fails_at, rng;
    unsigned kept;
    struct file *file[MAX_FILES];
    unsigned nfile;
    struct name name[MAX_NAMES];
    unsigned nname;
} s = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The test itself went wrong. */
__attribute__((noreturn)) static void broken(const char *what)
{
    fprintf(stderr, "storage.c: %s: %s\n", what, strerror(errno));
    abort();
}

static void *get(size_t n)
{
    void *p = calloc(1, n);
    if (!p)
        broken("out of memory");
    return p;
}

/* xorshift64* (Vigna): the state is never 0. */
static uint64_t rnd(uint64_t n)
{
    s.rng ^= s.rng >> 12;
    s.rng ^= s.rng << 25;
    s.rng ^= s.rng >> 27;
    return (s.rng * 0x2545f4914f6cdd1du >> 16) % n;
}

/* ---- what was written to files ---- */

static struct sector **find(struct file *f, uint64_t number)
{
    struct sector **at = &f->bucket[number % BUCKETS];
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    return at;
}

static void forget(struct sector **at)
{
    struct sector *gone = *at;
    *at = gone->next;
    for (struct version *v = gone->before, *older; v; v = older) {
        older = v->older;
        free(v);
    }
    free(gone);
}

static uint64_t size_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st))
        broken("fstat");
    return (uint64_t)st.st_size;
}

/* All of the file is durable. */
static void settle(struct file *f)
{
    for (unsigned b = 0; b < BUCKETS; b++)
        while (f->bucket[b])
            forget(&f->bucket[b]);
    f->size[0] = size_of(f->fd);
    f->nsize = 1;
}

/* The notes on an open regular file; NULL: it is something else. */
static struct file *file_of(int fd)
{
    struct stat st;
    char path[64];
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return NULL;
    for (unsigned i = 0; i < s.nfile; i++)
        if (s.file[i]->dev == st.st_dev && s.file[i]->ino == st.st_ino)
            return s.file[i];
    if (s.nfile == MAX_FILES)
        broken("too many files");
    struct file *f = get(sizeof *f);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    *f = (struct file){
        .dev = st.st_dev, .ino = st.st_ino, .size = {(uint64_t)st.st_size}, .nsize = 1};
    f->fd = __real_open64(path, O_RDWR | O_CLOEXEC);
    if (f->fd < 0)
        broken(path);
    s.file[s.nfile++] = f;
    return f;
}

/* Keeps what is in a range that is about to change. */
static void keep(struct file *f, uint64_t at, uint64_t len)
{
    uint64_t first = at / SECTOR, end = (at + len + SECTOR - 1) / SECTOR;
    if (!len)
        return;
    uint8_t *was = get((end - first) * SECTOR);
    if (pread(f->fd, was, (end - first) * SECTOR, (off_t)(first * SECTOR)) < 0)
        broken("pread");
    for (uint64_t k = first; k < end; k++) {
        struct sector **slot = find(f, k);
        struct version *v = get(sizeof *v);
        if (!*slot) {
            *slot = get(sizeof **slot);
            (*slot)->number = k;
        }
        memcpy(v->data, was + (k - first) * SECTOR, SECTOR);
        v->older = (*slot)->before;
        (*slot)->before = v;
    }
    free(was);
}

static void note_size(struct file *f)
{
    uint64_t size = size_of(f->fd);
    if (size == f->size[f->nsize - 1])
        return;
    if (f->nsize == MAX_SIZES) /* the storage makes it durable by itself, as it may */
        settle(f);
    else
        f->size[f->nsize++] = size;
}

/* RWF_DSYNC: what was just written, and how to find it. */
static void settle_range(struct file *f, uint64_t at, uint64_t len)
{
    for (uint64_t k = at / SECTOR; k * SECTOR < at + len; k++) {
        struct sector **slot = find(f, k);
        if (*slot)
            forget(slot);
    }
    f->size[0] = f->size[f->nsize - 1];
    f->nsize = 1;
}

/* Gives a file what survives of it; `odds` of four that a write does. */
static void lose(struct file *f, unsigned odds)
{
    uint64_t longest = 0;
    unsigned chosen = odds == 0 ? 0 : odds == 4 ? f->nsize - 1 : (unsigned)rnd(f->nsize);
    for (unsigned i = 0; i < f->nsize; i++)
        longest = max_u64(longest, f->size[i]);
    if (__real_ftruncate64(f->fd, (off_t)longest))
        broken("ftruncate");
    for (unsigned b = 0; b < BUCKETS; b++)
        for (struct sector *x = f->bucket[b]; x; x = x->next) {
            struct version *v = NULL;
            uint64_t at = x->number * SECTOR;
            while (rnd(4) >= odds && (v ? v->older : x->before))
                v = v ? v->older : x->before;
            if (v && at < longest &&
                __real_pwrite64(f->fd, v->data, min_u64(SECTOR, longest - at), (off_t)at) < 0)
                broken("pwrite");
        }
    if (__real_ftruncate64(f->fd, (off_t)f->size[chosen]))
        broken("ftruncate");
}

/* ---- names ---- */

static bool is_ours(const char *path)
{
    size_t n = strlen(s.folder);
    return n && !strncmp(path, s.folder, n) && path[n] == '/';
}

static char *copy(const char *text)
{
    char *p = text ? strdup(text) : NULL;
    if (text && !p)
        broken("out of memory");
    return p;
}

/* A second name for a file that is about to lose this one; NULL: there is no such file. */
static char *keep_name(const char *path)
{
    char kept[192];
    snprintf(kept, sizeof kept, "%s/.kept-%u", s.folder, s.kept++);
    return link(path, kept) ? NULL : copy(kept);
}

static void note_name(enum change change, const char *from, const char *to, char *kept)
{
    if (s.nname == MAX_NAMES)
        broken("too many changes of names");
    s.name[s.nname++] = (struct name){change, copy(from), copy(to), kept};
}

static void undo(const struct name *n)
{
    bool bad = n->change == MADE && __real_unlink(n->from) && errno != ENOENT;
    bad |= n->change == RENAMED && __real_rename(n->to, n->from);
    if (n->kept && __real_rename(n->kept, n->change == RENAMED ? n->to : n->from))
        bad = true;
    if (bad)
        broken("a name cannot be taken back");
}

static void forget_names(void)
{
    for (; s.nname > 0; s.nname--) {
        struct name *n = &s.name[s.nname - 1];
        if (n->kept)
            __real_unlink(n->kept);
        free(n->from);
        free(n->to);
        free(n->kept);
    }
}

/* ---- the power ---- */

static void forget_all(void)
{
    for (; s.nfile > 0; s.nfile--) {
        struct file *f = s.file[s.nfile - 1];
        settle(f);
        close(f->fd);
        free(f);
    }
    forget_names();
}

static void die(void)
{
    unsigned odds = (unsigned)rnd(5);
    for (unsigned i = 0; i < s.nfile; i++)
        lose(s.file[i], odds);
    uint64_t names = odds == 0 ? 0 : odds == 4 ? s.nname : rnd(s.nname + 1);
    for (unsigned i = s.nname; i > names; i--) {
        undo(&s.name[i - 1]);
        free(s.name[i - 1].kept);
        s.name[i - 1].kept = NULL; /* it has its place again */
    }
    forget_all();
    s.dead = true;
}

/* Before an operation: true, with the lock held, if it is to be recorded; *dead: it fails. */
static bool begin(bool *dead)
{
    pthread_mutex_lock(&s.lock);
    *dead = s.dead;
    if (*dead)
        errno = EIO;
    else if (s.records)
        return true;
    pthread_mutex_unlock(&s.lock);
    return false;
}

/* After it: false: the power failed at this one. */
static bool survives(void)
{
    if (s.ops++ < s.fails_at)
        return true;
    die();
    return false;
}

static ssize_t end(ssize_t rc, bool alive)
{
    pthread_mutex_unlock(&s.lock);
    if (alive)
        return rc;
    errno = EIO;
    return -1;
}

void storage_open(const char *folder)
{
    snprintf(s.folder, sizeof s.folder, "%s", folder);
}

void storage_record(uint64_t ops, uint64_t seed)
{
    pthread_mutex_lock(&s.lock);
    s.rng = (seed + 1) * 0x9e3779b97f4a7c15u;
    s.rng |= !s.rng;
    s.ops = 0;
    s.fails_at = ops;
    s.records = true;
    s.dead = false;
    pthread_mutex_unlock(&s.lock);
}

void storage_cut(void)
{
    pthread_mutex_lock(&s.lock);
    if (!s.dead)
        die();
    pthread_mutex_unlock(&s.lock);
}

bool storage_is_cut(void)
{
    pthread_mutex_lock(&s.lock);
    bool dead = s.dead;
    pthread_mutex_unlock(&s.lock);
    return dead;
}

uint64_t storage_ops(void)
{
    pthread_mutex_lock(&s.lock);
    uint64_t ops = s.ops;
    pthread_mutex_unlock(&s.lock);
    return ops;
}

void storage_restore(void)
{
    pthread_mutex_lock(&s.lock);
    forget_all();
    s.records = s.dead = false;
    pthread_mutex_unlock(&s.lock);
}

/* ---- the calls ---- */

int __wrap_open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    unsigned mode = flags & O_CREAT ? va_arg(ap, unsigned) : 0;
    va_end(ap);
    bool dead;
    if (!is_ours(path) || !begin(&dead))
        return is_ours(path) && dead ? -1 : __real_open64(path, flags, mode);
    bool makes = flags & O_CREAT && access(path, F_OK);
    int fd = __real_open64(path, flags, mode);
    if (fd < 0 || !makes)
        return (int)end(fd, true);
    note_name(MADE, path, NULL, NULL);
    bool alive = survives();
    if (!alive)
        close(fd);
    return (int)end(fd, alive);
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t at)
{
    bool dead;
    if (begin(&dead))
        pthread_mutex_unlock(&s.lock);
    return dead ? -1 : __real_preadv64(fd, iov, n, at);
}

ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
    bool dead;
    if (begin(&dead))
        pthread_mutex_unlock(&s.lock);
    return dead ? -1 : __real_preadv64v2(fd, iov, n, at, flags);
}

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
    bool dead;
    if (!begin(&dead))
        return dead ? -1 : __real_pwritev64v2(fd, iov, n, at, flags);
    struct file *f = file_of(fd);
    uint64_t len = 0;
    for (int i = 0; i < n; i++)
        len += iov[i].iov_len;
    if (f)
        keep(f, (uint64_t)at, len);
    ssize_t rc = __real_pwritev64v2(fd, iov, n, at, flags);
    if (f && rc >= 0)
        note_size(f);
    bool alive = survives();
    if (f && rc > 0 && alive && flags & RWF_DSYNC)
        settle_range(f, (uint64_t)at, (uint64_t)rc);
    return end(rc, alive);
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t at)
{
    union {
        const void *c;
        void *p;
    } bytes = {buf};
    struct iovec iov = {bytes.p, len};
    return __wrap_pwritev64v2(fd, &iov, 1, at, 0);
}

int __wrap_fallocate64(int fd, int mode, off_t at, off_t len)
{
    bool dead;
    if (!begin(&dead))
        return dead ? -1 : __real_fallocate64(fd, mode, at, len);
    struct file *f = file_of(fd);
    uint64_t size = f ? size_of(f->fd) : 0;
    if ((uint64_t)at < size)
        keep(f, (uint64_t)at, min_u64((uint64_t)len, size - (uint64_t)at));
    int rc = __real_fallocate64(fd, mode, at, len);
    int err = errno;
    if (f)
        note_size(f);
    bool alive = survives();
    rc = (int)end(rc, alive);
    errno = alive ? err : EIO;
    return rc;
}

int __wrap_ftruncate64(int fd, off_t size)
{
    bool dead;
    if (!begin(&dead))
        return dead ? -1 : __real_ftruncate64(fd, size);
    struct file *f = file_of(fd);
    uint64_t old = f ? size_of(f->fd) : 0;
    if ((uint64_t)size < old)
        keep(f, (uint64_t)size, old - (uint64_t)size);
    int rc = __real_ftruncate64(fd, size);
    if (f)
        note_size(f);
    return (int)end(rc, survives());
}

static int sync_it(int fd, int (*real)(int fd))
{
    bool dead;
    if (!begin(&dead))
        return dead ? -1 : real(fd);
    struct stat st;
    if (!survives())
        return (int)end(-1, false);
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        forget_names();
    struct file *f = file_of(fd);
    if (f)
        settle(f);
    return (int)end(real(fd), true);
}

int __wrap_fsync(int fd)
{
    return sync_it(fd, __real_fsync);
}

int __wrap_fdatasync(int fd)
{
    return sync_it(fd, __real_fdatasync);
}

int __wrap_rename(const char *from, const char *to)
{
    bool dead;
    if (!is_ours(to) || !begin(&dead))
        return is_ours(to) && dead ? -1 : __real_rename(from, to);
    char *kept = keep_name(to);
    int rc = __real_rename(from, to);
    if (rc)
        broken("rename");
    note_name(RENAMED, from, to, kept);
    return (int)end(rc, survives());
}

int __wrap_renameat2(int fromfd, const char *from, int tofd, const char *to, unsigned flags)
{
    bool dead;
    if (!is_ours(to) || !begin(&dead))
        return is_ours(to) && dead ? -1 : __real_renameat2(fromfd, from, tofd, to, flags);
    int rc = __real_renameat2(fromfd, from, tofd, to, flags);
    if (rc)
        return (int)end(rc, true);
    note_name(RENAMED, from, to, NULL);
    return (int)end(rc, survives());
}

int __wrap_unlink(const char *path)
{
    bool dead;
    if (!is_ours(path) || !begin(&dead))
        return is_ours(path) && dead ? -1 : __real_unlink(path);
    char *kept = keep_name(path);
    int rc = __real_unlink(path);
    int err = errno;
    if (rc) {
        end(rc, true);
        errno = err;
        return rc;
    }
    note_name(REMOVED, path, NULL, kept);
    return (int)end(rc, survives());
}
