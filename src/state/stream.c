/* stream.c - the sections of a stream; see stream.h. */
#include "state/stream.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/endian.h"
#include "state/fields.h"
#include "state/section.h"

uint32_t state_crc(uint32_t crc, const void *p, size_t len)
{
    return (uint32_t)crc32_z(crc, p, len);
}

unsigned state_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned)min_u64((uint64_t)n, STATE_MAX_THREADS);
}

/* ---- lists ---- */

void state_add_part(struct state_list *l, const struct field_table *table, void *obj,
                    const char *fmt, ...)
{
    if (l->nparts++ >= STATE_MAX_PARTS)
        return;
    struct state_part *p = &l->part[l->nparts - 1];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->name, sizeof p->name, fmt, ap);
    va_end(ap);
    p->table = table;
    p->obj = obj;
}

void state_add_memory(struct state_list *l, const char *name, uint8_t *host, uint64_t len, int fd)
{
    if (l->nmemories++ < STATE_MAX_MEMORIES)
        l->memory[l->nmemories - 1] = (struct state_memory){name, host, len, fd};
}

static int check_list(const struct state_list *l, struct error *e)
{
    if (l->nparts > STATE_MAX_PARTS || l->nmemories > STATE_MAX_MEMORIES)
        return error_set(e, ERR_LIMIT, "the machine has more parts than a saved state can have");
    return 0;
}

/* ---- writing ---- */

static int put_bytes(struct state_writer *w, const void *p, uint64_t len, struct error *e)
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

int state_put_section(struct state_writer *w, enum state_kind kind, const void *payload,
                      uint64_t len, uint32_t crc, struct error *e)
{
    uint8_t head[STATE_SECTION_LEN];
    store_le32(head, kind);
    store_le32(head + 4, w->sections);
    store_le64(head + 8, len);
    store_le32(head + 16, crc);
    store_le32(head + 20, state_crc(0, head, 20));
    w->crc = state_crc(w->crc, head + 16, 4);
    w->sections++;
    int rc = put_bytes(w, head, sizeof head, e);
    return rc ? rc : put_bytes(w, payload, len, e);
}

static int put_out(struct state_writer *w, enum state_kind kind, struct state_out *out,
                   struct error *e)
{
    int rc = out->failed ? error_set(e, ERR_NOMEM, "out of memory, or a part is too large") : 0;
    if (!rc)
        rc = state_put_section(w, kind, out->p, out->len, state_crc(0, out->p, out->len), e);
    state_out_fini(out);
    return rc;
}

static void put_name(struct state_out *out, const char *name)
{
    size_t len = strnlen(name, STATE_NAME_LEN - 1);
    state_put_uint(out, len, 1);
    state_put(out, name, len);
}

static int put_part(struct state_writer *w, const struct state_part *p, struct error *e)
{
    struct state_out out;
    state_out_init(&out, STATE_MAX_PART);
    put_name(&out, p->name);
    state_save_fields(p->table, p->obj, &out);
    int rc = put_out(w, STATE_PART, &out, e);
    return rc ? error_prefix(e, "%s", p->name) : 0;
}

static int put_memory(struct state_writer *w, unsigned number, const struct state_memory *m,
                      struct error *e)
{
    struct state_out out;
    state_out_init(&out, STATE_MAX_PART);
    state_put_uint(&out, number, 4);
    state_put_uint(&out, m->len, 8);
    put_name(&out, m->name);
    int rc = put_out(w, STATE_MEMORY, &out, e);
    return rc ? rc : state_save_memory(w, number, m, e);
}

static int put_end(struct state_writer *w, struct error *e)
{
    uint8_t end[12];
    store_le64(end, w->sections);
    store_le32(end + 8, w->crc);
    return state_put_section(w, STATE_END, end, sizeof end, state_crc(0, end, sizeof end), e);
}

static int put_head(struct state_writer *w, struct error *e)
{
    uint8_t head[STATE_HEAD_LEN] = STATE_MAGIC;
    store_le32(head + 12, STATE_VERSION);
    store_le32(head + 16, state_crc(0, head, 16));
    return put_bytes(w, head, sizeof head, e);
}

int state_save(int fd, const struct state_list *l, struct state_stats *stats, struct error *e)
{
    struct state_writer w = {.fd = fd};
    int rc = check_list(l, e);
    if (rc)
        return rc;
    state_out_init(&w.index, SIZE_MAX / 2);
    rc = put_head(&w, e);
    for (unsigned n = 0; n < l->nmemories && !rc; n++)
        rc = put_memory(&w, n, &l->memory[n], e);
    for (unsigned n = 0; n < l->nparts && !rc; n++)
        rc = put_part(&w, &l->part[n], e);
    if (!rc)
        rc = put_out(&w, STATE_INDEX, &w.index, e);
    if (!rc)
        rc = put_end(&w, e);
    state_out_fini(&w.index);
    w.stats.bytes = w.offset;
    if (stats)
        *stats = w.stats;
    return rc;
}

/* ---- reading ---- */

struct section {
    enum state_kind kind;
    uint64_t len, at; /* at: offset of the header in the stream */
    uint32_t crc;
};

struct reader {
    int fd;
    const struct state_list *list;
    uint64_t offset;
    uint32_t sections, crc;
    bool ended;
    struct {
        uint8_t *p;
        size_t len, body; /* body: offset of the struct */
    } part[STATE_MAX_PARTS];
    unsigned
        number[STATE_MAX_MEMORIES]; /* of the list's memories in the stream, and one; 0: none */
    unsigned nmemories, memory;     /* declared; the one whose pages come */
    uint64_t next_page;
    struct state_out index; /* as it should be */
    struct state_loader *loader;
};

static int damaged(struct error *e, const char *what)
{
    return error_set(e, ERR_FORMAT, "the saved state is damaged: %s", what);
}

static int get_bytes(struct reader *r, void *p, uint64_t len, struct error *e)
{
    uint8_t *at = p;
    while (len) {
        ssize_t n = read(r->fd, at, (size_t)min_u64(len, 1 << 30));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, ERR_IO, errno, "cannot read the saved state");
        if (!n)
            return error_set(e, ERR_FORMAT, "the saved state is cut off after %llu bytes",
                             (unsigned long long)r->offset);
        at += n;
        len -= (uint64_t)n;
        r->offset += (uint64_t)n;
    }
    return 0;
}

static int get_head(struct reader *r, struct error *e)
{
    uint8_t head[STATE_HEAD_LEN];
    int rc = get_bytes(r, head, sizeof head, e);
    if (rc)
        return rc;
    if (memcmp(head, STATE_MAGIC, STATE_MAGIC_LEN + 1))
        return error_set(e, ERR_FORMAT, "this is no saved state of a virtual machine");
    if (load_le32(head + 16) != state_crc(0, head, 16))
        return damaged(e, "its first bytes have another checksum");
    if (load_le32(head + 12) != STATE_VERSION)
        return error_set(e, ERR_FORMAT,
                         "the saved state has format version %u; this version of sosia reads %u",
                         load_le32(head + 12), STATE_VERSION);
    return 0;
}

static int get_section(struct reader *r, struct section *s, struct error *e)
{
    uint8_t head[STATE_SECTION_LEN];
    s->at = r->offset;
    int rc = get_bytes(r, head, sizeof head, e);
    if (rc)
        return rc;
    if (load_le32(head + 20) != state_crc(0, head, 20))
        return damaged(e, "a section's header has another checksum");
    if (load_le32(head + 4) != r->sections)
        return damaged(e, "a section is missing, or there twice");
    s->kind = load_le32(head);
    s->len = load_le64(head + 8);
    s->crc = load_le32(head + 16);
    if (s->kind != STATE_END) {
        r->sections++;
        r->crc = state_crc(r->crc, head + 16, 4);
    }
    return 0;
}

/* The payload, on the heap; ERR_FORMAT beyond `max` bytes. */
static int get_payload(struct reader *r, const struct section *s, uint64_t max, uint8_t **out,
                       struct error *e)
{
    *out = NULL;
    if (s->len > max)
        return damaged(e, "a section is longer than it can be");
    uint8_t *p = malloc((size_t)s->len + 1);
    if (!p)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = get_bytes(r, p, s->len, e);
    if (!rc && state_crc(0, p, (size_t)s->len) != s->crc)
        rc = damaged(e, "a section has another checksum");
    if (rc)
        free(p);
    else
        *out = p;
    return rc;
}

/* A name; the rest of `in` follows it. */
static bool take_name(struct state_in *in, char name[STATE_NAME_LEN])
{
    uint64_t len;
    if (!state_take_uint(in, 1, &len) || !len || len >= STATE_NAME_LEN)
        return false;
    const uint8_t *p = state_take(in, (size_t)len);
    if (!p)
        return false;
    for (unsigned n = 0; n < len; n++) {
        if (p[n] < ' ' || p[n] > '~')
            return false;
        name[n] = (char)p[n];
    }
    name[len] = 0;
    return true;
}

/* Keeps the part until all memory is loaded. */
static int on_part(struct reader *r, const struct section *s, struct error *e)
{
    uint8_t *p;
    char name[STATE_NAME_LEN];
    int rc = get_payload(r, s, STATE_MAX_PART, &p, e);
    if (rc)
        return rc;
    struct state_in in = {.p = p, .len = (size_t)s->len};
    unsigned n = 0;
    bool named = take_name(&in, name);
    while (named && n < r->list->nparts && strcmp(r->list->part[n].name, name))
        n++;
    if (named && n < r->list->nparts && !r->part[n].p) {
        r->part[n].p = p;
        r->part[n].len = in.len;
        r->part[n].body = in.pos;
        return 0;
    }
    free(p);
    if (!named)
        return damaged(e, "a part has no name");
    if (n < r->list->nparts)
        return damaged(e, "a part is there twice");
    return error_set(e, ERR_STATE,
                     "the saved state is of another machine: its \"%s\" does not exist here", name);
}

static int on_memory(struct reader *r, const struct section *s, struct error *e)
{
    uint8_t *p;
    char name[STATE_NAME_LEN];
    uint64_t number = 0, len = 0;
    int rc = get_payload(r, s, 256, &p, e);
    if (rc)
        return rc;
    struct state_in in = {.p = p, .len = (size_t)s->len};
    bool ok = state_take_uint(&in, 4, &number) && state_take_uint(&in, 8, &len) &&
              take_name(&in, name) && in.pos == in.len && number == r->nmemories;
    free(p);
    if (!ok)
        return damaged(e, "a memory is not described as it should be");
    unsigned n = 0;
    while (n < r->list->nmemories && strcmp(r->list->memory[n].name, name))
        n++;
    if (n == r->list->nmemories || r->number[n])
        return error_set(e, ERR_STATE,
                         "the saved state is of another machine: it has a memory \"%s\"", name);
    if (len != r->list->memory[n].len)
        return error_set(e, ERR_STATE,
                         "the saved state is of another machine: memory \"%s\" has %llu KiB there "
                         "and %llu KiB here",
                         name, (unsigned long long)(len / KIB),
                         (unsigned long long)(r->list->memory[n].len / KIB));
    r->number[n] = ++r->nmemories;
    r->memory = n;
    r->next_page = 0;
    return state_clear_memory(&r->list->memory[n], e);
}

/* Checks the place, which the threads then need not; they check the contents. */
static int on_pages(struct reader *r, const struct section *s, struct error *e)
{
    if (!r->nmemories || s->len < STATE_PAGES_LEN || s->len > STATE_MAX_PAGES_SECTION)
        return damaged(e, "a section of pages has a wrong length");
    uint8_t *buf = state_loader_buffer(r->loader);
    int rc = get_bytes(r, buf, s->len, e);
    if (rc) {
        state_loader_give(r->loader, 0, buf, 0, 0);
        return rc;
    }
    uint64_t first = load_le64(buf + 8), pages = r->list->memory[r->memory].len / PAGE_SIZE;
    uint64_t bitmap = load_le64(buf + 16);
    if (load_le32(buf) != r->nmemories - 1 || first < r->next_page || first >= pages ||
        first % STATE_CHUNK || !bitmap ||
        (pages - first < STATE_CHUNK && bitmap >> (pages - first))) {
        state_loader_give(r->loader, 0, buf, 0, 0);
        return damaged(e, "pages lie where there is no memory");
    }
    r->next_page = first + STATE_CHUNK;
    state_put_uint(&r->index, r->nmemories - 1, 8);
    state_put_uint(&r->index, first, 8);
    state_put_uint(&r->index, s->at, 8);
    state_loader_give(r->loader, r->memory, buf, (uint32_t)s->len, s->crc);
    return 0;
}

static int on_index(struct reader *r, const struct section *s, struct error *e)
{
    uint8_t *p;
    int rc = get_payload(r, s, r->index.len, &p, e);
    if (rc)
        return rc;
    if (r->index.failed)
        rc = error_set(e, ERR_NOMEM, "out of memory");
    else if (s->len != r->index.len || (s->len && memcmp(p, r->index.p, r->index.len)))
        rc = damaged(e, "its index is wrong");
    free(p);
    return rc;
}

static int on_end(struct reader *r, const struct section *s, struct error *e)
{
    uint8_t *p;
    int rc = get_payload(r, s, 12, &p, e);
    if (rc)
        return rc;
    if (s->len != 12 || load_le64(p) != r->sections || load_le32(p + 8) != r->crc)
        rc = damaged(e, "its end belongs to another one");
    free(p);
    r->ended = true;
    return rc;
}

static int read_sections(struct reader *r, struct error *e)
{
    struct section s;
    int rc = get_head(r, e);
    while (!rc && !r->ended) {
        rc = get_section(r, &s, e);
        if (rc)
            break;
        switch (s.kind) {
        case STATE_PART:
            rc = on_part(r, &s, e);
            break;
        case STATE_MEMORY:
            rc = on_memory(r, &s, e);
            break;
        case STATE_PAGES:
            rc = on_pages(r, &s, e);
            break;
        case STATE_INDEX:
            rc = on_index(r, &s, e);
            break;
        case STATE_END:
            rc = on_end(r, &s, e);
            break;
        default:
            rc = damaged(e, "a section is of no known kind");
        }
    }
    return rc;
}

static int load_parts(struct reader *r, struct error *e)
{
    const struct state_list *l = r->list;
    for (unsigned n = 0; n < l->nmemories; n++)
        if (!r->number[n])
            return error_set(e, ERR_STATE, "the saved state is of another machine: it lacks \"%s\"",
                             l->memory[n].name);
    for (unsigned n = 0; n < l->nparts; n++)
        if (!r->part[n].p)
            return error_set(e, ERR_STATE, "the saved state is of another machine: it lacks \"%s\"",
                             l->part[n].name);
    for (unsigned n = 0; n < l->nparts; n++) {
        struct state_in in = {.p = r->part[n].p, .len = r->part[n].len, .pos = r->part[n].body};
        int rc = state_load_fields(l->part[n].table, l->part[n].obj, &in, e);
        if (!rc && in.pos != in.len)
            rc = damaged(e, "a part is longer than its fields");
        if (rc)
            return error_prefix(e, "%s", l->part[n].name);
    }
    return 0;
}

int state_load(int fd, const struct state_list *l, struct state_stats *stats, struct error *e)
{
    struct error worker = {0};
    uint64_t pages = 0;
    int rc = check_list(l, e);
    if (rc)
        return rc;
    struct reader *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(e, ERR_NOMEM, "out of memory");
    r->fd = fd;
    r->list = l;
    state_out_init(&r->index, SIZE_MAX / 2);
    rc = state_loader_start(&r->loader, l, e);
    if (!rc) {
        rc = read_sections(r, e);
        int bad = state_loader_finish(r->loader, &pages, &worker);
        if (bad && !rc) {
            rc = bad;
            if (e)
                *e = worker;
        }
    }
    if (!rc)
        rc = load_parts(r, e);
    if (stats) {
        *stats = (struct state_stats){.pages = pages, .bytes = r->offset};
        for (unsigned n = 0; n < l->nmemories; n++)
            stats->zero_pages += l->memory[n].len / PAGE_SIZE;
        stats->zero_pages -= pages;
    }
    for (unsigned n = 0; n < l->nparts; n++)
        free(r->part[n].p);
    state_out_fini(&r->index);
    free(r);
    return rc;
}
