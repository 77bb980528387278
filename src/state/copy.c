/*
 * copy.c - which pages of a machine's memory are to be stored, and copies of them, so that the
 * machine can go on while they are written.
 *
 * Blocks of all memories are numbered through. Threads take the highest that is left, find its
 * pages that are not zero, and copy them as long as there is room. What found none is live: it is
 * written while the machine stands still, first, since the stream has the blocks in order.
 *
 * Lock order: the one lock is a leaf.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bigmem.h"
#include "base/endian.h"
#include "base/thread.h"
#include "state/section.h"

static const struct thread_options options = {.name = "state", .stack = 512 * KIB};

struct copier {
    struct state_copy *c;
    uint8_t *maybe[STATE_MAX_MEMORIES]; /* a bit for each block: it may hold something */
    pthread_mutex_t lock;
    uint64_t left;                /* blocks that nobody has taken */
    _Atomic uint64_t taken, live; /* taken: bytes of the pool */
};

static bool is_zero(const uint8_t *page)
{
    const uint64_t *w = (const uint64_t *)(const void *)page;
    for (unsigned n = 0; n < PAGE_SIZE / 8; n += 8)
        if (w[n] | w[n + 1] | w[n + 2] | w[n + 3] | w[n + 4] | w[n + 5] | w[n + 6] | w[n + 7])
            return false;
    return true;
}

/* ---- where there may be something ---- */

static void mark(uint8_t *maybe, uint64_t from, uint64_t to)
{
    for (uint64_t b = from / STATE_BLOCK_SIZE; b * STATE_BLOCK_SIZE < to; b++)
        maybe[b / 8] |= (uint8_t)(1u << (b % 8));
}

/* Holes of the memory's file are zero, and reading them would fill them. */
static void find_data(const struct state_memory *m, uint8_t *maybe)
{
    off_t at = 0;
    if (m->fd < 0 || lseek(m->fd, 0, SEEK_HOLE) < 0) {
        mark(maybe, 0, m->len);
        return;
    }
    for (uint64_t b = 0; m->mapped && b < state_blocks(m); b++)
        maybe[b / 8] |= m->mapped[b / 8] & (uint8_t)(1u << (b % 8));
    while ((uint64_t)at < m->len) {
        off_t data = lseek(m->fd, at, SEEK_DATA);
        if (data < 0)
            break; /* ENXIO: there is no more */
        off_t hole = lseek(m->fd, data, SEEK_HOLE);
        if (hole < 0)
            hole = (off_t)m->len;
        mark(maybe, (uint64_t)data, min_u64((uint64_t)hole, m->len));
        at = hole;
    }
}

/* ---- copying ---- */

/* The next block to look at; false: there is none. */
static bool take(struct copier *k, unsigned *memory, uint64_t *block, uint64_t *number)
{
    bool found = false;
    pthread_mutex_lock(&k->lock);
    while (k->left && !found) {
        uint64_t at = --k->left;
        *number = at;
        *memory = 0;
        while (at >= state_blocks(&k->c->memory[*memory]))
            at -= state_blocks(&k->c->memory[(*memory)++]);
        *block = at;
        found = k->maybe[*memory][at / 8] >> (at % 8) & 1;
    }
    pthread_mutex_unlock(&k->lock);
    return found;
}

static void raise_to(_Atomic uint64_t *p, uint64_t v)
{
    uint64_t was = atomic_load(p);
    while (was < v && !atomic_compare_exchange_weak(p, &was, v))
        continue;
}

/* Which pages are not zero, and how many these are. */
static unsigned look(const struct state_memory *m, uint64_t block, struct state_block *b)
{
    uint64_t first = block * STATE_BLOCK_SIZE;
    unsigned pages = (unsigned)(min_u64(STATE_BLOCK_SIZE, m->len - first) / PAGE_SIZE), used = 0;
    for (unsigned n = 0; n < pages; n++) {
        if (is_zero(m->host + first + n * PAGE_SIZE))
            continue;
        b->used[n / 64] |= 1ull << (n % 64);
        used++;
    }
    return used;
}

static void copy(const struct state_memory *m, uint64_t block, struct state_block *b, uint8_t *to)
{
    b->copy = to;
    for (unsigned n = 0; n < STATE_BLOCK; n++) {
        if (!(b->used[n / 64] >> (n % 64) & 1))
            continue;
        memcpy(to, m->host + block * STATE_BLOCK_SIZE + n * PAGE_SIZE, PAGE_SIZE);
        to += PAGE_SIZE;
    }
}

static void *copy_thread(void *arg)
{
    struct copier *k = arg;
    struct state_copy *c = k->c;
    unsigned memory;
    uint64_t block, number;
    while (take(k, &memory, &block, &number)) {
        struct state_block *b = &c->block[memory][block];
        uint64_t bytes = (uint64_t)look(&c->memory[memory], block, b) * PAGE_SIZE;
        uint64_t at = bytes ? atomic_fetch_add(&k->taken, bytes) : 0;
        if (bytes && at + bytes <= c->pool.len)
            copy(&c->memory[memory], block, b, c->pool.p + at);
        else if (bytes)
            raise_to(&k->live, number + 1);
    }
    return NULL;
}

static void run_threads(struct copier *k)
{
    pthread_t thread[STATE_MAX_THREADS];
    unsigned n = 0, want = state_threads() - 1;
    while (n < want && !thread_start(&thread[n], &options, copy_thread, k))
        n++;
    copy_thread(k); /* this one helps */
    while (n)
        pthread_join(thread[--n], NULL);
}

/* ---- room ---- */

/* Bytes that it may need now. */
static uint64_t needed(const struct state_memory *m)
{
    uint64_t blocks = state_blocks(m), n = 0;
    uint8_t *maybe = calloc(1, blocks / 8 + 1);
    if (!maybe)
        return 0;
    find_data(m, maybe);
    for (uint64_t b = 0; b < blocks; b++)
        n += (maybe[b / 8] >> (b % 8) & 1) * STATE_BLOCK_SIZE;
    free(maybe);
    return n;
}

void state_pool_make(struct state_pool *p, const struct state_list *l, uint64_t budget)
{
    uint64_t now = 0, most = 0;
    for (unsigned n = 0; n < l->nmemories; n++) {
        now += needed(&l->memory[n]);
        most += l->memory[n].len;
    }
    p->len = (size_t)min_u64(budget, most);
    p->p = p->len ? bigmem_alloc(p->len) : NULL;
    if (!p->p)
        p->len = 0;
    bigmem_touch(p->p, (size_t)min_u64(p->len, now));
}

void state_pool_free(struct state_pool *p)
{
    bigmem_free(p->p, p->len);
    *p = (struct state_pool){.p = NULL};
}

/* ---- what all of it takes ---- */

static int prepare(struct copier *k, const struct state_list *l)
{
    struct state_copy *c = k->c;
    c->nmemories = l->nmemories;
    for (unsigned n = 0; n < l->nmemories; n++) {
        const struct state_memory *m = &l->memory[n];
        uint64_t blocks = state_blocks(m);
        c->memory[n] = *m;
        c->block[n] = calloc(blocks + 1, sizeof *c->block[n]);
        k->maybe[n] = calloc(1, blocks / 8 + 1);
        if (!c->block[n] || !k->maybe[n])
            return -1;
        find_data(m, k->maybe[n]);
        c->blocks += blocks;
    }
    return 0;
}

int state_copy_make(struct state_copy *c, const struct state_list *l, struct state_pool *pool,
                    struct error *e)
{
    struct copier k = {.c = c};
    *c = (struct state_copy){.nmemories = 0};
    if (pool) {
        c->pool = *pool;
        *pool = (struct state_pool){.p = NULL};
    }
    int rc = prepare(&k, l);
    if (!rc) {
        k.left = c->blocks;
        pthread_mutex_init(&k.lock, NULL);
        run_threads(&k);
        pthread_mutex_destroy(&k.lock);
        c->live = atomic_load(&k.live);
    }
    for (unsigned n = 0; n < l->nmemories; n++)
        free(k.maybe[n]);
    if (rc) {
        state_copy_free(c);
        return error_set(e, ERR_NOMEM, "out of memory");
    }
    return 0;
}

void state_copy_free(struct state_copy *c)
{
    for (unsigned n = 0; n < c->nmemories; n++)
        free(c->block[n]);
    state_pool_free(&c->pool);
    *c = (struct state_copy){.nmemories = 0};
}

/* ---- writing a block ---- */

/* A run of pages that are all used, or all zero. */
struct run {
    const uint8_t *data; /* NULL: zeroes */
    uint64_t len;
};

static bool is_used(const struct state_block *b, unsigned page)
{
    return b->used[page / 64] >> (page % 64) & 1;
}

/* Cuts pages [first, end) up into runs; returns how many. */
static unsigned find_runs(const struct state_block *b, const uint8_t *live, unsigned first,
                          unsigned end, struct run run[STATE_BLOCK])
{
    unsigned runs = 0, copied = 0;
    for (unsigned n = first, to; n < end; n = to) {
        bool used = is_used(b, n);
        for (to = n + 1; to < end && is_used(b, to) == used; to++)
            continue;
        const uint8_t *data = b->copy ? b->copy + copied * PAGE_SIZE : live + n * PAGE_SIZE;
        run[runs++] = (struct run){used ? data : NULL, (to - n) * PAGE_SIZE};
        copied += used ? to - n : 0;
    }
    return runs;
}

static uint32_t crc_of(uint32_t crc, const struct run *run, unsigned runs)
{
    static const uint8_t zeroes[PAGE_SIZE];
    for (unsigned n = 0; n < runs; n++)
        for (uint64_t at = 0, part; at < run[n].len; at += part) {
            part = run[n].data ? run[n].len : PAGE_SIZE;
            crc = state_crc(crc, run[n].data ? run[n].data : zeroes, part);
        }
    return crc;
}

int state_put_block(struct state_writer *w, const struct state_copy *c, unsigned memory,
                    uint64_t block, struct error *e)
{
    const struct state_block *b = &c->block[memory][block];
    uint8_t head[STATE_PAGES_LEN + PAGE_SIZE] = {0};
    struct run run[STATE_BLOCK];
    unsigned first = 0, end = STATE_BLOCK;
    while (first < STATE_BLOCK && !is_used(b, first))
        first++;
    if (first == STATE_BLOCK)
        return 0;
    while (!is_used(b, end - 1))
        end--;
    unsigned runs =
        find_runs(b, c->memory[memory].host + block * STATE_BLOCK_SIZE, first, end, run);
    uint32_t len = STATE_PAGES_LEN + state_pad(w->offset + STATE_SECTION_LEN);
    store_le32(head, memory);
    store_le32(head + 4, STATE_PLACED);
    store_le64(head + 8, block * STATE_BLOCK + first);
    store_le64(head + 16, end - first);
    state_put_uint(&w->index, memory, 8);
    state_put_uint(&w->index, block * STATE_BLOCK + first, 8);
    state_put_uint(&w->index, w->offset, 8);
    int rc = state_put_section(w, STATE_PAGES, len + (end - first) * PAGE_SIZE,
                               crc_of(state_crc(0, head, len), run, runs), e);
    if (!rc)
        rc = state_put_bytes(w, head, len, e);
    for (unsigned n = 0; n < runs && !rc; n++) {
        w->stats.pages += run[n].data ? run[n].len / PAGE_SIZE : 0;
        rc = run[n].data ? state_put_bytes(w, run[n].data, run[n].len, e)
                         : state_put_gap(w, run[n].len, e);
    }
    return rc;
}
