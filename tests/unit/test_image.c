/*
 * test_image.c - formats found out from the first bytes, chains of backing files, and which files
 * an image may name.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "block/image.h"
#include "block/io/file.h"
#include "spec/spec.h"

#define SIZE (1u << 20)

static char dir[64], sub[96];
static struct error e;

static const char *at(const char *name)
{
    static char path[4][160];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", sub, name);
    return p;
}

/* An image in dir/sub, unless the name says otherwise. NULL, NULL: no backing file, no format. */
static void make(const char *name, const char *format, const char *backing,
                 const char *backing_format)
{
    struct node *file = NULL;
    const struct format_create c = {
        .size = SIZE, .backing = backing, .backing_format = backing_format};
    unlink(at(name));
    if (file_open(at(name), &(struct file_options){.create = true}, &file, &e) ||
        format_find(format)->create(file, &c, &e))
        fail_msg("%s", e.msg);
    node_close(file);
}

static int open_with(const char *name, const struct image_options *o, struct node **out)
{
    e = (struct error){0};
    *out = NULL;
    int rc = image_open(at(name), o, out, &e);
    assert_true(rc == 0 ? *out != NULL : rc == e.code && e.msg[0]);
    return rc;
}

static struct node *opened(const char *name, const struct image_options *o)
{
    struct node *n;
    if (open_with(name, o, &n))
        fail_msg("%s", e.msg);
    return n;
}

static void refused(const char *name, const struct image_options *o, int code, const char *says)
{
    struct node *n;
    assert_int_equal(open_with(name, o, &n), code);
    if (!strstr(e.msg, says))
        fail_msg("'%s' lacks '%s'", e.msg, says);
}

static void put(const char *name, uint64_t offset, const void *bytes, size_t len)
{
    int fd = open(at(name), O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && pwrite(fd, bytes, len, (off_t)offset) == (ssize_t)len);
    close(fd);
}

static const struct image_options any = {0}, ro = {.readonly = true};

static void formats_are_found(void **state)
{
    for (const char *const *w = spec_format_words + 1; *w; w++)
        assert_non_null(format_find(*w));
    make("a", "raw", NULL, NULL);
    make("b", "qcow2", NULL, NULL);
    struct node *n = opened("a", &any);
    assert_string_equal(n->ops->name, "raw");
    assert_int_equal(n->size, SIZE);
    node_close(n);
    n = opened("b", &any);
    assert_string_equal(n->ops->name, "qcow2");
    assert_int_equal(n->size, SIZE);
    node_close(n);
    n = opened("b", &(struct image_options){.format = "raw"});
    assert_string_equal(n->ops->name, "raw");
    assert_int_not_equal(n->size, SIZE);
    node_close(n);
    refused("a", &(struct image_options){.format = "qcow2"}, ERR_FORMAT, "");
    refused("a", &(struct image_options){.format = "qcow"}, ERR_FORMAT, "raw");
    refused("a", &(struct image_options){.format = "file"}, ERR_FORMAT, "unknown format");
    refused("none", &any, ERR_IO, "no such file");
}

/* A guest must not turn a disk into an image that names files of the host. */
static void a_guessed_raw_disk_stays_one(void **state)
{
    uint8_t head[8192], b[512];
    make("a", "raw", NULL, NULL);
    make("b", "qcow2", "/etc/passwd", "raw");
    int fd = open(at("b"), O_RDONLY);
    assert_int_equal(read(fd, head, sizeof head), sizeof head);
    close(fd);
    struct node *n = opened("a", &any);
    struct node_place p;
    assert_int_equal(node_write(n, head, 512, 0, 0), -EROFS);
    assert_int_equal(node_write(n, head, sizeof head, 0, 0), -EROFS);
    assert_int_equal(node_write(n, head, 2, 0, 0), 0);
    assert_int_equal(node_write(n, head + 2, 510, 2, 0), -EROFS); /* with what is there */
    struct iovec cut[] = {{head, 1}, {NULL, 0}, {head + 1, 2}, {head + 3, 509}};
    assert_int_equal(node_writev(n, cut, 4, 0, 0), -EROFS);
    assert_false(node_resolve(n, 0, 512, true, &p));
    assert_int_equal(node_read(n, b, 512, 0), 0);
    assert_true(b[0] == head[0] && b[1] == head[1] && b[2] == 0);
    assert_int_equal(node_write(n, head, 512, 512, 0), 0); /* anywhere else it is data */
    assert_int_equal(node_write(n, head, 512, FORMAT_PROBE, 0), 0);
    node_close(n);
    n = opened("a", &(struct image_options){.format = "raw"});
    assert_int_equal(node_write(n, head, 512, 0, 0), 0);
    node_close(n);
}

static void chains(void **state)
{
    uint8_t b[4096];
    struct node_extent x;
    make("base", "raw", NULL, NULL);
    put("base", 65536, "base", 4);
    make("mid", "qcow2", "base", "raw");
    make("top", "qcow2", "mid", "qcow2");
    struct node *n = opened("mid", &any);
    assert_int_equal(node_write(n, "middle", 6, 131072, 0), 0);
    node_close(n);
    n = opened("top", &any);
    assert_false(n->readonly);
    assert_true(n->backing && n->backing->readonly && n->backing->backing &&
                n->backing->backing->readonly);
    assert_int_equal(node_write(n, "top", 3, 65538, 0), 0);
    assert_int_equal(node_read(n, b, 8, 65536), 0);
    assert_memory_equal(b, "batop\0\0\0", 8);
    assert_int_equal(node_read(n, b, 6, 131072), 0);
    assert_memory_equal(b, "middle", 6);
    assert_int_equal(node_map(n, 131072, 10, &x), 0);
    assert_true(x.kind == NODE_DATA && x.depth == 1);
    assert_int_equal(node_map(n, 0, SIZE, &x), 0);
    assert_true(x.kind == NODE_HOLE && x.len == 65536);
    refused("base", &any, ERR_BUSY, "uses it"); /* shared, for readers only */
    node_close(opened("base", &ro));
    node_close(n);

    n = opened("top", &(struct image_options){.no_backing = true});
    assert_null(n->backing);
    node_close(n);
    unlink(at("base"));
    refused("top", &any, ERR_IO, "base");
}

static void only_files_inside(void **state)
{
    char up[160];
    make("../out", "raw", NULL, NULL);
    make("in", "raw", NULL, NULL);
    const struct image_options anywhere = {.allow_outside = true};
    snprintf(up, sizeof up, "%s/out", dir);
    const char *const names[] = {"../out", up, "/etc/passwd", "link", "./../out", "deep/../../out"};
    assert_int_equal(symlink("../out", at("link")), 0);
    mkdir(at("deep"), 0700);
    for (unsigned i = 0; i < 6; i++) {
        make("top", "qcow2", names[i], "raw");
        refused("top", &any, ERR_FORMAT, "is not in the image's folder");
        assert_non_null(strstr(e.msg, "backing: anywhere"));
        node_close(opened("top", &anywhere));
    }
    unlink(at("link"));
    make("top", "qcow2", at("in"), "raw"); /* absolute, but inside */
    node_close(opened("top", &any));
    make("deep/base", "raw", NULL, NULL);
    make("top", "qcow2", "deep/base", "raw");
    node_close(opened("top", &any));
    make("deep/mid", "qcow2", "../in", "raw"); /* inside the folder of the first */
    make("top", "qcow2", "deep/mid", "qcow2");
    node_close(opened("top", &any));
    refused("deep/mid", &any, ERR_FORMAT, "is not in the image's folder");
    unlink(at("deep/base"));
    unlink(at("deep/mid"));
    rmdir(at("deep"));
    /* A folder whose name only begins alike is another one. */
    snprintf(up, sizeof up, "%s-x", sub);
    mkdir(up, 0700);
    make("../sub-x/base", "raw", NULL, NULL);
    make("top", "qcow2", "../sub-x/base", "raw");
    refused("top", &any, ERR_FORMAT, "is not in the image's folder");
    unlink(at("../sub-x/base"));
    rmdir(up);
}

static void strange_names(void **state)
{
    static const char *const names[] = {"json:{\"file\": {}}", "nbd://host/x", "https://h/x",
                                        "a\nb", "\x1b[2Jx"};
    for (unsigned i = 0; i < 5; i++) {
        make("top", "qcow2", names[i], "raw");
        refused("top", &any, ERR_FORMAT, i < 3 ? "which is no file" : "control characters");
    }
    make("top", "qcow2", "nothing", "raw");
    refused("top", &any, ERR_IO, "cannot be found");
    make("top", "qcow2", ".", "raw");
    refused("top", &any, ERR_FORMAT, "");
    make("base", "raw", NULL, NULL);
    make("top", "qcow2", "base", "qcow3");
    refused("top", &any, ERR_FORMAT, "unknown format");
}

/* Of a backing file whose format nobody states, what it says cannot be trusted: it may be a raw
 * disk with a header that a guest wrote. */
static void a_guessed_backing_file_names_none(void **state)
{
    make("base", "raw", NULL, NULL);
    make("mid", "qcow2", "base", "raw");
    make("top", "qcow2", "base", NULL);
    node_close(opened("top", &any));
    make("alone", "qcow2", NULL, NULL);
    make("top", "qcow2", "alone", NULL);
    node_close(opened("top", &any));
    make("top", "qcow2", "mid", NULL);
    refused("top", &any, ERR_FORMAT, "nobody says what format it has");
    node_close(opened("top", &(struct image_options){.allow_outside = true}));
    make("top", "qcow2", "mid", "qcow2");
    node_close(opened("top", &any));
    make("top", "qcow2", "mid", "raw");
    struct node *n = opened("top", &any);
    assert_null(n->backing->backing);
    node_close(n);
}

static void loops_and_depth(void **state)
{
    char name[16], below[16];
    make("a", "qcow2", "a", "qcow2");
    refused("a", &ro, ERR_FORMAT, "its own backing file");
    refused("a", &any, ERR_FORMAT, "its own backing file");
    make("a", "qcow2", "b", "qcow2");
    make("b", "qcow2", "./c", "qcow2");
    make("c", "qcow2", "a", "qcow2");
    refused("a", &any, ERR_FORMAT, "its own backing file");
    refused("c", &ro, ERR_FORMAT, "its own backing file");
    make("d0", "raw", NULL, NULL);
    for (unsigned i = 1; i <= FORMAT_MAX_DEPTH; i++) {
        snprintf(name, sizeof name, "d%u", i);
        snprintf(below, sizeof below, "d%u", i - 1);
        make(name, "qcow2", below, i == 1 ? "raw" : "qcow2");
    }
    snprintf(name, sizeof name, "d%u", FORMAT_MAX_DEPTH - 1); /* with d0 that many members */
    node_close(opened(name, &ro));
    snprintf(name, sizeof name, "d%u", FORMAT_MAX_DEPTH);
    refused(name, &ro, ERR_LIMIT, "64 members");
}

/* The image of a VM that runs can be looked at. */
static void unlocked(void **state)
{
    make("base", "raw", NULL, NULL);
    make("top", "qcow2", "base", "raw");
    struct node *n = opened("top", &any);
    refused("top", &ro, ERR_BUSY, "uses it");
    struct node *look = opened("top", &(struct image_options){.unlocked = true});
    assert_true(look->readonly);
    node_close(look);
    node_close(n);
}

static int setup(void **state)
{
    strcpy(dir, "/tmp/sosia-image-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(sub, sizeof sub, "%s/sub", dir);
    return mkdir(sub, 0700);
}

static int teardown(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

int main(void)
{
    log_set_level(LOG_ERROR);
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(formats_are_found),
        T(a_guessed_raw_disk_stays_one),
        T(chains),
        T(only_files_inside),
        T(strange_names),
        T(a_guessed_backing_file_names_none),
        T(loops_and_depth),
        T(unlocked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
