/* test_copy.c - copies of disks: what is written, what is left out, failures, an early end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/copy.h"
#include "block/format/formats.h"
#include "block/format/qcow2.h"
#include "block/io/file.h"
#include "block/layer/fault.h"

#define SIZE (9 * MIB) /* five units of a copy */

static char dir[] = "/tmp/sosia-copy-XXXXXX";
static struct error e;
static uint8_t pattern[SIZE], got[SIZE];

/* A file of this size, behind a layer that can fail. */
static struct node *make(const char *name, uint64_t size)
{
    char path[64];
    struct node *n = NULL, *f = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
    if (file_open(path, &(struct file_options){.create = true}, &n, &e) ||
        node_resize(n, size, &e) || fault_open(n, &f, &e))
        fail_msg("%s", e.msg);
    unlink(path);
    return f;
}

static struct node *source(void)
{
    struct node *n = make("from", SIZE);
    memset(pattern, 0, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        if (i / (300 * KIB) % 3 == 1)
            pattern[i] = (uint8_t)(i * 2654435761u >> 7 | 1);
    assert_int_equal(node_write(n, pattern, SIZE, 0, 0), 0);
    return n;
}

static void copies(void **state)
{
    struct node *from = source(), *to = make("to", SIZE);
    struct copy c = {.from = from, .to = to};
    struct node_extent x;
    if (copy_run(&c, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(node_read(to, got, SIZE, 0), 0);
    assert_memory_equal(got, pattern, SIZE);
    assert_int_equal(node_map(to, 0, SIZE, &x), 0);
    assert_int_equal(x.kind, NODE_HOLE); /* zeroes were not written */
    node_close(from);
    node_close(to);
}

/* Over something else, zeroes count. */
static void overlays(void **state)
{
    struct node *from = source(), *to = make("to", SIZE);
    struct copy c = {.from = from, .to = to, .overlay = true};
    memset(got, 0xee, SIZE);
    assert_int_equal(node_write(to, got, SIZE, 0, 0), 0);
    if (copy_run(&c, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(node_read(to, got, SIZE, 0), 0);
    assert_memory_equal(got, pattern, SIZE);
    node_close(from);
    node_close(to);
}

static void failures(void **state)
{
    static const struct {
        bool source;
        unsigned op;
        const char *says;
    } cases[] = {{true, FAULT_READ, "reading the image failed"},
                 {false, FAULT_WRITE, "writing to the new image failed"},
                 {false, FAULT_ZERO, "writing to the new image failed"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct node *from = source(), *to = make("to", SIZE);
        struct copy c = {.from = from, .to = to, .overlay = true};
        struct fault_rule rule = {.ops = cases[i].op, .skip = 3, .err = ENOSPC};
        assert_int_equal(fault_add(cases[i].source ? from : to, &rule), 0);
        assert_int_equal(copy_run(&c, &e), ERR_IO);
        if (!strstr(e.msg, cases[i].says) || !strstr(e.msg, "No space"))
            fail_msg("%s", e.msg);
        node_close(from);
        node_close(to);
    }
}

static bool refuse(void *ctx, uint64_t done, uint64_t of)
{
    assert_true(done == 0 && of == SIZE);
    ++*(unsigned *)ctx;
    return false;
}

static void ends_early(void **state)
{
    struct node *from = source(), *to = make("to", SIZE), *small = make("small", SIZE - 512);
    unsigned calls = 0;
    struct copy c = {.from = from, .to = to, .progress = refuse, .ctx = &calls};
    assert_int_equal(copy_run(&c, &e), ERR_STATE);
    assert_int_equal(calls, 1);
    assert_int_equal(node_read(to, got, SIZE, 0), 0);
    assert_true(got[0] == 0 && memcmp(got, got + 1, SIZE - 1) == 0);
    c = (struct copy){.from = from, .to = small};
    assert_int_equal(copy_run(&c, &e), ERR_LIMIT);
    c = (struct copy){.from = from, .to = to, .compress = true};
    assert_int_equal(copy_run(&c, &e), ERR_STATE);
    node_close(from);
    node_close(to);
    node_close(small);
}

/* A qcow2 image in clusters of 4 KiB. */
static struct node *make_qcow2(const char *name, uint64_t size)
{
    const char *value[QCOW2_OPTIONS] = {[QCOW2_OPT_CLUSTER_SIZE] = "4096"};
    struct node *n = NULL, *file = make(name, 0);
    if (format_qcow2.create(file, &(struct format_create){.size = size, .value = value}, &e) ||
        format_qcow2.open(file, &(struct format_open){.path = name}, &n, &e))
        fail_msg("%s", e.msg);
    return n;
}

/* The last cluster, compressed, is a part of one; in a larger image it would be a whole one. */
static void packed_end(void **state)
{
    const uint64_t size = 3 * 4096 - 1024;
    struct node *from = make_qcow2("from", size), *to = make_qcow2("to", 5 * 4096);
    struct copy c = {.from = from, .to = to, .overlay = true, .format = &format_qcow2};
    memset(pattern, 0xaa, size);
    for (uint64_t at = 0; at < size; at += 4096)
        assert_int_equal(format_qcow2.write_compressed(from, pattern, min_u64(4096, size - at), at),
                         0);
    memset(got, 0xee, 5 * 4096);
    assert_int_equal(node_write(to, got, 5 * 4096, 0, 0), 0);
    if (copy_run(&c, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(node_read(to, got, 5 * 4096, 0), 0);
    assert_memory_equal(got, pattern, size);
    assert_int_equal(got[size], 0xee);
    node_close(from);
    node_close(to);
}

static int set_up(void **state)
{
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(copies), cmocka_unit_test(overlays),
                                       cmocka_unit_test(failures), cmocka_unit_test(ends_early),
                                       cmocka_unit_test(packed_end)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
