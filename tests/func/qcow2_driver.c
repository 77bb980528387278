/*
 * qcow2_driver.c - operations on a qcow2 image for the test qcow2.py, which lets this program and
 * QEMU's tools work on the same images.
 *
 *   create FILE SIZE [OPTION=VALUE ...] [backing=NAME] [backing_format=NAME]
 *   run FILE MODEL        commands from standard input, each on the image and on MODEL, a raw file
 *                         that says what the guest sees; see command()
 *   compare FILE MODEL [SNAPSHOT]
 *   check FILE [leaks|all]
 *   info FILE | map FILE | rebase FILE [NAME FORMAT]
 * Errors end it with exit code 1 and a line on standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/format/qcow2.h"
#include "block/image.h"
#include "block/io/file.h"

#define CHUNK (1 * MIB)

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static void require(int rc, const struct error *e)
{
    if (rc)
        fail("error %d: %s", rc, e->msg);
}

static void *get(size_t n)
{
    void *p = calloc(1, n + 1);
    if (!p)
        fail("out of memory");
    return p;
}

static struct node *open_image(const char *path, bool readonly, bool check)
{
    struct error e = {0};
    struct node *n = NULL;
    struct image_options o = {.format = "qcow2", .readonly = readonly, .check = check};
    require(image_open(path, &o, &n, &e), &e);
    return n;
}

static const struct format *qcow2(void)
{
    const struct format *f = format_find("qcow2");
    if (!f)
        fail("there is no format qcow2");
    return f;
}

static int do_create(int argc, char **argv)
{
    const struct format *f = qcow2();
    const char *value[QCOW2_OPTIONS] = {NULL};
    struct format_create c = {.size = strtoull(argv[1], NULL, 0), .value = value};
    for (int i = 2; i < argc; i++) {
        char *eq = strchr(argv[i], '=');
        if (!eq)
            fail("%s: no value", argv[i]);
        *eq = 0;
        if (!strcmp(argv[i], "backing"))
            c.backing = eq + 1;
        if (!strcmp(argv[i], "backing_format"))
            c.backing_format = eq + 1;
        for (int k = 0; k < QCOW2_OPTIONS; k++)
            if (!strcmp(argv[i], f->options[k].name))
                value[k] = eq + 1;
    }
    struct error e = {0};
    struct node *file = NULL;
    struct file_options o = {.create = true};
    require(file_open(argv[0], &o, &file, &e), &e);
    require(f->create(file, &c, &e), &e);
    node_close(file);
    return 0;
}

/* ---- run ---- */

struct run {
    struct node *n;
    int model;
};

static void model_write(struct run *r, const uint8_t *buf, size_t len, uint64_t at)
{
    if (pwrite(r->model, buf, len, (off_t)at) != (ssize_t)len)
        fail("cannot write the model");
}

/* Discarded bytes are what they were, or zeroes; the model learns which. */
static void learn(struct run *r, uint64_t at, uint64_t len)
{
    uint8_t *was = get(len), *is = get(len);
    if (pread(r->model, was, len, (off_t)at) != (ssize_t)len || node_read(r->n, is, len, at))
        fail("cannot read back what was discarded");
    for (uint64_t i = 0; i < len; i++)
        if (is[i] && is[i] != was[i])
            fail("discarded byte %llu is neither zero nor as it was", (unsigned long long)(at + i));
    model_write(r, is, len, at);
    free(was);
    free(is);
}

static void check_read(struct run *r, uint64_t at, uint64_t len)
{
    uint8_t *was = get(len), *is = get(len);
    int rc = node_read(r->n, is, len, at);
    if (rc || pread(r->model, was, len, (off_t)at) != (ssize_t)len)
        fail("cannot read at %llu: %d", (unsigned long long)at, rc);
    for (uint64_t i = 0; i < len; i++)
        if (is[i] != was[i])
            fail("byte %llu is %#x, not %#x", (unsigned long long)(at + i), is[i], was[i]);
    free(was);
    free(is);
}

/* write|packed AT LEN BYTE; zero|unmap|discard|read AT LEN; resize SIZE 0; flush 0 0 */
static void command(struct run *r, const char *what, uint64_t at, uint64_t len, int byte)
{
    struct error e = {0};
    int rc = 0;
    if (!strcmp(what, "read")) {
        check_read(r, at, len);
    } else if (!strcmp(what, "flush")) {
        rc = node_flush(r->n);
    } else if (!strcmp(what, "resize")) {
        require(node_resize(r->n, at, &e), &e);
        if (ftruncate(r->model, (off_t)at))
            fail("cannot resize the model");
    } else if (!strcmp(what, "discard")) {
        rc = node_discard(r->n, at, len);
        learn(r, at, len);
    } else {
        uint8_t *buf = get(len);
        if (*what == 'w' || *what == 'p')
            memset(buf, byte, len);
        if (!strcmp(what, "write"))
            rc = node_write(r->n, buf, len, at, 0);
        else if (!strcmp(what, "packed"))
            rc = qcow2()->write_compressed(r->n, buf, len, at);
        else if (!strcmp(what, "zero"))
            rc = node_zero(r->n, at, len, 0);
        else if (!strcmp(what, "unmap"))
            rc = node_zero(r->n, at, len, NODE_MAY_UNMAP);
        else
            fail("%s: no such command", what);
        model_write(r, buf, len, at);
        free(buf);
    }
    if (rc)
        fail("%s %llu %llu: %s", what, (unsigned long long)at, (unsigned long long)len,
             strerror(-rc));
}

static int do_run(const char *path, const char *model)
{
    struct run r = {open_image(path, false, false), open(model, O_RDWR | O_CLOEXEC)};
    char line[128], what[16];
    unsigned long long at, len;
    if (r.model < 0)
        fail("%s: %s", model, strerror(errno));
    while (fgets(line, sizeof line, stdin)) {
        int byte = 0;
        if (sscanf(line, "%15s %llu %llu %d", what, &at, &len, &byte) < 3)
            fail("bad command: %s", line);
        command(&r, what, at, len, byte);
    }
    node_close(r.n);
    return close(r.model);
}

static int do_compare(const char *path, const char *model, const char *snapshot)
{
    struct run r = {NULL, open(model, O_RDONLY | O_CLOEXEC)};
    struct error e = {0};
    if (snapshot) {
        struct node *file = NULL;
        struct file_options o = {.readonly = true};
        struct format_open fo = {.path = path, .readonly = true, .snapshot = snapshot};
        require(file_open(path, &o, &file, &e), &e);
        require(format_find("qcow2")->open(file, &fo, &r.n, &e), &e);
    } else {
        r.n = open_image(path, true, false);
    }
    off_t size = lseek(r.model, 0, SEEK_END);
    if (size < 0 || node_size(r.n) != (uint64_t)size)
        fail("%llu bytes, not %lld", (unsigned long long)node_size(r.n), (long long)size);
    for (uint64_t at = 0; at < (uint64_t)size; at += CHUNK)
        check_read(&r, at, min_u64(CHUNK, (uint64_t)size - at));
    node_close(r.n);
    return close(r.model);
}

static void say(void *ctx, const char *line)
{
    printf("%s\n", line);
}

static int do_check(const char *path, const char *what)
{
    unsigned fix = !what                    ? 0
                   : !strcmp(what, "leaks") ? FORMAT_FIX_LEAKS
                                            : FORMAT_FIX_LEAKS | FORMAT_FIX_ERRORS;
    struct node *n = open_image(path, !fix, true);
    struct format_check c = {.say = say};
    struct error e = {0};
    require(qcow2()->check(n, fix, &c, &e), &e);
    printf("errors %llu leaks %llu fixed %llu %llu allocated %llu compressed %llu\n",
           (unsigned long long)c.errors, (unsigned long long)c.leaks,
           (unsigned long long)c.errors_fixed, (unsigned long long)c.leaks_fixed,
           (unsigned long long)c.allocated, (unsigned long long)c.compressed);
    node_close(n);
    return 0;
}

static int do_info(const char *path)
{
    struct node *n = open_image(path, true, false);
    json_t *o = qcow2()->info(n);
    json_dumpf(o, stdout, JSON_SORT_KEYS);
    json_decref(o);
    node_close(n);
    return 0;
}

static int do_map(const char *path)
{
    static const char *const kind[] = {"hole", "zero", "data"};
    struct node *n = open_image(path, true, false);
    for (uint64_t at = 0; at < node_size(n);) {
        struct node_extent x;
        int rc = node_map(n, at, node_size(n) - at, &x);
        if (rc)
            fail("map: %s", strerror(-rc));
        printf("%llu %llu %s%s depth %u\n", (unsigned long long)at, (unsigned long long)x.len,
               kind[x.kind], x.compressed ? " compressed" : "", x.depth);
        at += x.len;
    }
    node_close(n);
    return 0;
}

static int do_rebase(const char *path, const char *name, const char *format)
{
    struct error e = {0};
    struct node *n = open_image(path, false, false);
    require(qcow2()->rebase(n, name, format, &e), &e);
    node_close(n);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    if (!strcmp(what, "create") && argc > 3)
        return do_create(argc - 2, argv + 2);
    if (!strcmp(what, "run") && argc == 4)
        return do_run(argv[2], argv[3]);
    if (!strcmp(what, "compare") && argc >= 4)
        return do_compare(argv[2], argv[3], argv[4]);
    if (!strcmp(what, "check"))
        return do_check(argv[2], argv[3]);
    if (!strcmp(what, "info"))
        return do_info(argv[2]);
    if (!strcmp(what, "map"))
        return do_map(argv[2]);
    if (!strcmp(what, "rebase"))
        return do_rebase(argv[2], argc > 3 ? argv[3] : NULL, argc > 4 ? argv[4] : NULL);
    fail("usage: see the file's beginning");
}
