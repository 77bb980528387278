/*
 * memfile.h - a small file in memory as a node, for targets that open damaged images.
 */
#ifndef SOSIA_TESTS_FUZZ_MEMFILE_H
#define SOSIA_TESTS_FUZZ_MEMFILE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "block/node.h"
#include "fuzz.h"

#define MEMFILE_ROOM (512u * 1024)

struct memfile {
    struct node node;
    bool stays; /* closing does not free it */
    uint8_t data[MEMFILE_ROOM];
};

static inline int memfile_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct memfile *m = CONTAINER_OF(n, struct memfile, node);
    for (int i = 0; i < niov; offset += iov[i++].iov_len) {
        uint64_t there = offset < MEMFILE_ROOM ? MEMFILE_ROOM - offset : 0;
        size_t part = (size_t)min_u64(there, iov[i].iov_len);
        if (part)
            memcpy(iov[i].iov_base, m->data + offset, part);
        memset((uint8_t *)iov[i].iov_base + part, 0, iov[i].iov_len - part);
    }
    return 0;
}

static inline int memfile_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                                unsigned flags)
{
    struct memfile *m = CONTAINER_OF(n, struct memfile, node);
    for (int i = 0; i < niov; offset += iov[i++].iov_len) {
        if (!range_within(offset, iov[i].iov_len, MEMFILE_ROOM))
            return -ENOSPC;
        memcpy(m->data + offset, iov[i].iov_base, iov[i].iov_len);
        n->size = max_u64(n->size, offset + iov[i].iov_len);
    }
    return 0;
}

static inline int memfile_flush(struct node *n)
{
    return 0;
}

static inline int memfile_resize(struct node *n, uint64_t size, struct error *e)
{
    struct memfile *m = CONTAINER_OF(n, struct memfile, node);
    if (size > MEMFILE_ROOM)
        return error_set(e, ERR_IO, "too large");
    if (size < n->size)
        memset(m->data + size, 0, min_u64(n->size, MEMFILE_ROOM) - size);
    n->size = size;
    return 0;
}

static inline void memfile_close(struct node *n)
{
    struct memfile *m = CONTAINER_OF(n, struct memfile, node);
    if (!m->stays)
        free(m);
}

static const struct node_ops memfile_ops = {.name = "memory",
                                            .read = memfile_read,
                                            .write = memfile_write,
                                            .flush = memfile_flush,
                                            .resize = memfile_resize,
                                            .close = memfile_close};

static inline struct memfile *memfile_open(void)
{
    struct memfile *m = calloc(1, sizeof *m);
    FUZZ_REQUIRE(m);
    m->node = (struct node){.ops = &memfile_ops, .grows = true, .fd = -1};
    return m;
}

/* Overwrites bytes that the input chooses: 2, 4 or 8 bytes anywhere in the first `limit`, or text.
 */
static inline void memfile_damage(struct memfile *m, struct fuzz_in *in, uint32_t limit)
{
    uint32_t at = (uint32_t)fuzz_uint(in, 3) % limit;
    uint8_t how = fuzz_u8(in);
    const uint8_t *p;
    uint8_t b[8];
    if (how >= 128) { /* a stretch of the input */
        size_t len = fuzz_take(in, &p, min_u64(how - 127u, MEMFILE_ROOM - at));
        memcpy(m->data + at, p, len);
        return;
    }
    uint64_t v = fuzz_uint(in, how % 8 + 1);
    for (unsigned i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> 8 * i);
    memcpy(m->data + at, b, min_u64(how % 8 + 1, MEMFILE_ROOM - at));
}

/* Reads and maps what a guest or a tool would; two reads of the same bytes agree. */
static inline void memfile_use(struct node *n)
{
    static uint8_t a[65536], b[65536];
    struct node_extent x = {0};
    struct node_place place;
    uint64_t size = node_size(n), at = 0;
    for (unsigned step = 0; step < 64 && at < size; step++, at += x.len) {
        if (node_map(n, at, size - at, &x))
            x.len = min_u64(size - at, 4096);
        FUZZ_REQUIRE(x.len > 0 && x.len <= size - at);
        size_t len = (size_t)min_u64(x.len, sizeof a);
        memset(a, 0xaa, len);
        memset(b, 0x55, len);
        if (node_read(n, a, len, at) == 0 && node_read(n, b, len, at) == 0)
            FUZZ_REQUIRE(memcmp(a, b, len) == 0);
        if (node_resolve(n, at, len, false, &place))
            FUZZ_REQUIRE(place.len > 0 && place.len <= len);
    }
    if (size) /* its last byte */
        node_read(n, a, 1, size - 1);
}

#endif
