/*
 * test_output.c - files that appear when they are complete, with and without a name until then.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/output.h"

typedef int begin_fn(struct output *o, const char *path, bool replace, struct node **file,
                     struct error *e);
static begin_fn *const ways[] = {output_begin, output_begin_named};

static char folder[] = "/tmp/sosia-output-XXXXXX", path[64];

static int set_up(void **state)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int tear_down(void **state)
{
    unlink(path);
    return rmdir(folder); /* fails if anything was left */
}

static unsigned files(void)
{
    unsigned n = 0;
    DIR *d = opendir(folder);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void expect_text(const char *want)
{
    char got[64] = "";
    CLEANUP_FCLOSE FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(got, sizeof got, f));
    assert_string_equal(got, want);
}

static void make(begin_fn *begin, struct output *o, bool replace, const char *text)
{
    struct error e = {0};
    struct node *n = NULL;
    if (begin(o, path, replace, &n, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(node_write(n, text, strlen(text), 0, 0), 0);
    node_close(n);
}

static void appears_when_complete(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        struct output o;
        struct error e = {0};
        unlink(path);
        make(ways[i], &o, false, "one");
        assert_int_not_equal(access(path, F_OK), 0);
        assert_int_equal(access(o.temp, R_OK | W_OK), 0);
        assert_int_equal(output_commit(&o, &e), 0);
        output_abort(&o); /* too late */
        expect_text("one");
        assert_int_equal(files(), 1);
    }
}

static void replaces(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        struct output o;
        struct error e = {0};
        struct node *n = NULL;
        struct stat st;
        assert_int_equal(ways[i](&o, path, false, &n, &e), ERR_BUSY);
        assert_int_equal(chmod(path, 0640), 0);
        make(ways[i], &o, true, i ? "three" : "two");
        assert_int_equal(output_commit(&o, &e), 0);
        expect_text(i ? "three" : "two");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0640);
        assert_int_equal(files(), 1);
    }
}

static void leaves_nothing(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        struct output o;
        struct error e = {0};
        make(ways[i], &o, true, "never");
        output_abort(&o);
        assert_int_equal(files(), 1);
        assert_int_equal(unlink(path), 0);
        make(ways[i], &o, false, "never"); /* somebody else is faster */
        FILE *f = fopen(path, "w");
        fputs("theirs", f);
        fclose(f);
        assert_int_equal(output_commit(&o, &e), ERR_BUSY);
        expect_text("theirs");
        assert_int_equal(files(), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appears_when_complete),
        cmocka_unit_test(replaces),
        cmocka_unit_test(leaves_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
