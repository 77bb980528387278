/*
 * fuzz_image.c - finding out formats and opening chains of images that name each other. Input:
 * flags, then pieces of the files a, b, c and d: which, offset (3 bytes), length (1), content.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "block/image.h"
#include "fuzz.h"

#define FILES 4
#define STEPS 64

static char dir[64], path[FILES][80];

static void clean_up(void)
{
    for (unsigned i = 0; i < FILES; i++)
        unlink(path[i]);
    rmdir(dir);
}

static void set_up(void)
{
    strcpy(dir,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/sosia-fuzz-XXXXXX" : "/tmp/sosia-fuzz-XXXXXX");
    FUZZ_REQUIRE(mkdtemp(dir) != NULL);
    for (unsigned i = 0; i < FILES; i++)
        snprintf(path[i], sizeof path[i], "%s/%c", dir, 'a' + (int)i);
    atexit(clean_up);
    log_set_level(LOG_ERROR);
}

static void write_files(struct fuzz_in *in)
{
    int fd[FILES];
    for (unsigned i = 0; i < FILES; i++) {
        fd[i] = open(path[i], O_RDWR | O_CREAT | O_TRUNC, 0600);
        FUZZ_REQUIRE(fd[i] >= 0);
    }
    while (in->left > 0) {
        const uint8_t *p;
        unsigned which = fuzz_u8(in) % FILES;
        uint64_t offset = fuzz_uint(in, 3);
        size_t len = fuzz_take(in, &p, fuzz_u8(in));
        FUZZ_REQUIRE(pwrite(fd[which], p, len, (off_t)offset) == (ssize_t)len);
    }
    for (unsigned i = 0; i < FILES; i++)
        close(fd[i]);
}

/* What a guest could do with it. Results may be errors; reads after it must agree with each other.
 */
static void use(struct node *n)
{
    static uint8_t a[65536], b[65536];
    struct node_extent x = {0};
    uint64_t size = node_size(n), at = 0;
    for (unsigned step = 0; step < STEPS && at < size; step++, at += x.len) {
        if (node_map(n, at, size - at, &x))
            break;
        FUZZ_REQUIRE(x.len > 0 && x.len <= size - at && x.depth < FORMAT_MAX_DEPTH);
        size_t len = (size_t)min_u64(x.len, sizeof a);
        memset(a, 0xaa, len);
        memset(b, 0x55, len);
        if (node_read(n, a, len, at) == 0 && node_read(n, b, len, at) == 0)
            FUZZ_REQUIRE(memcmp(a, b, len) == 0);
    }
    size_t len = (size_t)min_u64(4096, size);
    at = size / 2 <= size - len ? size / 2 : 0;
    memset(a, 7, len);
    if (node_write(n, a, 1, at, 0) == 0 && node_read(n, b, 1, at) == 0)
        FUZZ_REQUIRE(b[0] == 7);
    /* No more than that can be asked: clusters of a damaged image may lie in the same place. */
    node_write(n, a, len, at, 0);
    if (node_zero(n, at, len / 2, NODE_MAY_UNMAP) == 0 && node_read(n, b, len, at) == 0)
        FUZZ_REQUIRE(len < 2 || b[0] == 0);
    node_discard(n, 0, size);
    node_flush(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    struct error e = {0};
    struct node *n = NULL;
    if (!dir[0])
        set_up();
    uint8_t flags = fuzz_u8(&in);
    struct image_options o = {.readonly = flags & 5, /* one to be checked is not written to */
                              .no_backing = flags & 2,
                              .check = flags & 4,
                              .unlocked = flags & 8,
                              .format = flags & 16 ? "qcow2" : NULL};
    write_files(&in);
    if (image_open(path[0], &o, &n, &e)) {
        FUZZ_REQUIRE(e.code && e.msg[0] && !n);
        return 0;
    }
    use(n);
    node_close(n);
    return 0;
}
