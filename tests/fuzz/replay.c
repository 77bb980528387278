/*
 * replay.c - the main() of a fuzz target in the ordinary build: runs the target once for each file
 * of its corpus, so that what the fuzzer once found stays found. Prints TAP.
 *
 * Usage: fuzz_NAME FOLDER_OR_FILE. A file NAME.hex is text: hexadecimal bytes, and comments from
 * '#' to the end of the line. Every other file is taken as it is. With -d FOLDER the inputs are
 * written there as plain bytes instead, as the fuzzer wants them.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"

#define INPUT_MAX (1u << 20)
#define TIME_MAX  60 /* seconds for one input: a hang is a failure */

static int hex_value(int c)
{
    return isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;
}

/* In place; returns the number of bytes, or -1. */
static long decode_hex(uint8_t *buf, size_t len)
{
    size_t out = 0;
    int high = -1;
    bool comment = false;
    for (size_t n = 0; n < len; n++) {
        int c = buf[n];
        comment = c == '#' || (comment && c != '\n');
        if (comment || isspace(c))
            continue;
        if (!isxdigit(c))
            return -1;
        if (high < 0) {
            high = hex_value(c);
        } else {
            buf[out++] = (uint8_t)(high << 4 | hex_value(c));
            high = -1;
        }
    }
    return high < 0 ? (long)out : -1;
}

/* A block of its own and exactly as long as the input, so that reading beyond it is seen. */
static uint8_t *load(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    uint8_t *buf = malloc(INPUT_MAX);
    long n = buf ? (long)fread(buf, 1, INPUT_MAX, f) : -1;
    fclose(f);
    size_t name = strlen(path);
    if (n > 0 && name > 4 && !strcmp(path + name - 4, ".hex"))
        n = decode_hex(buf, (size_t)n);
    if (n < 0) {
        free(buf);
        return NULL;
    }
    *len = (size_t)n;
    uint8_t *exact = realloc(buf, n ? (size_t)n : 1);
    return exact ? exact : buf;
}

static bool save(const char *folder, const char *name, const uint8_t *data, size_t len)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f)
        return false;
    bool ok = fwrite(data, 1, len, f) == len;
    return !fclose(f) && ok;
}

static bool one(const char *path, const char *name, const char *dest)
{
    size_t len = 0;
    uint8_t *data = load(path, &len);
    if (!data)
        return false;
    bool ok = true;
    alarm(TIME_MAX);
    if (dest)
        ok = save(dest, name, data, len);
    else
        LLVMFuzzerTestOneInput(data, len);
    alarm(0);
    free(data);
    return ok;
}

static int visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    const char *dest = NULL;
    if (argc == 4 && !strcmp(argv[1], "-d")) {
        dest = argv[2];
        argv += 2;
        argc -= 2;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: %s [-d FOLDER] CORPUS\n", argv[0]);
        return 2;
    }
    struct dirent **list;
    int count = scandir(argv[1], &list, visible, alphasort), failed = 0;
    if (count < 0 && errno == ENOTDIR) {
        printf("1..1\n%s 1 - %s\n", one(argv[1], "input", dest) ? "ok" : "not ok", argv[1]);
        return 0;
    }
    if (count < 0) {
        perror(argv[1]);
        return 1;
    }
    printf("1..%d\n", count);
    for (int n = 0; n < count; n++) {
        char path[4096];
        const char *name = list[n]->d_name;
        snprintf(path, sizeof path, "%s/%s", argv[1], name);
        printf("# %s\n", name); /* if it crashes, this is the line that says where */
        fflush(stdout);
        bool ok = one(path, name, dest);
        failed += !ok;
        printf("%sok %d - %s\n", ok ? "" : "not ", n + 1, name);
        free(list[n]);
    }
    free(list);
    return failed ? 1 : 0;
}
