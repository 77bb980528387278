/*
 * test_spec.c - the spec parser: what is accepted means what the manual says; what is not is
 * refused at the right place, with words that help.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "spec/schema.h"

static char dir[] = "/tmp/sosia-spec-XXXXXX";
static char file[64]; /* the spec under test */

static void put(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
}

static int load(const char *text, size_t len, const char *set, struct spec *s, struct error *e)
{
    put(file, text, len);
    int r = spec_load(file, &set, set ? 1 : 0, s, e);
    if (r == 0 && (r = spec_check(s, e)) < 0)
        spec_fini(s);
    return r;
}

static void good(const char *text, struct spec *s)
{
    struct error e = {0};
    if (load(text, strlen(text), NULL, s, &e) < 0)
        fail_msg("refused: %s\n%s: %s", text, e.where, e.msg);
}

/* A malformed spec, where the caret must be, and what the message must say. */
static const struct {
    const char *text;
    unsigned line, column;
    const char *say, *hint; /* parts of the message; hint may be NULL */
} bad[] = {
    /* Keys. */
    {"memroy: 512M\n", 1, 1, "unknown key \"memroy\"", "did you mean \"memory\"?"},
    {"cpus: 1\nmem: 1G\n", 2, 1, "unknown key \"mem\"", "\"memory\""},
    {"cpu: 2\n", 1, 1, "unknown key", "\"cpus\""},
    {"Memory: 1G\n", 1, 1, "unknown key", "\"memory\""},
    {"frobnicate: 1\n", 1, 1, "unknown key \"frobnicate\"", "sosia spec"},
    {"<<: {cpus: 1}\n", 1, 1, "unknown key \"<<\"", NULL},
    {"\"na\\tme\": x\n", 1, 1, "unknown key \"na?me\"", NULL},
    {"cpus: 1\nmemory: 1G\ncpus: 2\n", 3, 1, "\"cpus\" is given twice", NULL},
    {"disks: [{file: a, file: b}]\n", 1, 19, "\"file\" is given twice", NULL},
    {"[cpus]: 1\n", 1, 1, "a key must be a word, not a list", NULL},
    {"{a: b}: 1\n", 1, 1, "a key must be a word, not a map", NULL},
    {"~: 1\n", 1, 1, "a key must be a word, not nothing", NULL},
    {"disks: [{file: a, buss: ide}]\n", 1, 19, "unknown key \"buss\"", "\"bus\""},
    {"serial: {fil: x}\n", 1, 10, "unknown key \"fil\"", "\"file\""},
    /* Wrong kinds. */
    {"- cpus\n", 1, 1, "not a list", "memory: 512M"},
    {"just text\n", 1, 1, "not a single value", NULL},
    {"cpus:\n", 1, 6, "\"cpus\" has no value", "default"},
    {"kernel: ~\n", 1, 9, "\"kernel\" has no value", NULL},
    {"cpus: [1]\n", 1, 7, "\"cpus\" must be a number, not a list", "cpus: NUMBER"},
    {"memory: {a: b}\n", 1, 9, "must be a size, not a map", NULL},
    {"name: [a]\n", 1, 7, "must be a single value, not a list", NULL},
    {"engine: {a: b}\n", 1, 9, "must be one of its words", "auto | interp"},
    {"disks: a.img\n", 1, 8, "must be a list", "disks: [PATH]"},
    {"disks: {file: a}\n", 1, 8, "must be a list, not a map", NULL},
    {"disks: [[a]]\n", 1, 9, "a disk must be a path or a map, not a list", "bus: ide"},
    {"disks: [~]\n", 1, 9, "a disk must be a path or a map, not nothing", NULL},
    {"boot: {a: b}\n", 1, 7, "must be one of its words, not a map", NULL},
    /* Words. */
    {"engine: interpreter\n", 1, 9, "\"engine\" cannot be \"interpreter\"", "auto | interp"},
    {"engine: intrep\n", 1, 9, "cannot be \"intrep\"", "did you mean \"interp\"?"},
    {"engine: kvm\n", 1, 9, "cannot be \"kvm\"", "auto | interp"},
    {"firmware: seabois\n", 1, 11, "cannot be", "did you mean \"seabios\"?"},
    {"clock: local\n", 1, 8, "cannot be", "did you mean \"localtime\"?"},
    {"clock: UTC\n", 1, 8, "cannot be \"UTC\"", "did you mean \"utc\"?"},
    {"boot: [disk, cdrm]\n", 1, 14, "cannot be \"cdrm\"", "did you mean \"cdrom\"?"},
    {"boot: [disk, disk]\n", 1, 14, "names disk twice", NULL},
    {"boot: []\n", 1, 7, "must name a device", NULL},
    {"boot: net\n", 1, 7, "cannot be \"net\"", "[disk, cdrom, floppy]"},
    {"serial: file\n", 1, 9, "which file?", "{file: PATH}"},
    {"serial: {}\n", 1, 9, "needs \"file\"", NULL},
    {"serial: stdio\n", 1, 9, "cannot be \"stdio\"", "terminal | none"},
    {"console: ttyS0\n", 1, 10, "\"console\" cannot be \"ttyS0\"", "none | terminal"},
    {"console: {file: x}\n", 1, 10, "must be one of its words, not a map", NULL},
    {"disks:\n  - file: disk\n    bus: virtoi\n", 3, 10, "cannot be", "\"virtio\""},
    {"disks:\n  - file: disk\n    readonly: yes\n", 3, 15, "must be true or false", NULL},
    {"disks:\n  - bus: ide\n", 2, 5, "a disk needs \"file\"", NULL},
    {"disks: [{raid: 1}]\n", 1, 9, "needs \"raid\" and \"members\"", "members: [PATH"},
    {"disks: [{members: [a, b]}]\n", 1, 9, "needs \"raid\" and \"members\"", NULL},
    {"disks: [{raid: 5, members: [a]}]\n", 1, 16, "cannot be \"5\"", NULL},
    {"disks: [{raid: 1, members: a}]\n", 1, 28, "must be a list", NULL},
    {"disks: [{raid: 1, members: []}]\n", 1, 28, "1 to 16", NULL},
    {"disks: [{raid: 1, members: [a], file: b}]\n", 1, 9, "not both", NULL},
    {"disks: [{file: disk, degraded: true}]\n", 1, 9, "\"degraded\" needs", NULL},
    {"disks:\n  - file: disk\n    blocksize: 1024\n", 3, 16, "cannot be", "512 | 4096"},
    {"disks:\n  - file: disk\n    serial: 123456789012345678901\n", 3, 13, "21 bytes", NULL},
    {"disks: [{file: disk, format: qcow}]\n", 1, 30, "cannot be \"qcow\"", "\"qcow2\""},
    {"disks: [{file: disk, backing: outside}]\n", 1, 31, "cannot be", "\"inside\""},
    {"disks: [{file: disk, copyonread: 1}]\n", 1, 34, "must be true or false", NULL},
    {"disks: [{file: disk, iops: 0}]\n", 1, 28, "from 1 to 10000000", NULL},
    {"disks: [{file: disk, bandwidth: 100K}]\n", 1, 33, "from 1M to 1T", NULL},
    /* Numbers and sizes. */
    {"cpus: two\n", 1, 7, "whole number from 1 to 32, not \"two\"", NULL},
    {"cpus: 0\n", 1, 7, "from 1 to 32", NULL},
    {"cpus: 33\n", 1, 7, "from 1 to 32, not \"33\"", NULL},
    {"cpus: -1\n", 1, 7, "from 1 to 32", NULL},
    {"cpus: 1.5\n", 1, 7, "not \"1.5\"", NULL},
    {"cpus: 0x2\n", 1, 7, "not \"0x2\"", NULL},
    {"cpus: 010\n", 1, 7, "not \"010\"", NULL},
    {"cpus: 99999999999999999999999\n", 1, 7, "from 1 to 32", NULL},
    {"memory: lots\n", 1, 9, "\"memory\" cannot be \"lots\"", "512M or 2G"},
    {"memory: 512m\n", 1, 9, "cannot be \"512m\"", "K, M, G or T"},
    {"memory: 512MB\n", 1, 9, "cannot be \"512MB\"", "512M"},
    {"memory: 1.5G\n", 1, 9, "cannot be", NULL},
    {"memory: 512\n", 1, 9, "not 512 bytes", "did you mean 512M?"},
    {"memory: 0\n", 1, 9, "from 1M to 1T", NULL},
    {"memory: 1000K\n", 1, 9, "from 1M to 1T, not 1000K", NULL},
    {"memory: 1025K\n", 1, 9, "multiple of 1M", NULL},
    {"memory: 1048577\n", 1, 9, "multiple of 1M", NULL},
    {"memory: 2T\n", 1, 9, "from 1M to 1T, not 2T", NULL},
    {"memory: 18446744073709551615T\n", 1, 9, "cannot be", NULL},
    {"memory: 1T\n", 1, 9, "this host has only", NULL},
    /* Texts. */
    {"name: -x\n", 1, 7, "a character that a name cannot have", "letters, digits"},
    {"name: a/b\n", 1, 7, "cannot have", NULL},
    {"name: ''\n", 1, 7, "must not be empty", NULL},
    {"kernel: ''\n", 1, 9, "must not be empty", NULL},
    {"kernel: \"a\\nb\"\n", 1, 9, "one line of plain text", NULL},
    {"kernel: \"a\\0b\"\n", 1, 9, "a NUL character", NULL},
    /* Files and combinations. */
    {"cdrom: nope.iso\n", 1, 8, "nope.iso: No such file", NULL},
    {"cpus: 1\ndisks:\n  - disk\n  - nope.img\n", 4, 5, "nope.img: No such file", NULL},
    {"disks: [empty]\n", 1, 9, "is empty", NULL},
    {"disks: [/dev/null]\n", 1, 9, "is not a file or block device", NULL},
    {"kernel: .\n", 1, 9, "is not a file", NULL},
    {"disks: [{file: disk, bus: ide, blocksize: 4096}]\n", 1, 9, "512 bytes", "virtio"},
    {"disks: [{file: disk, media: cdrom}]\n", 1, 9, "no CD-ROM drives on virtio", "ahci"},
    {"disks: [{file: disk, bus: ahci, media: cdrom, blocksize: 4096}]\n", 1, 9, "2048", NULL},
    {"initrd: disk\n", 1, 9, "\"initrd\" needs \"kernel\"", NULL},
    {"cmdline: quiet\n", 1, 10, "\"cmdline\" needs \"kernel\"", NULL},
    {"firmware: none\n", 1, 11, "without firmware", NULL},
    {"kernel: disk\nfirmware: seabios\n", 2, 11, "leave out", NULL},
    {"console: terminal\n", 1, 10, "cannot both be the terminal", "serial: none"},
    {"serial: terminal\nconsole: terminal\n", 2, 10, "cannot both be", "{file: PATH}"},
    {"disks: [{file: disk, bus: ide}, {file: disk, bus: ide}, {file: disk, bus: ide},\n"
     " {file: disk, bus: ide}]\ncdrom: disk\n",
     2, 2, "more than 4 drives on IDE, the CD-ROM included", NULL},
    /* YAML. */
    {"", 1, 1, "the spec file is empty", "--defaults"},
    {"# nothing\n", 1, 1, "the spec file is empty", NULL},
    {"---\n...\n", 2, 1, "the spec file is empty", NULL},
    {"cpus: 1\n---\ncpus: 2\n", 2, 1, "a second document", NULL},
    {"cpus: &a 1\n", 1, 7, "anchors are not used", NULL},
    {"name: *a\n", 1, 7, "aliases are not used", NULL},
    {"cpus: !!int 1\n", 1, 7, "tags are not used", NULL},
    {"disks: !x [a]\n", 1, 8, "tags are not used", NULL},
    {"&r cpus: 1\n", 1, 1, "anchors are not used", NULL},
    {"disks:\n\t- a\n", 2, 1, "not valid YAML", "use spaces"},
    {"cpus: 1\n memory: 1G\n", 2, 8, "not valid YAML", "one column"},
    {"name: \"abc\n", 2, 1, "not valid YAML", "closing quote"},
    {"disks: [a, b\n", 2, 1, "not valid YAML", NULL},
    {"disks: [a}\n", 1, 10, "not valid YAML", NULL},
    {"name: @x\n", 1, 7, "not valid YAML", NULL},
    {"cpus 1\nmemory: 1G\n", 2, 7, "not valid YAML", NULL},
    {"disks: [[[[[[[[[[a]]]]]]]]]]\n", 1, 15, "nested more than 8 levels", NULL},
    {"%YAML 9.9\n---\ncpus: 1\n", 1, 1, "not valid YAML", NULL},
    {"cpus: 1\nname: \xff\n", 2, 7, "byte 0xff is not UTF-8", NULL},
    {"name: \xc0\xaf\n", 1, 7, "byte 0xc0 is not UTF-8", NULL},
    {"name: \xed\xa0\x80\n", 1, 7, "byte 0xed is not UTF-8", NULL},
    {"name: \xf8\x88\x80\x80\x80\n", 1, 7, "byte 0xf8 is not UTF-8", NULL},
    {"name: \xe2\x82", 1, 7, "byte 0xe2 is not UTF-8", NULL},
    {"name: \x1b[31m\n", 1, 7, "character 0x1b is not allowed", NULL},
    {"name: a\x7f\n", 1, 8, "character 0x7f is not allowed", NULL},
    {"cmdline: \xc3\xa4\xc3\xb6 \x01\n", 1, 13, "character 0x01",
     NULL}, /* columns are characters */
};

static void check_bad(size_t i, int r, const struct error *e)
{
    char where[128];
    snprintf(where, sizeof where, "%s:%u:%u", file, bad[i].line, bad[i].column);
    if (r == 0)
        fail_msg("accepted: %s", bad[i].text);
    if (strcmp(e->where, where) != 0 || !strstr(e->msg, bad[i].say) ||
        (bad[i].hint && !strstr(e->msg, bad[i].hint)) || r != ERR_SPEC)
        fail_msg("spec: %s\nexpected %s: %s (%s)\ngot %d %s: %s", bad[i].text, where, bad[i].say,
                 bad[i].hint ? bad[i].hint : "", r, e->where, e->msg);
    const char *shown = strstr(e->msg, " | "), *caret = strrchr(e->msg, '^');
    assert_non_null(shown);
    assert_non_null(caret);
    for (const char *c = e->msg; *c; c++) /* nothing a terminal would obey */
        assert_true(*c == '\n' || (unsigned char)*c >= 0x20);
}

static void test_malformed(void **state)
{
    assert_true(ARRAY_LEN(bad) >= 60);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct error e = {0};
        struct spec s;
        int r = load(bad[i].text, strlen(bad[i].text), NULL, &s, &e);
        check_bad(i, r, &e);
    }
}

static void test_message_form(void **state)
{
    struct error e = {0};
    struct spec s;
    const char *text = "cpus: 1\nmemroy: 512M # RAM\n";
    load(text, strlen(text), NULL, &s, &e);
    assert_string_equal(e.msg, "unknown key \"memroy\"\n"
                               "    2 | memroy: 512M # RAM\n"
                               "      | ^\n"
                               "        did you mean \"memory\"?");
}

/* A caret far to the right: the line is cut around it, and the caret stands below the place. */
static void test_long_line(void **state)
{
    char text[3000];
    struct error e = {0};
    struct spec s;
    memset(text, ' ', sizeof text);
    memcpy(text, "cpus:", 5);
    memcpy(text + 2000, "Q", 1);
    text[sizeof text - 1] = '\n';
    assert_int_equal(load(text, sizeof text, NULL, &s, &e), ERR_SPEC);
    const char *line = strstr(e.msg, " | ") + 3, *caret = strchr(e.msg, '^');
    const char *bar = memrchr(e.msg, '|', (size_t)(caret - e.msg));
    assert_int_equal(line[caret - (bar + 2)], 'Q');
}

static void test_hostile_bulk(void **state)
{
    struct error e = {0};
    struct spec s;
    size_t len = SPEC_MAX_TEXT + 1;
    char *text = malloc(len);
    assert_non_null(text);

    memset(text, '#', len); /* too large, whatever is in it */
    assert_int_equal(load(text, len, NULL, &s, &e), ERR_SPEC);
    assert_non_null(strstr(e.msg, "larger than 1048576 bytes"));
    memset(text, '[', len - 1);
    assert_int_equal(load(text, len - 1, NULL, &s, &e), ERR_SPEC);
    assert_non_null(strstr(e.msg, "nested more than"));
    memcpy(text, "disks: [", 8);
    for (size_t i = 8; i + 2 < len; i += 2)
        memcpy(text + i, "a,", 2);
    assert_int_equal(load(text, len - 1, NULL, &s, &e), ERR_SPEC);
    assert_non_null(strstr(e.msg, "more than 1000 values"));
    memset(text, 'a', len - 1);
    assert_int_equal(load(text, len - 1, NULL, &s, &e), ERR_SPEC);
    memset(text, 0, len - 1);
    assert_int_equal(load(text, len - 1, NULL, &s, &e), ERR_SPEC);
    assert_non_null(strstr(e.msg, "character 0x00"));
    assert_int_equal(load("\xff\xfe"
                          "c\0p\0",
                          6, NULL, &s, &e),
                     ERR_SPEC); /* UTF-16 */
    strcpy(text, "disks: [");
    for (int i = 0; i < SPEC_MAX_DISKS + 1; i++)
        strcat(text, "disk, ");
    strcat(text, "]\n");
    assert_int_equal(load(text, strlen(text), NULL, &s, &e), ERR_SPEC);
    assert_non_null(strstr(e.msg, "more than 16 disks"));
    free(text);
}

/* Every prefix of a spec that uses everything, and every single byte of it changed: an error or
 * not, but neither a crash nor a leak (the sanitizer build watches). */
static void test_mutations(void **state)
{
    static const char full[] =
        "name: vm-1\nengine: interp\ncpus: 2\nmemory: 64MiB\nboot: [disk]\n"
        "disks:\n  - disk\n  - {file: \"disk\", bus: ide, readonly: true,\n"
        "     serial: A1, blocksize: 512}\nserial: {file: out}\nclock: utc # end\n";
    char text[sizeof full];
    struct spec s;

    for (size_t i = 0; i < sizeof full - 1; i++) {
        struct error e = {0};
        if (load(full, i, NULL, &s, &e) == 0)
            spec_fini(&s);
        for (const char *c = "\t\n :[]{}&*!|>'\"%@\x80"; *c; c++) {
            memcpy(text, full, sizeof full);
            text[i] = *c;
            if (load(text, sizeof full - 1, NULL, &s, &e) == 0)
                spec_fini(&s);
        }
    }
}

static void test_full(void **state)
{
    struct spec s;
    char path[96];

    good("name: vm.one\nengine: interp\ncpus: \"4\"\nmemory: 64MiB\nboot: [cdrom, disk]\n"
         "kernel: disk\ninitrd: ./disk\ncmdline: 'console=ttyS0 quiet'\n"
         "disks:\n  - disk\n  - {file: disk, bus: ide, readonly: true}\n"
         "  - {file: disk, format: raw, backing: anywhere, copyonread: true, iops: 500,\n"
         "     bandwidth: 20M}\n"
         "  - nbd+unix:///disk?socket=/tmp/s\n"
         "cdrom: disk\nfloppy: disk\nserial:\n  file: out.log\nconsole: terminal\nclock: "
         "localtime\ntestdev: true\n",
         &s);
    assert_string_equal(s.name, "vm.one");
    assert_int_equal(s.engine, SPEC_ENGINE_INTERP);
    assert_int_equal(s.cpus, 4);
    assert_true(s.memory == 64 * MIB);
    assert_int_equal(s.nboot, 2);
    assert_int_equal(s.boot[0], SPEC_BOOT_CDROM);
    assert_int_equal(s.boot[1], SPEC_BOOT_DISK);
    assert_string_equal(s.cmdline, "console=ttyS0 quiet");
    snprintf(path, sizeof path, "%s/disk", dir);
    assert_string_equal(s.kernel, path);
    assert_string_equal(s.cdrom, path);
    assert_int_equal(s.ndisk, 4);
    assert_string_equal(s.disk[0].file, path);
    assert_string_equal(s.disk[3].file, "nbd+unix:///disk?socket=/tmp/s");
    assert_int_equal(s.disk[0].bus, SPEC_BUS_VIRTIO);
    assert_false(s.disk[0].readonly);
    assert_int_equal(s.disk[1].bus, SPEC_BUS_IDE);
    assert_true(s.disk[1].readonly);
    assert_string_equal(spec_format_words[s.disk[1].format], "auto");
    assert_int_equal(s.disk[1].backing, SPEC_BACKING_INSIDE);
    assert_string_equal(spec_format_words[s.disk[2].format], "raw");
    assert_int_equal(s.disk[2].backing, SPEC_BACKING_ANYWHERE);
    assert_true(s.disk[2].copy_on_read && s.disk[2].iops == 500);
    assert_true(s.disk[2].bandwidth == 20 * MIB);
    assert_int_equal(s.serial, SPEC_SERIAL_FILE);
    snprintf(path, sizeof path, "%s/out.log", dir);
    assert_string_equal(s.serial_file, path);
    assert_int_equal(s.console, SPEC_CONSOLE_TERMINAL);
    assert_int_equal(s.clock, SPEC_CLOCK_LOCALTIME);
    assert_true(s.testdev);
    spec_fini(&s);
}

static void assert_defaults(const struct spec *s)
{
    assert_null(s->name);
    assert_int_equal(s->engine, SPEC_ENGINE_AUTO);
    assert_int_equal(s->cpus, 1);
    assert_true(s->memory == 512 * MIB);
    assert_int_equal(s->nboot, 3);
    assert_int_equal(s->boot[0], SPEC_BOOT_DISK);
    assert_int_equal(s->firmware, SPEC_FIRMWARE_AUTO);
    assert_int_equal(s->ndisk, 0);
    assert_null(s->kernel);
    assert_int_equal(s->serial, SPEC_SERIAL_TERMINAL);
    assert_int_equal(s->console, SPEC_CONSOLE_NONE);
    assert_int_equal(s->clock, SPEC_CLOCK_UTC);
    assert_false(s->testdev);
}

static void test_defaults(void **state)
{
    struct spec s;
    char *text = NULL;
    size_t len = 0;

    good("{}\n", &s);
    assert_defaults(&s);
    spec_fini(&s);
    good("\xef\xbb\xbf{}\n", &s); /* a byte order mark, as some editors leave it */
    spec_fini(&s);
    good("{}", &s); /* no newline at the end */
    spec_fini(&s);
    FILE *f = open_memstream(&text, &len); /* what `sosia spec --defaults` prints is a spec file */
    spec_print_defaults(f);
    fclose(f);
    good(text, &s);
    assert_defaults(&s);
    spec_fini(&s);
    free(text);
}

static void test_scalar_forms(void **state)
{
    struct spec s;
    good("boot: cdrom\nname: 123\ndisks: []\n", &s);
    assert_int_equal(s.nboot, 1);
    assert_int_equal(s.boot[0], SPEC_BOOT_CDROM);
    assert_string_equal(s.name, "123"); /* typed by the schema, not guessed */
    spec_fini(&s);
    good("memory: 1048576\nserial: none\n", &s);
    assert_true(s.memory == MIB);
    assert_int_equal(s.serial, SPEC_SERIAL_NONE);
    spec_fini(&s);
    good("cmdline: \"\"\nkernel: /etc/passwd\nmemory: 2048K\n", &s);
    assert_string_equal(s.cmdline, "");
    assert_string_equal(s.kernel, "/etc/passwd"); /* absolute stays */
    assert_true(s.memory == 2 * MIB);
    spec_fini(&s);
}

static void test_overrides(void **state)
{
    const char *const set[] = {"memory=64M",         "cpus=2", "disks=[{file: x, bus: ide}]",
                               "serial={file: log}", "cpus=3", "cmdline=a=b c",
                               "serial=terminal"};
    struct error e = {0};
    struct spec s;

    put(file, "cpus: 1\ndisks: [a, b]\n", 22);
    assert_int_equal(spec_load(file, set, ARRAY_LEN(set), &s, &e), 0);
    assert_true(s.memory == 64 * MIB);
    assert_int_equal(s.cpus, 3); /* the last one counts */
    assert_int_equal(s.ndisk, 1);
    assert_string_equal(s.disk[0].file, "x"); /* relative to where the user is */
    assert_string_equal(s.cmdline, "a=b c");
    assert_int_equal(s.serial, SPEC_SERIAL_TERMINAL);
    assert_null(s.serial_file);
    spec_fini(&s);
}

static void test_bad_overrides(void **state)
{
    static const struct {
        const char *set, *say, *caret;
    } t[] = {
        {"memroy=1G", "did you mean \"memory\"?", "--set | memroy=1G\n      | ^"},
        {"memory=12Q", "cannot be \"12Q\"", "--set | memory=12Q\n      |        ^"},
        {"memory", "expected key=value", "--set | memory\n      | ^"},
        {"", "expected key=value", "--set | \n      | ^"},
        {"cpus=", "\"cpus\" has no value", "      |      ^"},
        {"=1", "unknown key \"\"", NULL},
        {"disks=[a", "not valid YAML", NULL},
        {"disks=[{file: a, bus: vrtio}]", "did you mean \"virtio\"?",
         "      |                       ^"},
        {"cpus=1\n---\n2", "a second document", NULL},
        {"name=\xff", "not UTF-8", NULL},
        {"initrd=/etc/passwd", "needs \"kernel\"", "      |        ^"},
        {"cdrom=nowhere.iso", "cannot read nowhere.iso", "      |       ^"},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct error e = {0};
        struct spec s;
        assert_int_equal(load("{}", 2, t[i].set, &s, &e), ERR_SPEC);
        assert_int_equal(strncmp(e.where, "--set ", 6), 0);
        if (!strstr(e.msg, t[i].say) || (t[i].caret && !strstr(e.msg, t[i].caret)))
            fail_msg("--set %s: %s", t[i].set, e.msg);
    }
}

static void test_unreadable(void **state)
{
    struct error e = {0};
    struct spec s;
    assert_int_equal(spec_load("/nonexistent/vm.yaml", NULL, 0, &s, &e), ERR_IO);
    assert_string_equal(e.where, "/nonexistent/vm.yaml");
    assert_non_null(strstr(e.msg, "No such file"));
    assert_int_equal(spec_load("/tmp", NULL, 0, &s, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "directory"));
}

static void test_made_by_hand(void **state)
{
    struct error e = {0};
    struct spec s = {.cpus = 1, .memory = MIB, .initrd = strdup("x")};
    assert_int_equal(spec_check(&s, &e), ERR_SPEC); /* no origin to point at */
    assert_string_equal(e.msg, "\"initrd\" needs \"kernel\"");
    spec_fini(&s);
}

static void test_sizes(void **state)
{
    char b[32];
    assert_string_equal(spec_format_size(b, 512 * MIB), "512M");
    assert_string_equal(spec_format_size(b, GIB), "1G");
    assert_string_equal(spec_format_size(b, 1536 * MIB), "1536M");
    assert_string_equal(spec_format_size(b, 1), "1");
    assert_string_equal(spec_format_size(b, 0), "0");
}

static bool in_manual(const char *manual, const char *item)
{
    const char *at = strstr(manual, item);
    return at && (at[strlen(item)] == '\n' || at[strlen(item)] == ' ');
}

/* sosia.yaml(5) documents each key, in the table's order, with its words and default. */
static void test_manual(void **state)
{
    static char manual[64 * 1024];
    FILE *f = fopen("man/sosia.yaml.5", "r"); /* tests run in the source tree */
    if (!f)
        skip();
    manual[fread(manual, 1, sizeof manual - 1, f)] = 0;
    fclose(f);
    const char *from = manual;
    for (const struct spec_key *k = spec_schema; k->name; k++) {
        char item[128];
        snprintf(item, sizeof item, "\n.It Cm %s", k->name);
        if (!in_manual(from, item))
            fail_msg("sosia.yaml(5) lacks \"%s\", or has it out of order", k->name);
        from = strstr(from, item);
        const char *end = strstr(from + 1, "\n.It Cm ");
        size_t len = end ? (size_t)(end - from) : strlen(from);
        for (size_t i = 0; k->words && k->words[i]; i++)
            if (!memmem(from, len, k->words[i], strlen(k->words[i])))
                fail_msg("sosia.yaml(5), %s: lacks \"%s\"", k->name, k->words[i]);
        if (k->def && !memmem(from, len, k->def, strlen(k->def)))
            fail_msg("sosia.yaml(5), %s: lacks the default", k->name);
        from++;
    }
    for (const struct spec_key *k = spec_disk_schema; k->name; k++)
        assert_non_null(strstr(manual, k->name));
}

/* What a saved state fits: what the guest sees, whatever the spec says otherwise or how. */
static void test_hardware(void **state)
{
    static const char base[] = "memory: 64M\ndisks: [disk]\n";
    static const struct {
        const char *text;
        bool same;
    } others[] = {
        {"disks:\n  - {file: empty, bus: virtio}\nmemory: 65536K\n", true},
        {"memory: 64M\ndisks: [disk]\nengine: interp\nclock: localtime\nname: b\n", true},
        {"memory: 64M\ndisks: [{file: disk, iops: 10, format: raw}]\n", true},
        {"memory: 65M\ndisks: [disk]\n", false},
        {"memory: 64M\ndisks: [disk, disk]\n", false},
        {"memory: 64M\ndisks: [disk]\ncpus: 2\n", false},
        {"memory: 64M\ndisks: [{file: disk, bus: ide}]\n", false},
        {"memory: 64M\ndisks: [{file: disk, serial: x}]\n", false},
        {"memory: 64M\ndisks: [{file: disk, readonly: true}]\n", false},
        {"memory: 64M\ndisks: [disk]\ncdrom: disk\n", false},
        {"memory: 64M\ndisks: [disk]\nconsole: terminal\nserial: none\n", false},
    };
    struct spec a, b;
    struct error e;
    assert_int_equal(spec_load_text(file, base, strlen(base), &a, &e), 0);
    char *is = spec_hardware(&a);
    assert_non_null(strstr(is, "memory: 64M\n"));
    assert_non_null(strstr(is, "disks[0].bus: virtio\n"));
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        const char *text = others[i].text;
        assert_int_equal(spec_load_text(file, text, strlen(text), &b, &e), 0);
        char *other = spec_hardware(&b);
        if ((strcmp(is, other) == 0) != others[i].same)
            fail_msg("%s:\n%s", text, other);
        free(other);
        spec_fini(&b);
    }
    free(is);
    spec_fini(&a);
}

static int setup(void **state)
{
    char path[96];
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/vm.yaml", dir);
    snprintf(path, sizeof path, "%s/disk", dir);
    put(path, "x", 1);
    snprintf(path, sizeof path, "%s/empty", dir);
    put(path, "", 0);
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"vm.yaml", "disk", "empty"};
    char path[96];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed),    cmocka_unit_test(test_message_form),
        cmocka_unit_test(test_long_line),    cmocka_unit_test(test_hostile_bulk),
        cmocka_unit_test(test_mutations),    cmocka_unit_test(test_full),
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_scalar_forms),
        cmocka_unit_test(test_overrides),    cmocka_unit_test(test_bad_overrides),
        cmocka_unit_test(test_unreadable),   cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_made_by_hand), cmocka_unit_test(test_manual),
        cmocka_unit_test(test_hardware),
    };
    return cmocka_run_group_tests_name("spec", tests, setup, teardown);
}
