/* load.c - reading a stream; see stream.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/endian.h"
#include "state/fields.h"
#include "state/section.h"

#define MAX_MAPPINGS 32000u /* a process has 65530 by default (vm.max_map_count) */

struct section {
    enum state_kind kind;
    uint64_t len, at; /* at: offset of the header in the stream */
    uint32_t crc;
};

struct reader {
    int fd;
    uint32_t version;
    /* Of a regular file: where the stream begins in it, and where it ends. */
    bool is_file;
    uint64_t base, end;
    unsigned mappings;
    uint64_t placed; /* pages in place, zero ones among them */
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
    r->version = load_le32(head + 12);
    if (r->version < 1 || r->version > STATE_VERSION)
        return error_set(e, ERR_FORMAT,
                         "the saved state has format version %u; this version of sosia reads 1 to "
                         "%u",
                         r->version, STATE_VERSION);
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

static int misplaced(struct error *e)
{
    return damaged(e, "pages lie where there is no memory");
}

static void note_pages(struct reader *r, const struct section *s, uint64_t first)
{
    state_put_uint(&r->index, r->nmemories - 1, 8);
    state_put_uint(&r->index, first, 8);
    state_put_uint(&r->index, s->at, 8);
}

/* Pages that lie together, `head` before them. Checks the place, which the threads then need not;
 * they check the contents. */
static int on_packed(struct reader *r, const struct section *s, const uint8_t *head,
                     struct error *e)
{
    if (s->len > STATE_MAX_PAGES_SECTION)
        return damaged(e, "a section of pages has a wrong length");
    uint64_t first = load_le64(head + 8), pages = r->list->memory[r->memory].len / PAGE_SIZE;
    uint64_t bitmap = load_le64(head + 16);
    if (first < r->next_page || first >= pages || first % STATE_CHUNK || !bitmap ||
        (pages - first < STATE_CHUNK && bitmap >> (pages - first)))
        return misplaced(e);
    uint8_t *buf = state_loader_buffer(r->loader);
    memcpy(buf, head, STATE_PAGES_LEN);
    int rc = get_bytes(r, buf + STATE_PAGES_LEN, s->len - STATE_PAGES_LEN, e);
    if (rc) {
        state_loader_give(r->loader, 0, buf, 0, 0);
        return rc;
    }
    r->next_page = first + STATE_CHUNK;
    note_pages(r, s, first);
    state_loader_give(r->loader, r->memory, buf, (uint32_t)s->len, s->crc);
    return 0;
}

/* Puts the file's pages in the place of the memory's own. False: they have to be read. */
static bool map_pages(struct reader *r, uint64_t first, uint64_t bytes)
{
    const struct state_memory *m = &r->list->memory[r->memory];
    uint64_t at = r->base + r->offset;
    if (!m->mapped || !r->is_file || at % PAGE_SIZE || r->end - at < bytes ||
        r->mappings >= MAX_MAPPINGS)
        return false;
    if (mmap(m->host + first * PAGE_SIZE, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, r->fd, (off_t)at) == MAP_FAILED)
        return false;
    r->mappings++;
    m->mapped[first / STATE_BLOCK / 8] |= (uint8_t)(1u << (first / STATE_BLOCK % 8));
    return lseek(r->fd, (off_t)bytes, SEEK_CUR) >= 0;
}

/* Pages in place: mapped, or read to where they belong. */
static int on_placed(struct reader *r, const struct section *s, const uint8_t *head,
                     struct error *e)
{
    const struct state_memory *m = &r->list->memory[r->memory];
    uint8_t zeroes[PAGE_SIZE];
    uint64_t first = load_le64(head + 8), count = load_le64(head + 16);
    uint64_t pages = m->len / PAGE_SIZE, bytes = count * PAGE_SIZE;
    uint32_t pad = state_pad(s->at + STATE_SECTION_LEN);
    if (first < r->next_page || first >= pages || !count || count > pages - first ||
        count > STATE_BLOCK - first % STATE_BLOCK)
        return misplaced(e);
    if (s->len != STATE_PAGES_LEN + pad + bytes)
        return damaged(e, "a section of pages has a wrong length");
    int rc = get_bytes(r, zeroes, pad, e);
    if (rc)
        return rc;
    uint32_t crc = state_crc(state_crc(0, head, STATE_PAGES_LEN), zeroes, pad);
    if (map_pages(r, first, bytes)) {
        state_loader_check(r->loader, r->fd, r->base + r->offset, (uint32_t)bytes, crc, s->crc);
        r->offset += bytes;
    } else {
        rc = get_bytes(r, m->host + first * PAGE_SIZE, bytes, e);
        if (!rc && state_crc(crc, m->host + first * PAGE_SIZE, bytes) != s->crc)
            rc = damaged(e, "a section has another checksum");
    }
    r->placed += count;
    r->next_page = first + count;
    note_pages(r, s, first);
    return rc;
}

static int on_pages(struct reader *r, const struct section *s, struct error *e)
{
    uint8_t head[STATE_PAGES_LEN];
    if (!r->nmemories || s->len < STATE_PAGES_LEN)
        return damaged(e, "a section of pages has a wrong length");
    int rc = get_bytes(r, head, sizeof head, e);
    if (rc)
        return rc;
    if (load_le32(head) != r->nmemories - 1)
        return misplaced(e);
    return r->version >= 2 && load_le32(head + 4) == STATE_PLACED ? on_placed(r, s, head, e)
                                                                  : on_packed(r, s, head, e);
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
    struct stat st;
    int rc = state_check_list(l, e);
    if (rc)
        return rc;
    struct reader *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(e, ERR_NOMEM, "out of memory");
    r->fd = fd;
    r->list = l;
    off_t at = lseek(fd, 0, SEEK_CUR);
    r->is_file = at >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= at;
    r->base = r->is_file ? (uint64_t)at : 0;
    r->end = r->is_file ? (uint64_t)st.st_size : 0;
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
        pages += r->placed;
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
