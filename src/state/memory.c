/*
 * memory.c - pages to and from the stream, by several threads.
 *
 * Saving. Chunks of 64 pages that may hold something are numbered. A thread takes the next number,
 * finds the pages that are not zero and compresses them, and writes when all lower numbers have
 * been written: so the same memory gives the same bytes, however many threads there are.
 *
 * Loading. The reader fills buffers from a pool and hands them over; threads check, decompress and
 * store. The reader has checked where the pages belong.
 *
 * Lock order: the one lock of each is a leaf.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/endian.h"
#include "base/thread.h"
#include "state/section.h"

#define LEVEL 1 /* of zstd: about as fast as a disk */

static const struct thread_options options = {.name = "state", .stack = 512 * KIB};

static bool is_zero(const uint8_t *page)
{
    const uint64_t *w = (const uint64_t *)(const void *)page;
    for (unsigned n = 0; n < PAGE_SIZE / 8; n += 8)
        if (w[n] | w[n + 1] | w[n + 2] | w[n + 3] | w[n + 4] | w[n + 5] | w[n + 6] | w[n + 7])
            return false;
    return true;
}

/* ---- saving ---- */

struct saver {
    struct state_writer *w;
    unsigned number;
    const struct state_memory *m;
    uint64_t chunks;
    uint8_t *maybe; /* a bit for each chunk: it may hold something */

    pthread_mutex_t lock;
    pthread_cond_t turn;
    uint64_t next_chunk; /* to be taken */
    uint64_t taken, written;
    int rc;
    struct error error;
};

static void mark(struct saver *s, uint64_t from, uint64_t to)
{
    for (uint64_t c = from / STATE_CHUNK_SIZE; c < s->chunks && c * STATE_CHUNK_SIZE < to; c++)
        s->maybe[c / 8] |= (uint8_t)(1u << (c % 8));
}

/* Holes of the memory's file are zero, and reading them would fill them. */
static void find_data(struct saver *s)
{
    const struct state_memory *m = s->m;
    off_t at = 0;
    if (m->fd < 0 || lseek(m->fd, 0, SEEK_HOLE) < 0) {
        mark(s, 0, m->len);
        return;
    }
    while ((uint64_t)at < m->len) {
        off_t data = lseek(m->fd, at, SEEK_DATA);
        if (data < 0)
            break; /* ENXIO: there is no more */
        off_t hole = lseek(m->fd, data, SEEK_HOLE);
        if (hole < 0)
            hole = (off_t)m->len;
        mark(s, (uint64_t)data, (uint64_t)hole);
        at = hole;
    }
}

/* The next chunk to look at, and its place in the order of writing. */
static bool take(struct saver *s, uint64_t *chunk, uint64_t *place)
{
    pthread_mutex_lock(&s->lock);
    while (s->next_chunk < s->chunks && !(s->maybe[s->next_chunk / 8] >> (s->next_chunk % 8) & 1))
        s->next_chunk++;
    bool more = s->next_chunk < s->chunks && !s->rc;
    if (more) {
        *chunk = s->next_chunk++;
        *place = s->taken++;
    }
    pthread_mutex_unlock(&s->lock);
    return more;
}

/* Copies the pages that are not zero to `to`; returns which these are. */
static uint64_t collect(const struct state_memory *m, uint64_t chunk, uint8_t *to, uint64_t *len)
{
    uint64_t first = chunk * STATE_CHUNK_SIZE, bitmap = 0;
    uint64_t pages = min_u64(STATE_CHUNK_SIZE, m->len - first) / PAGE_SIZE;
    *len = 0;
    for (unsigned n = 0; n < pages; n++) {
        const uint8_t *page = m->host + first + n * PAGE_SIZE;
        if (is_zero(page))
            continue;
        memcpy(to + *len, page, PAGE_SIZE);
        *len += PAGE_SIZE;
        bitmap |= 1ull << n;
    }
    return bitmap;
}

/* Builds a section's payload in `to`; returns its length, 0 if there is nothing to store. */
static uint64_t build(const struct saver *s, uint64_t chunk, ZSTD_CCtx *z, uint8_t *raw,
                      uint8_t *to)
{
    uint64_t len, bitmap = collect(s->m, chunk, raw, &len);
    if (!bitmap)
        return 0;
    size_t n = ZSTD_compressCCtx(z, to + STATE_PAGES_LEN, len - 1, raw, len, LEVEL);
    bool stored = ZSTD_isError(n); /* does not get smaller */
    if (stored)
        memcpy(to + STATE_PAGES_LEN, raw, len);
    store_le32(to, s->number);
    store_le32(to + 4, stored ? STATE_RAW : STATE_ZSTD);
    store_le64(to + 8, chunk * STATE_CHUNK);
    store_le64(to + 16, bitmap);
    return STATE_PAGES_LEN + (stored ? len : n);
}

/* The lock is held, and it is this chunk's turn. */
static void put_chunk(struct saver *s, uint64_t chunk, const uint8_t *payload, uint64_t len,
                      uint32_t crc)
{
    struct state_writer *w = s->w;
    if (!len || s->rc)
        return;
    state_put_uint(&w->index, s->number, 8);
    state_put_uint(&w->index, chunk * STATE_CHUNK, 8);
    state_put_uint(&w->index, w->offset, 8);
    w->stats.pages += (uint64_t)__builtin_popcountll(load_le64(payload + 16));
    s->rc = state_put_section(w, STATE_PAGES, payload, len, crc, &s->error);
}

static void *save_thread(void *arg)
{
    struct saver *s = arg;
    ZSTD_CCtx *z = ZSTD_createCCtx();
    uint8_t *buf = malloc(2 * STATE_MAX_PAGES_SECTION);
    uint64_t chunk, place;
    if (!z || !buf) {
        pthread_mutex_lock(&s->lock);
        s->rc = error_set(&s->error, ERR_NOMEM, "out of memory");
        pthread_mutex_unlock(&s->lock);
    }
    while (z && buf && take(s, &chunk, &place)) {
        uint8_t *payload = buf + STATE_MAX_PAGES_SECTION;
        uint64_t len = build(s, chunk, z, buf, payload);
        uint32_t crc = state_crc(0, payload, len);
        pthread_mutex_lock(&s->lock);
        while (s->written != place)
            pthread_cond_wait(&s->turn, &s->lock);
        put_chunk(s, chunk, payload, len, crc);
        s->written++;
        pthread_cond_broadcast(&s->turn);
        pthread_mutex_unlock(&s->lock);
    }
    free(buf);
    ZSTD_freeCCtx(z);
    return NULL;
}

static void run_threads(struct saver *s)
{
    pthread_t thread[STATE_MAX_THREADS];
    unsigned n = 0, want = state_threads() - 1;
    while (n < want && !thread_start(&thread[n], &options, save_thread, s))
        n++;
    save_thread(s); /* this one helps */
    while (n)
        pthread_join(thread[--n], NULL);
}

int state_save_memory(struct state_writer *w, unsigned number, const struct state_memory *m,
                      struct error *e)
{
    struct saver s = {.w = w, .number = number, .m = m};
    uint64_t before = w->stats.pages;
    s.chunks = (m->len + STATE_CHUNK_SIZE - 1) / STATE_CHUNK_SIZE;
    s.maybe = calloc(1, s.chunks / 8 + 1);
    if (!s.maybe)
        return error_set(e, ERR_NOMEM, "out of memory");
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.turn, NULL);
    find_data(&s);
    run_threads(&s);
    pthread_cond_destroy(&s.turn);
    pthread_mutex_destroy(&s.lock);
    free(s.maybe);
    w->stats.zero_pages += m->len / PAGE_SIZE - (w->stats.pages - before);
    if (s.rc && e)
        *e = s.error;
    return s.rc;
}

/* ---- loading ---- */

struct job {
    unsigned memory; /* of the list */
    uint8_t *buf;
    uint32_t len, crc;
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

static int work(const struct state_loader *d, const struct job *j, ZSTD_DCtx *z, uint8_t *raw,
                struct error *e)
{
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
        bool skip = d->rc || !j.len;
        pthread_mutex_unlock(&d->lock);
        int rc = skip       ? 0
                 : z && raw ? work(d, &j, z, raw, &e)
                            : error_set(&e, ERR_NOMEM, "out of memory");
        uint64_t pages = skip ? 0 : (uint64_t)__builtin_popcountll(load_le64(j.buf + 16));
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
void state_loader_give(struct state_loader *d, unsigned memory, uint8_t *buf, uint32_t len,
                       uint32_t crc)
{
    pthread_mutex_lock(&d->lock);
    d->job[(d->head + d->count++) % ARRAY_LEN(d->job)] = (struct job){memory, buf, len, crc};
    pthread_cond_signal(&d->work);
    pthread_mutex_unlock(&d->lock);
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
    if (m->fd >= 0) {
        if (!fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)m->len))
            return 0;
        return error_errno(e, ERR_HOST, errno, "cannot clear the guest's memory");
    }
    for (uint64_t at = 0; at < m->len; at += PAGE_SIZE)
        if (!is_zero(m->host + at)) /* writing would take space */
            memset(m->host + at, 0, PAGE_SIZE);
    return 0;
}
