/* save.c - writing a stream; see stream.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/endian.h"
#include "state/fields.h"
#include "state/section.h"

/* ---- bytes, sections ---- */

int state_put_bytes(struct state_writer *w, const void *p, uint64_t len, struct error *e)
{
    const uint8_t *at = p;
    while (len) {
        ssize_t n = write(w->fd, at, (size_t)min_u64(len, 1 << 30));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_errno(e, ERR_IO, n ? errno : EIO, "cannot write the state");
        at += n;
        len -= (uint64_t)n;
        w->offset += (uint64_t)n;
    }
    return 0;
}

int state_put_gap(struct state_writer *w, uint64_t len, struct error *e)
{
    static const uint8_t zeroes[PAGE_SIZE];
    if (w->seeks) {
        if (lseek(w->fd, (off_t)len, SEEK_CUR) < 0)
            return error_errno(e, ERR_IO, errno, "cannot write the state");
        w->offset += len;
        return 0;
    }
    int rc = 0;
    for (uint64_t part; len && !rc; len -= part) {
        part = min_u64(len, sizeof zeroes);
        rc = state_put_bytes(w, zeroes, part, e);
    }
    return rc;
}

int state_put_section(struct state_writer *w, enum state_kind kind, uint64_t len, uint32_t crc,
                      struct error *e)
{
    uint8_t head[STATE_SECTION_LEN];
    store_le32(head, kind);
    store_le32(head + 4, w->sections);
    store_le64(head + 8, len);
    store_le32(head + 16, crc);
    store_le32(head + 20, state_crc(0, head, 20));
    w->crc = state_crc(w->crc, head + 16, 4);
    w->sections++;
    return state_put_bytes(w, head, sizeof head, e);
}

static int put_whole(struct state_writer *w, enum state_kind kind, const void *payload, size_t len,
                     struct error *e)
{
    int rc = state_put_section(w, kind, len, state_crc(0, payload, len), e);
    return rc ? rc : state_put_bytes(w, payload, len, e);
}

static int put_out(struct state_writer *w, enum state_kind kind, struct state_out *out,
                   struct error *e)
{
    int rc = out->failed ? error_set(e, ERR_NOMEM, "out of memory, or a part is too large") : 0;
    if (!rc)
        rc = put_whole(w, kind, out->p, out->len, e);
    state_out_fini(out);
    return rc;
}

static void put_name(struct state_out *out, const char *name)
{
    size_t len = strnlen(name, STATE_NAME_LEN - 1);
    state_put_uint(out, len, 1);
    state_put(out, name, len);
}

static int put_memory(struct state_writer *w, unsigned number, const struct state_memory *m,
                      struct error *e)
{
    struct state_out out;
    state_out_init(&out, STATE_MAX_PART);
    state_put_uint(&out, number, 4);
    state_put_uint(&out, m->len, 8);
    put_name(&out, m->name);
    return put_out(w, STATE_MEMORY, &out, e);
}

static int put_end(struct state_writer *w, struct error *e)
{
    uint8_t end[12];
    store_le64(end, w->sections);
    store_le32(end + 8, w->crc);
    return put_whole(w, STATE_END, end, sizeof end, e);
}

static int put_head(struct state_writer *w, struct error *e)
{
    uint8_t head[STATE_HEAD_LEN] = STATE_MAGIC;
    store_le32(head + 12, STATE_VERSION);
    store_le32(head + 16, state_crc(0, head, 16));
    return state_put_bytes(w, head, sizeof head, e);
}

/* ---- the whole ---- */

struct state_saving {
    struct state_writer w;
    struct state_copy copy;
    unsigned memory;        /* whose blocks are next; */
    uint64_t block, number; /* which one, in it and of all */
    struct state_out part[STATE_MAX_PARTS];
    unsigned nparts;
};

/* The memories' sections, up to the block that is `end` of all. */
static int put_memories(struct state_saving *s, uint64_t end, struct error *e)
{
    const struct state_copy *c = &s->copy;
    int rc = 0;
    while (!rc && s->memory < c->nmemories) {
        const struct state_memory *m = &c->memory[s->memory];
        if (s->number == end && end < c->blocks)
            break;
        if (!s->block)
            rc = put_memory(&s->w, s->memory, m, e);
        for (; !rc && s->block < state_blocks(m) && s->number < end; s->block++, s->number++)
            rc = state_put_block(&s->w, c, s->memory, s->block, e);
        if (s->block < state_blocks(m))
            break;
        s->w.stats.zero_pages += m->len / PAGE_SIZE;
        s->memory++;
        s->block = 0;
    }
    return rc;
}

static int copy_parts(struct state_saving *s, const struct state_list *l, struct error *e)
{
    for (; s->nparts < l->nparts; s->nparts++) {
        const struct state_part *p = &l->part[s->nparts];
        struct state_out *out = &s->part[s->nparts];
        state_out_init(out, STATE_MAX_PART);
        put_name(out, p->name);
        state_save_fields(p->table, p->obj, out);
        if (out->failed) {
            s->nparts++;
            return error_set(e, ERR_NOMEM, "%s: out of memory, or it is too large", p->name);
        }
    }
    return 0;
}

void state_save_drop(struct state_saving *s)
{
    for (unsigned n = 0; n < s->nparts; n++)
        state_out_fini(&s->part[n]);
    state_out_fini(&s->w.index);
    state_copy_free(&s->copy);
    free(s);
}

int state_save_begin(struct state_saving **out, int fd, const struct state_list *l,
                     struct state_pool *pool, struct error *e)
{
    int rc = state_check_list(l, e);
    struct state_saving *s = rc ? NULL : calloc(1, sizeof *s);
    if (!s) {
        if (pool)
            state_pool_free(pool);
        return rc ? rc : error_set(e, ERR_NOMEM, "out of memory");
    }
    s->w.fd = fd;
    s->w.seeks = lseek(fd, 0, SEEK_CUR) >= 0;
    state_out_init(&s->w.index, SIZE_MAX / 2);
    rc = state_copy_make(&s->copy, l, pool, e);
    if (!rc)
        rc = copy_parts(s, l, e);
    if (!rc)
        rc = put_head(&s->w, e);
    if (!rc)
        rc = put_memories(s, s->copy.live, e);
    if (rc)
        state_save_drop(s);
    else
        *out = s;
    return rc;
}

int state_save_end(struct state_saving *s, struct state_stats *stats, struct error *e)
{
    int rc = put_memories(s, s->copy.blocks, e);
    for (unsigned n = 0; n < s->nparts && !rc; n++)
        rc = put_out(&s->w, STATE_PART, &s->part[n], e);
    if (!rc)
        rc = put_out(&s->w, STATE_INDEX, &s->w.index, e);
    if (!rc)
        rc = put_end(&s->w, e);
    s->w.stats.bytes = s->w.offset;
    s->w.stats.zero_pages -= s->w.stats.pages;
    if (stats)
        *stats = s->w.stats;
    state_save_drop(s);
    return rc;
}

int state_save(int fd, const struct state_list *l, struct state_stats *stats, struct error *e)
{
    struct state_saving *s;
    int rc = state_save_begin(&s, fd, l, NULL, e);
    return rc ? rc : state_save_end(s, stats, e);
}
