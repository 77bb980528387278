/*
 * test_spec_edit.c - changes to the text of a spec: what was asked for changes, and nothing else.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "spec/edit.h"

static const struct {
    const char *before, *set, *after;
} sets[] = {
    /* Another value: comments, order and quotes around it stay. */
    {"# mine\nmemory: 1G  # enough\ncpus: 2\n", "memory=2G",
     "# mine\nmemory: 2G  # enough\ncpus: 2\n"},
    {"memory: '1G' # x\n", "memory=2G", "memory: 2G # x\n"},
    {"cpus: 2", "cpus=4", "cpus: 4"},
    {"cpus:\n  2\n", "cpus=4", "cpus:\n  4\n"},
    {"name: caf\n# \xc3\xa9t\xc3\xa9 \xe2\x82\xac\ncpus: 2 # \xc3\xa9\n", "cpus=4",
     "name: caf\n# \xc3\xa9t\xc3\xa9 \xe2\x82\xac\ncpus: 4 # \xc3\xa9\n"},
    {"cpus: 2\r\nmemory: 1G\r\n", "memory=2G", "cpus: 2\r\nmemory: 2G\r\n"},
    /* What would not be the same text there is quoted. */
    {"cmdline: a # b\n", "cmdline=  quiet # c ", "cmdline: quiet # b\n"},
    {"{cmdline: a, cpus: 1}\n", "cmdline=a,b", "{cmdline: \"a,b\", cpus: 1}\n"},
    {"{cmdline: a, cpus: 1}\n", "cmdline=x] y}", "{cmdline: \"x] y}\", cpus: 1}\n"},
    {"cmdline: a\n", "cmdline='a: b'", "cmdline: 'a: b'\n"},
    {"cmdline: a\n", "cmdline=\"a\\tb\"", "cmdline: \"a\\tb\"\n"},
    /* Blocks. */
    {"disks:  # two\n  # the first\n  - a.img\n  - b.img # last\ncpus: 1\n", "disks=[c.img]",
     "disks: [c.img]  # two\n  # the first\ncpus: 1\n"},
    {"disks:\n- a.img\n- {file: b.img}\n# end\n", "disks=[c.img]", "disks: [c.img]\n# end\n"},
    {"disks: [a.img,\n  b.img]  # here\n", "disks=[]", "disks: []  # here\n"},
    {"cmdline: >\n  one\n  two\n\n# c\ncpus: 1\n", "cmdline=x", "cmdline: x\n\n# c\ncpus: 1\n"},
    {"serial:\n  file: x\n", "serial=none", "serial: none\n"},
    /* New keys. */
    {"cpus: 2 # two\n# end\n", "memory=1G", "cpus: 2 # two\nmemory: 1G\n# end\n"},
    {"cpus: 2", "memory=1G", "cpus: 2\nmemory: 1G\n"},
    {"# nothing yet\n", "memory=1G", "# nothing yet\nmemory: 1G\n"},
    {"", "memory=1G", "memory: 1G\n"},
    {"  cpus: 2\n", "memory=1G", "  cpus: 2\n  memory: 1G\n"},
    {"{\"cpus\": 2}\n", "memory=1G", "{\"cpus\": 2, memory: 1G}\n"},
    {"{}\n", "memory=1G", "{memory: 1G}\n"},
    {"disks:\n  - a.img\n", "cpus=2", "disks:\n  - a.img\ncpus: 2\n"},
    /* Keys that go. */
    {"# a\ncpus: 2 # two\nmemory: 1G\n", "cpus=", "# a\nmemory: 1G\n"},
    {"cpus: 2\ndisks:\n  - a.img\n  - b.img\nmemory: 1G\n", "disks=", "cpus: 2\nmemory: 1G\n"},
    {"{cpus: 2, memory: 1G}\n", "cpus=", "{memory: 1G}\n"},
    {"{cpus: 2, memory: 1G}\n", "memory=", "{cpus: 2}\n"},
    {"cpus: 2\n", "memory=", "cpus: 2\n"},
    {"cpus:\nmemory: 1G\n", "cpus=", "memory: 1G\n"},
    {"cpus:\nmemory: 1G\n", "cpus=3", "cpus: 3\nmemory: 1G\n"},
};

static void sets_values(void **state)
{
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        struct error e = {0};
        char *out = NULL;
        if (spec_edit_set("vm.yaml", sets[i].before, sets[i].set, &out, &e) < 0)
            fail_msg("%s to %s: %s", sets[i].set, sets[i].before, e.msg);
        assert_string_equal(out, sets[i].after);
        free(out);
    }
}

static void refuses(void **state)
{
    static const char *const bad[][3] = {
        {"cpus: 1\n", "cups=2", "did you mean \"cpus\""},
        {"cpus: 1\n", "cpus", "expected key=value"},
        {"cpus: [\n", "cpus=2", "not valid YAML"},
        {"cpus: 1\n", "cpus=[", "not valid YAML"},
        {"- a\n", "cpus=2", "a map"},
        {"? cpus\n: 1\n", "cpus=[1]", NULL}, /* unusual, but found */
        {"? cpus\n:\n  - 1\n", "cpus=2", "with an editor"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error e = {0};
        char *out = NULL;
        int r = spec_edit_set("vm.yaml", bad[i][0], bad[i][1], &out, &e);
        assert_int_equal(r, bad[i][2] ? ERR_SPEC : 0);
        if (bad[i][2] && !strstr(e.msg, bad[i][2]))
            fail_msg("%s: %s", bad[i][1], e.msg);
        free(out);
    }
}

static int absolute(void *ctx, const struct spec_path *p, char **to, struct error *e)
{
    FILE *log = ctx;
    fprintf(log, "%s%s%s ", p->key, p->written ? "!" : "", p->format ? p->format : "");
    if (p->path[0] != '/' && asprintf(to, "/base/%s", p->path) < 0)
        return ERR_NOMEM;
    return 0;
}

static void rewrites_paths(void **state)
{
    const char *before = "kernel: vmlinuz # k\ninitrd: /boot/initrd\ncpus: 1\ndisks:\n"
                         "  - a \"b\".img # x\n  - {file: 'c d.img', readonly: true}\n"
                         "  - file: e.iso\n    media: cdrom\n  - {format: raw, file: f}\n"
                         "serial: {file: out}\n";
    const char *after = "kernel: \"/base/vmlinuz\" # k\ninitrd: /boot/initrd\ncpus: 1\ndisks:\n"
                        "  - \"/base/a \\\"b\\\".img\" # x\n"
                        "  - {file: \"/base/c d.img\", readonly: true}\n"
                        "  - file: \"/base/e.iso\"\n    media: cdrom\n"
                        "  - {format: raw, file: \"/base/f\"}\n"
                        "serial: {file: \"/base/out\"}\n";
    char *out = NULL, *said = NULL;
    size_t len;
    struct error e = {0};
    FILE *log = open_memstream(&said, &len);
    assert_int_equal(spec_edit_paths("vm.yaml", before, absolute, log, &out, &e), 0);
    fclose(log);
    assert_string_equal(out, after);
    assert_string_equal(said, "serial disks!raw disks disks disks! initrd kernel ");
    free(out);
    free(said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_values),
        cmocka_unit_test(refuses),
        cmocka_unit_test(rewrites_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
