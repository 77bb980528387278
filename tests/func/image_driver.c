/*
 * image_driver.c - what a guest would see of an image or a remote disk, for tests in which QEMU's
 * tools say what is right.
 *
 *   read IMAGE OUT FORMAT      writes the disk's bytes to the file OUT, in steps of odd sizes
 *   write IMAGE FORMAT         commands from standard input: write|zero|unmap|discard OFFSET LENGTH
 *                              BYTE, flush 0 0 0
 *   map IMAGE FORMAT           lines: kind, offset, length
 * Errors end it with exit code 1 and a line on standard error.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int main(int argc, char **argv)
{
    struct error e = {0};
    struct node *n = NULL;
    if (argc < 4 || (!strcmp(argv[1], "read") && argc < 5))
        return fail("image_driver",
                    "read IMAGE OUT FORMAT | write IMAGE FORMAT | map IMAGE FORMAT");
    const struct image_options o = {.format = argv[argc - 1],
                                    .readonly = strcmp(argv[1], "write") != 0};
    if (image_open(argv[2], &o, &n, &e))
        return fail(argv[1], e.msg);
    int rc = !strcmp(argv[1], "read")    ? do_read(n, argv[3])
             : !strcmp(argv[1], "write") ? do_write(n)
                                         : do_map(n);
    node_close(n);
    return rc;
}
