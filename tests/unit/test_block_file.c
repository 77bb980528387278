/*
 * test_block_file.c - a file as a node, and the checks of the public node functions.
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
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/io/file.h"

static char image[64];

static int make_image(void **state)
{
    snprintf(image, sizeof image, "/tmp/sosia-node-XXXXXX");
    int fd = mkstemp(image);
    assert_true(fd >= 0);
    close(fd);
    return 0;
}

static int remove_image(void **state)
{
    unlink(image);
    return 0;
}

static struct node *open_image(bool readonly)
{
    struct node *n = NULL;
    struct error e = {0};
    if (file_open(image, &(struct file_options){.readonly = readonly}, &n, &e))
        fail_msg("%s", e.msg);
    return n;
}

static uint64_t file_size(void)
{
    struct stat st;
    assert_int_equal(stat(image, &st), 0);
    return (uint64_t)st.st_size;
}

static bool all(const uint8_t *p, size_t len, uint8_t want)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != want)
            return false;
    return true;
}

static void a_write_extends(void **state)
{
    struct node *n = open_image(false);
    uint8_t buf[8192];
    assert_int_equal(n->size, 0);
    memset(buf, 1, sizeof buf);
    assert_int_equal(node_read(n, buf, sizeof buf, 12345), 0);
    assert_true(all(buf, sizeof buf, 0));
    memset(buf, 7, sizeof buf);
    assert_int_equal(node_write(n, buf, 100, 5000, 0), 0);
    assert_int_equal(n->size, 5100);
    assert_int_equal(node_write(n, buf, 100, 1000, NODE_FUA), 0);
    assert_int_equal(n->size, 5100);
    assert_int_equal(node_read(n, buf, 8192, 0), 0);
    assert_true(all(buf, 1000, 0) && all(buf + 1000, 100, 7) && all(buf + 1100, 3900, 0) &&
                all(buf + 5000, 100, 7) && all(buf + 5100, 3092, 0));
    node_close(n);
    assert_int_equal(file_size(), 5100);
}

/* Many small segments, empty ones among them, and an end in the middle of one. */
static void segments(void **state)
{
    static uint8_t data[300 * 3], back[300 * 3 + 50];
    struct iovec iov[601];
    struct node *n = open_image(false);
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + 1);
    for (unsigned i = 0; i < 300; i++) {
        iov[2 * i] = (struct iovec){NULL, 0};
        iov[2 * i + 1] = (struct iovec){data + 3 * i, 3};
    }
    assert_int_equal(node_writev(n, iov, 600, 11, 0), 0);
    for (unsigned i = 0; i < 300; i++)
        iov[2 * i + 1].iov_base = back + 3 * i;
    memset(back, 9, sizeof back);
    iov[600] = (struct iovec){back + 900, 50};
    assert_int_equal(node_readv(n, iov, 601, 11), 0);
    assert_memory_equal(back, data, sizeof data);
    assert_true(all(back + 900, 50, 0));
    node_close(n);
}

static void zero_and_discard(void **state)
{
    static uint8_t buf[256 * 1024];
    struct node *n = open_image(false);
    for (unsigned flags = 0; flags < 4; flags++) {
        memset(buf, 5, sizeof buf);
        assert_int_equal(node_write(n, buf, sizeof buf, 0, 0), 0);
        assert_int_equal(node_zero(n, 4000, 100000, flags), 0);
        assert_int_equal(node_read(n, buf, sizeof buf, 0), 0);
        assert_true(all(buf, 4000, 5) && all(buf + 4000, 100000, 0) &&
                    all(buf + 104000, sizeof buf - 104000, 5));
    }
    assert_int_equal(node_discard(n, 65536, 400000), 0);
    assert_int_equal(n->size, sizeof buf);
    assert_int_equal(file_size(), sizeof buf);
    assert_int_equal(node_zero(n, 250000, 50000, 0), 0); /* over the end: extends */
    assert_int_equal(n->size, 300000);
    assert_int_equal(file_size(), 300000);
    assert_int_equal(node_zero(n, 400000, 10, 0), 0);
    assert_int_equal(file_size(), 400010);
    node_close(n);
}

static void map_and_resize(void **state)
{
    static uint8_t buf[65536];
    struct node_extent x;
    struct node *n = open_image(false);
    memset(buf, 5, sizeof buf);
    assert_int_equal(node_resize(n, 1 << 20, NULL), 0);
    assert_int_equal(n->size, 1 << 20);
    assert_int_equal(node_write(n, buf, sizeof buf, 131072, 0), 0);
    assert_int_equal(node_map(n, 0, 1 << 20, &x), 0);
    assert_int_equal(x.kind, NODE_HOLE);
    assert_int_equal(x.len, 131072);
    assert_int_equal(node_map(n, 131072 + 100, 1 << 19, &x), 0);
    assert_int_equal(x.kind, NODE_DATA);
    assert_int_equal(x.len, 65436);
    assert_true(x.placed && x.below == n && x.where == 131172);
    assert_int_equal(node_map(n, 1 << 19, 100, &x), 0);
    assert_int_equal(x.kind, NODE_HOLE);
    assert_int_equal(x.len, 100);
    assert_int_equal(node_map(n, 0, 0, &x), -EINVAL);
    assert_int_equal(node_resize(n, 1000, NULL), 0);
    assert_int_equal(file_size(), 1000);
    assert_int_equal(node_resize(n, UINT64_MAX, NULL), ERR_LIMIT);
    node_close(n);
}

static void rights_and_ranges(void **state)
{
    uint8_t b[16] = {0};
    struct node_place p;
    struct node *n = open_image(false);
    assert_int_equal(node_write(n, b, 16, INT64_MAX - 15, 0), -EINVAL);
    assert_int_equal(node_write(n, b, 16, UINT64_MAX - 3, 0), -EINVAL);
    assert_int_equal(node_read(n, b, 16, UINT64_MAX - 3), -EINVAL);
    assert_int_equal(node_zero(n, 1, INT64_MAX, 0), -EINVAL);
    assert_int_equal(node_write(n, b, 0, 0, 0), 0);
    assert_false(node_resolve(n, 0, 16, true, &p)); /* would extend */
    assert_int_equal(node_write(n, b, 16, 0, 0), 0);
    assert_true(node_resolve(n, 3, 5, true, &p));
    assert_true(p.node == n && p.offset == 3 && p.len == 5);
    assert_int_equal(node_flush(n), 0);
    node_close(n);

    n = open_image(true);
    assert_int_equal(node_write(n, b, 1, 0, 0), -EROFS);
    assert_int_equal(node_zero(n, 0, 1, 0), -EROFS);
    assert_int_equal(node_discard(n, 0, 1), -EROFS);
    assert_int_equal(node_flush(n), 0);
    assert_int_equal(node_resize(n, 5, NULL), ERR_STATE);
    assert_false(node_resolve(n, 0, 16, true, &p));
    assert_true(node_resolve(n, 0, 16, false, &p));
    node_close(n);
}

static int try_open(bool readonly, struct error *e)
{
    struct node *n = NULL;
    int rc = file_open(image, &(struct file_options){.readonly = readonly}, &n, e);
    node_close(n);
    return rc;
}

static void locks(void **state)
{
    struct error e = {0};
    struct node *a = open_image(true), *b = open_image(true);
    assert_int_equal(try_open(false, &e), ERR_BUSY);
    assert_non_null(strstr(e.msg, "another disk of this VM"));
    node_close(b);
    node_close(a);
    a = open_image(false);
    assert_int_equal(try_open(false, &e), ERR_BUSY);
    assert_int_equal(try_open(true, &e), ERR_BUSY);
    assert_int_equal(
        file_open(image, &(struct file_options){.readonly = true, .unlocked = true}, &b, &e), 0);
    node_close(b);
    node_close(a);
    assert_int_equal(try_open(false, &e), 0);
}

/* The refusal tells which process has the image, and what it calls itself. */
static void the_holder_is_named(void **state)
{
    int ready[2], quit[2];
    char c = 0, want[64];
    struct error e = {0};
    assert_int_equal(pipe(ready) | pipe(quit), 0);
    pid_t child = fork();
    if (child == 0) {
        struct node *n = open_image(false);
        prctl(PR_SET_NAME, "hol\x1b"
                           "der");
        close(quit[1]);
        if (n && write(ready[1], &c, 1) == 1)
            _exit(read(quit[0], &c, 1) == 0 ? 0 : 1);
        _exit(1);
    }
    close(quit[0]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(try_open(true, &e), ERR_BUSY);
    snprintf(want, sizeof want, "process %d (hol?der)", (int)child);
    assert_non_null(strstr(e.msg, want));
    int status = 1;
    close(quit[1]);
    close(ready[0]);
    close(ready[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(try_open(false, &e), 0);
}

static void what_cannot_be_opened(void **state)
{
    struct error e = {0};
    struct node *n = NULL;
    struct file_options w = {0}, create = {.create = true};
    assert_int_equal(file_open("/nonexistent/x", &w, &n, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "truncate"));
    assert_int_equal(file_open("/nonexistent/x", &create, &n, &e), ERR_IO);
    assert_int_equal(file_open("/tmp", &w, &n, &e), ERR_FORMAT);
    assert_int_equal(file_open("/tmp", &(struct file_options){.readonly = true}, &n, &e),
                     ERR_FORMAT);
    assert_int_equal(file_open("/dev/null", &w, &n, &e), ERR_FORMAT);
    assert_int_equal(file_open(image, &create, &n, &e), ERR_BUSY);
    assert_null(n);
    unlink(image);
    assert_int_equal(file_open(image, &create, &n, &e), 0);
    node_close(n);
}

/* A node of nothing but writes: zeroes are written, discards do nothing. */
static uint64_t written;
static int count_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                       unsigned flags)
{
    for (int i = 0; i < niov; i++) {
        assert_true(all(iov[i].iov_base, iov[i].iov_len, 0));
        written += iov[i].iov_len;
    }
    return written > (3 << 20) ? -EIO : 0;
}

static void missing_operations(void **state)
{
    const struct node_ops ops = {.name = "dull", .write = count_write};
    struct node n = {.ops = &ops, .size = 1 << 30};
    struct node_place p;
    struct node_extent x;
    struct error e = {0};
    assert_int_equal(node_zero(&n, 5, 2500000, 0), 0);
    assert_int_equal(written, 2500000);
    assert_int_equal(node_zero(&n, 5, 1 << 29, 0), -EIO);
    assert_int_equal(node_discard(&n, 0, 1 << 30), 0);
    assert_int_equal(node_discard(&n, 1, 1 << 30), -EINVAL);
    assert_int_equal(node_flush(&n), 0);
    assert_false(node_resolve(&n, 0, 1, false, &p));
    assert_int_equal(node_map(&n, 7, 1 << 20, &x), 0);
    assert_true(x.kind == NODE_DATA && x.len == 1 << 20 && !x.placed);
    assert_int_equal(node_resize(&n, 1, &e), ERR_STATE);
    node_close(NULL);
}

static int shows_nothing(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    *out = (struct node_extent){.kind = NODE_HOLE, .len = len};
    return 0;
}

static int maps_too_much(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    *out = (struct node_extent){.kind = NODE_HOLE, .len = len + 1};
    return 0;
}

static void map_of_a_chain(void **state)
{
    const struct node_ops thin = {.name = "thin", .map = shows_nothing}, full = {.name = "full"},
                          bad = {.name = "bad", .map = maps_too_much};
    struct node base = {.ops = &full, .size = 1000};
    struct node mid = {.ops = &thin, .size = 5000, .backing = &base};
    struct node top = {.ops = &thin, .size = 9000, .backing = &mid};
    struct node_extent x;
    assert_int_equal(node_map(&top, 100, 8000, &x), 0);
    assert_true(x.kind == NODE_DATA && x.len == 900 && x.depth == 2);
    assert_int_equal(node_map(&top, 1000, 8000, &x), 0); /* beyond the backing node's end */
    assert_true(x.kind == NODE_HOLE && x.len == 4000);
    assert_int_equal(node_map(&top, 5000, 4000, &x), 0);
    assert_true(x.kind == NODE_HOLE && x.len == 4000);
    base.ops = &bad;
    assert_int_equal(node_map(&top, 100, 8000, &x), -EIO);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_image, remove_image)
    const struct CMUnitTest tests[] = {
        TEST(a_write_extends),     TEST(segments),
        TEST(zero_and_discard),    TEST(map_and_resize),
        TEST(rights_and_ranges),   TEST(locks),
        TEST(the_holder_is_named), TEST(what_cannot_be_opened),
        TEST(missing_operations),  TEST(map_of_a_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
