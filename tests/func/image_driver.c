/*
 * image_driver.c - what a guest would see of an image or a remote disk, for tests in which QEMU's
 * tools say what is right.
 *
 *   read IMAGE OUT FORMAT      writes the disk's bytes to the file OUT, in steps of odd sizes
 *   write IMAGE FORMAT         commands from standard input: write|zero|unmap|discard OFFSET LENGTH
 *                              BYTE, flush 0 0 0
 *   map IMAGE FORMAT           lines: kind, offset, length
 *   async IMAGE FORMAT         as a device does: many requests in flight; each block of 64 KiB gets
 *                              its number modulo 251 in all bytes
 * Errors end it with exit code 1 and a line on standard error.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/disk.h"
#include "block/image.h"

#define STEP (65536u * 3 + 4711) /* bytes of one read: crosses every boundary there is */

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

static int do_read(struct node *n, const char *path)
{
    static uint8_t buf[STEP], again[STEP];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fail(path, "cannot make it");
    for (uint64_t at = 0, part; at < node_size(n); at += part) {
        part = min_u64(STEP, node_size(n) - at);
        struct node_place place;
        int rc = node_read(n, buf, part, at);
        if (rc)
            return fail("read", strerror(-rc));
        if (node_resolve(n, at, part, false, &place)) {
            memset(again, 0, sizeof again);
            if (place.node && node_read(place.node, again, place.len, place.offset))
                return fail("read", "not where it resolves to");
            if (memcmp(buf, again, place.len) != 0)
                return fail("read", "other bytes where it resolves to");
        }
        if (pwrite(fd, buf, part, (off_t)at) != (ssize_t)part)
            return fail(path, "cannot write");
    }
    close(fd);
    return 0;
}

static int do_write(struct node *n)
{
    static uint8_t buf[4 << 20];
    unsigned long long at, len;
    unsigned byte;
    char what[16];
    while (scanf("%15s %llu %llu %u", what, &at, &len, &byte) == 4) {
        int rc = -1;
        memset(buf, (int)byte, sizeof buf);
        if (!strcmp(what, "write"))
            rc = node_write(n, buf, min_u64(len, sizeof buf), at, 0);
        else if (!strcmp(what, "fua"))
            rc = node_write(n, buf, min_u64(len, sizeof buf), at, NODE_FUA);
        else if (!strcmp(what, "zero"))
            rc = node_zero(n, at, len, 0);
        else if (!strcmp(what, "unmap"))
            rc = node_zero(n, at, len, NODE_MAY_UNMAP);
        else if (!strcmp(what, "discard"))
            rc = node_discard(n, at, len);
        else if (!strcmp(what, "flush"))
            rc = node_flush(n);
        if (rc)
            return fail(what, strerror(-rc));
    }
    return 0;
}

static int do_map(struct node *n)
{
    static const char *const kinds[] = {
        [NODE_HOLE] = "hole", [NODE_ZERO] = "zero", [NODE_DATA] = "data"};
    struct node_extent x;
    for (uint64_t at = 0; at < node_size(n); at += x.len) {
        int rc = node_map(n, at, node_size(n) - at, &x);
        if (rc)
            return fail("map", strerror(-rc));
        printf("%s %llu %llu\n", kinds[x.kind], (unsigned long long)at, (unsigned long long)x.len);
    }
    return 0;
}

/* ---- async ---- */

#define ASYNC 48
#define BLOCK (64u * 1024)

static struct {
    pthread_mutex_t lock;
    pthread_cond_t all;
    unsigned done;
    int result;
} waiting = {.lock = PTHREAD_MUTEX_INITIALIZER, .all = PTHREAD_COND_INITIALIZER};

static void on_done(struct blk_req *req, int result)
{
    waiting.done++; /* with the device lock held, which is waiting.lock */
    if (result)
        waiting.result = result;
    pthread_cond_signal(&waiting.all);
}

/* All blocks, as many at a time as there are; 0 or -errno. */
static int transfer(struct blk *b, enum blk_op op, uint8_t *buf)
{
    struct blk_req req[ASYNC];
    struct iovec iov[ASYNC][2];
    for (uint64_t at = 0; at < b->size && !waiting.result; at += ASYNC * BLOCK) {
        pthread_mutex_lock(&waiting.lock);
        waiting.done = 0;
        unsigned n = 0;
        for (; n < ASYNC && at + (n + 1ull) * BLOCK <= b->size; n++) {
            uint64_t offset = at + (uint64_t)n * BLOCK;
            iov[n][0] = (struct iovec){buf + offset, 512};
            iov[n][1] = (struct iovec){buf + offset + 512, BLOCK - 512};
            req[n] = (struct blk_req){.op = op,
                                      .offset = offset,
                                      .len = BLOCK,
                                      .iov = iov[n],
                                      .niov = 2,
                                      .fua = op == BLK_WRITE && n % 16 == 0,
                                      .done = on_done};
            blk_submit(b, &req[n]);
        }
        while (waiting.done < n)
            pthread_cond_wait(&waiting.all, &waiting.lock);
        pthread_mutex_unlock(&waiting.lock);
    }
    return waiting.result;
}

static int do_async(struct node *n)
{
    struct error e = {0};
    struct blk *b = NULL;
    uint8_t *buf = malloc(node_size(n)), *back = malloc(node_size(n));
    if (!buf || !back)
        return fail("async", "out of memory");
    for (uint64_t i = 0; i < node_size(n); i++)
        buf[i] = (uint8_t)(i / BLOCK % 251);
    if (disk_open(n, &(struct disk_options){.io = DISK_IO_AUTO}, &waiting.lock, &b, &e))
        return fail("async", e.msg);
    int rc = transfer(b, BLK_WRITE, buf);
    if (!rc)
        rc = transfer(b, BLK_READ, back);
    if (!rc && memcmp(buf, back, b->size / BLOCK * BLOCK) != 0)
        rc = fail("async", "other bytes than were written");
    else if (rc)
        fail("async", strerror(-rc));
    b->drv->close(b);
    free(buf);
    free(back);
    return rc ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct error e = {0};
    struct node *n = NULL;
    if (argc < 4 || (!strcmp(argv[1], "read") && argc < 5))
        return fail("image_driver",
                    "read IMAGE OUT FORMAT | write IMAGE FORMAT | map|async IMAGE FORMAT");
    const struct image_options o = {
        .format = argv[argc - 1], .readonly = strcmp(argv[1], "write") && strcmp(argv[1], "async")};
    if (image_open(argv[2], &o, &n, &e))
        return fail(argv[1], e.msg);
    if (!strcmp(argv[1], "async"))
        return do_async(n);
    int rc = !strcmp(argv[1], "read")    ? do_read(n, argv[3])
             : !strcmp(argv[1], "write") ? do_write(n)
                                         : do_map(n);
    node_close(n);
    return rc;
}
