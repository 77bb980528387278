/*
 * fuzz_disk.c - opening a raw image of any length, and requests on it in any order. Input: length
 * of the file (3 bytes), flags, then a record for each request.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/disk.h"
#include "block/image.h"
#include "fuzz.h"

#define REQUESTS 16
#define BUF      4096u

struct request {
    struct blk_req req;
    struct iovec iov[3];
    uint8_t buf[BUF];
    int done;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct request r[REQUESTS];

static void done(struct blk_req *req, int result)
{
    struct request *q = req->arg;
    FUZZ_REQUIRE(result <= 0 && !q->done); /* exactly once */
    q->done = 1;
}

static void request(struct blk *b, struct request *q, struct fuzz_in *in)
{
    uint8_t what = fuzz_u8(in);
    uint64_t at = fuzz_uint(in, 3);
    size_t len = fuzz_u16(in) % (BUF + 1), cut = fuzz_u16(in);
    bool data = what % 5 <= BLK_WRITE;
    at = b->size ? at % (b->size + 1) : 0;
    if (!data)
        len <<= what >> 4; /* discarded without a buffer: may be long */
    if (len > b->size - at)
        len = b->size - at;
    cut = data && len ? cut % len : 0;
    q->done = 0;
    q->iov[0] = (struct iovec){q->buf, cut};
    q->iov[1] = (struct iovec){q->buf, 0};
    q->iov[2] = (struct iovec){q->buf + cut, data ? len - cut : 0};
    q->req = (struct blk_req){.op = (enum blk_op)(what % 5),
                              .offset = at,
                              .len = len,
                              .iov = data ? q->iov : NULL,
                              .niov = data ? 3 : 0,
                              .done = done,
                              .arg = q};
    blk_submit(b, &q->req);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    struct blk *b = NULL;
    struct node *top = NULL;
    struct error e = {0};
    char path[64];
    unsigned n = 0;
    int fd = memfd_create("disk", MFD_CLOEXEC);
    uint64_t len = fuzz_uint(&in, 3);
    uint8_t flags = fuzz_u8(&in);
    FUZZ_REQUIRE(fd >= 0 && !ftruncate(fd, (off_t)len));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (flags & 2 && in.left) /* an image's first bytes may look like another format */
        FUZZ_REQUIRE(write(fd, in.p, in.left < len ? in.left : len) >= 0);
    struct image_options o = {.format = flags & 16 ? "auto" : "raw", .readonly = flags & 1};
    if (image_open(path, &o, &top, &e)) {
        FUZZ_REQUIRE(e.code && e.msg[0]);
        close(fd);
        return 0;
    }
    top->granularity = flags & 32 ? 4096 : 1;
    struct disk_options how = {.io = flags & 64 ? DISK_IO_THREADS : DISK_IO_AUTO};
    FUZZ_REQUIRE(disk_open(top, &how, &lock, &b, &e) == 0);
    FUZZ_REQUIRE(b->size % 512 == 0 && ((flags & 16) || b->size >= len));
    for (; in.left && n < REQUESTS; n++) {
        pthread_mutex_lock(&lock);
        request(b, &r[n], &in);
        pthread_mutex_unlock(&lock);
        if (flags & 4)
            blk_drain(b);
        if (flags & 8) /* somebody truncates it behind our back */
            FUZZ_REQUIRE(!ftruncate(fd, (off_t)(len / 2)));
    }
    blk_close(b);
    for (unsigned k = 0; k < n; k++)
        FUZZ_REQUIRE(r[k].done);
    close(fd);
    return 0;
}
