/*
 * pages.c - pages that come from a stream: checked and put in their place by several threads.
 *
 * The reader fills buffers from a pool and hands them over; threads check, decompress and store.
 * Of pages that were mapped they read the file. The reader has checked where the pages belong.
 *
 * Lock order: the one lock is a leaf.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "base/endian.h"
#include "base/thread.h"
#include "state/section.h"

static const struct thread_options options = {.name = "state", .stack = 512 * KIB};

static bool is_zero(const uint8_t *page)
{
    return !page[0] && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

struct job {
    unsigned memory; /* of the list */
    uint8_t *buf;
    uint32_t len, crc; /* len 0: nothing is in the buffer */
    /* If not 0, bytes of a file from `offset` on are to be checked. */
    uint32_t mapped, seed;
    uint64_t offset;
    int fd;
};

struct state_loader {
    const struct state_list *list;
    pthread_t thread[STATE_MAX_THREADS];
    unsigned nthreads, nbuffers;

    pthread_mutex_t lock;
    pthread_cond_t work, room;
    uint8_t *buffer[2 * STATE_MAX_THREADS]; /* free ones */
    unsigned nfree;
    struct job job[2 * STATE_MAX_THREADS]; /* a ring */
    unsigned head, count;
    bool finishing;
    uint64_t pages;
    int rc;
    struct error error;
};

static int bad_pages(struct error *e, const char *what)
{
    return error_set(e, ERR_FORMAT, "the saved state is damaged: %s", what);
}

/* Stores one section's pages, whose place was checked by the reader. */
static int store(const struct state_loader *d, const struct job *j, ZSTD_DCtx *z, uint8_t *raw,
                 struct error *e)
{
    const struct state_memory *m = &d->list->memory[j->memory];
    uint8_t *to = m->host + load_le64(j->buf + 8) * PAGE_SIZE;
    uint64_t bitmap = load_le64(j->buf + 16);
    const uint8_t *data = j->buf + STATE_PAGES_LEN;
    size_t len = j->len - STATE_PAGES_LEN;
    size_t want = (size_t)__builtin_popcountll(bitmap) * PAGE_SIZE;
    if (load_le32(j->buf + 4) == STATE_ZSTD) {
        len = ZSTD_decompressDCtx(z, raw, want, data, len);
        data = raw;
    } else if (load_le32(j->buf + 4) != STATE_RAW) {
        return bad_pages(e, "pages are encoded in no known way");
    }
    if (len != want) /* an error of zstd is a huge number */
        return bad_pages(e, "pages cannot be decompressed");
    for (unsigned n = 0; n < STATE_CHUNK; n++) {
        if (!(bitmap >> n & 1))
            continue;
        memcpy(to + n * PAGE_SIZE, data, PAGE_SIZE);
        data += PAGE_SIZE;
    }
    return 0;
}

static int check_file(const struct job *j, uint8_t *buf, struct error *e)
{
    uint32_t crc = j->seed;
    for (uint32_t at = 0; at < j->mapped;) {
        ssize_t n =
            pread(j->fd, buf, min_u64(j->mapped - at, STATE_CHUNK_SIZE), (off_t)(j->offset + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, ERR_IO, errno, "cannot read the saved state");
        if (!n)
            return error_set(e, ERR_FORMAT, "the saved state is cut off");
        crc = state_crc(crc, buf, (size_t)n);
        at += (uint32_t)n;
    }
    return crc == j->crc ? 0 : bad_pages(e, "a section has another checksum");
}

static int work(const struct state_loader *d, const struct job *j, ZSTD_DCtx *z, uint8_t *raw,
                struct error *e)
{
    if (j->mapped)
        return check_file(j, raw, e);
    if (state_crc(0, j->buf, j->len) != j->crc)
        return bad_pages(e, "a section has another checksum");
    return store(d, j, z, raw, e);
}

/* Takes jobs until there will be no more; the lock is held. */
static void load_all(struct state_loader *d, ZSTD_DCtx *z, uint8_t *raw)
{
    for (;;) {
        while (!d->count && !d->finishing)
            pthread_cond_wait(&d->work, &d->lock);
        if (!d->count)
            return;
        struct job j = d->job[d->head];
        struct error e = {0};
        d->head = (d->head + 1) % ARRAY_LEN(d->job);
        d->count--;
        bool skip = d->rc || (!j.len && !j.mapped);
        pthread_mutex_unlock(&d->lock);
        int rc = skip       ? 0
                 : z && raw ? work(d, &j, z, raw, &e)
                            : error_set(&e, ERR_NOMEM, "out of memory");
        uint64_t pages = skip || !j.len ? 0 : (uint64_t)__builtin_popcountll(load_le64(j.buf + 16));
        pthread_mutex_lock(&d->lock);
        d->pages += pages;
        if (rc && !d->rc) {
            d->rc = rc;
            d->error = e;
        }
        d->buffer[d->nfree++] = j.buf;
        pthread_cond_signal(&d->room);
    }
}

static void *load_thread(void *arg)
{
    struct state_loader *d = arg;
    ZSTD_DCtx *z = ZSTD_createDCtx();
    uint8_t *raw = malloc(STATE_CHUNK_SIZE);
    pthread_mutex_lock(&d->lock);
    load_all(d, z, raw);
    pthread_mutex_unlock(&d->lock);
    free(raw);
    ZSTD_freeDCtx(z);
    return NULL;
}

static void free_loader(struct state_loader *d)
{
    for (unsigned n = 0; n < d->nfree; n++)
        free(d->buffer[n]);
    pthread_cond_destroy(&d->room);
    pthread_cond_destroy(&d->work);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

int state_loader_start(struct state_loader **out, const struct state_list *l, struct error *e)
{
    struct state_loader *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return error_set(e, ERR_NOMEM, "out of memory");
    d->list = l;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    pthread_cond_init(&d->room, NULL);
    unsigned threads = state_threads();
    for (unsigned n = 0; n < 2 * threads; n++) {
        uint8_t *buf = malloc(STATE_MAX_PAGES_SECTION);
        if (!buf)
            break;
        d->buffer[d->nfree++] = buf;
    }
    while (d->nfree && d->nthreads < threads &&
           !thread_start(&d->thread[d->nthreads], &options, load_thread, d))
        d->nthreads++;
    if (!d->nthreads) {
        free_loader(d);
        return error_set(e, ERR_NOMEM, "out of memory, or of threads");
    }
    *out = d;
    return 0;
}

uint8_t *state_loader_buffer(struct state_loader *d)
{
    pthread_mutex_lock(&d->lock);
    while (!d->nfree)
        pthread_cond_wait(&d->room, &d->lock);
    uint8_t *buf = d->buffer[--d->nfree];
    pthread_mutex_unlock(&d->lock);
    return buf;
}

/* There are as many places as buffers. */
static void give(struct state_loader *d, struct job j)
{
    pthread_mutex_lock(&d->lock);
    d->job[(d->head + d->count++) % ARRAY_LEN(d->job)] = j;
    pthread_cond_signal(&d->work);
    pthread_mutex_unlock(&d->lock);
}

void state_loader_give(struct state_loader *d, unsigned memory, uint8_t *buf, uint32_t len,
                       uint32_t crc)
{
    give(d, (struct job){.memory = memory, .buf = buf, .len = len, .crc = crc});
}

void state_loader_check(struct state_loader *d, int fd, uint64_t offset, uint32_t len,
                        uint32_t seed, uint32_t crc)
{
    give(d, (struct job){.buf = state_loader_buffer(d),
                         .fd = fd,
                         .offset = offset,
                         .mapped = len,
                         .seed = seed,
                         .crc = crc});
}

int state_loader_finish(struct state_loader *d, uint64_t *pages, struct error *e)
{
    pthread_mutex_lock(&d->lock);
    d->finishing = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    while (d->nthreads)
        pthread_join(d->thread[--d->nthreads], NULL);
    int rc = d->rc;
    *pages = d->pages;
    if (rc && e)
        *e = d->error;
    free_loader(d);
    return rc;
}

int state_clear_memory(const struct state_memory *m, struct error *e)
{
    if (m->fd < 0) {
        for (uint64_t at = 0; at < m->len; at += PAGE_SIZE)
            if (!is_zero(m->host + at)) /* writing would take space */
                memset(m->host + at, 0, PAGE_SIZE);
        return 0;
    }
    bool mapped = false;
    for (uint64_t n = 0; m->mapped && n <= state_blocks(m) / 8; n++) {
        mapped |= m->mapped[n];
        m->mapped[n] = 0;
    }
    if ((mapped && mmap(m->host, m->len, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->fd, 0) == MAP_FAILED) ||
        fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)m->len))
        return error_errno(e, ERR_HOST, errno, "cannot clear the guest's memory");
    return 0;
}
