/*
 * fuzz_spec.c - the spec file. The input's first byte is how many overrides (--set) follow, a line
 * each; the rest is the file.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "spec/edit.h"
#include "spec/spec.h"

#define SETS 3

static char *take_line(struct fuzz_in *in)
{
    const uint8_t *end = in->left ? memchr(in->p, '\n', in->left) : NULL, *p;
    size_t n = fuzz_take(in, &p, end ? (size_t)(end - in->p) : in->left);
    char *s = strndup((const char *)p, n);
    fuzz_u8(in); /* the newline */
    return s;
}

/* A parsed spec keeps the promises of its declaration. */
static void check(const struct spec *s)
{
    FUZZ_REQUIRE(s->cpus >= 1 && s->cpus <= 32);
    FUZZ_REQUIRE(s->memory && s->memory % MIB == 0);
    FUZZ_REQUIRE(s->ndisk <= SPEC_MAX_DISKS && s->nboot <= SPEC_MAX_BOOT);
    for (unsigned n = 0; n < s->ndisk; n++)
        FUZZ_REQUIRE(s->disk[n].file);
}

/* A changed text says what was asked for; that is checked inside, so a text that comes out parses.
 */
static void edit(const char *set, const uint8_t *text, size_t len)
{
    char *copy = strndup((const char *)text, len), *out = NULL, *again = NULL;
    struct error e = {0};
    if (spec_edit_set("vm.yaml", copy, set, &out, &e) == 0) {
        FUZZ_REQUIRE(spec_edit_set("vm.yaml", out, set, &again, &e) == 0);
        FUZZ_REQUIRE(strcmp(out, again) == 0); /* once more changes nothing */
    }
    free(copy);
    free(out);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    char *set[SETS] = {0}, path[64];
    struct error e = {0};
    struct spec s;
    unsigned nset = fuzz_u8(&in) % (SETS + 1);
    for (unsigned n = 0; n < nset; n++)
        set[n] = take_line(&in);
    int fd = memfd_create("spec", MFD_CLOEXEC);
    FUZZ_REQUIRE(fd >= 0 && write(fd, in.p, in.left) == (ssize_t)in.left);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const char *const *sets = (const char *const *)(void *)set;
    if (spec_load(path, sets, nset, &s, &e) == 0) {
        check(&s);
        spec_check(&s, &e);
        spec_fini(&s);
    } else {
        FUZZ_REQUIRE(e.code && e.msg[0]);
    }
    close(fd);
    for (unsigned n = 0; n < nset; n++) {
        edit(set[n], in.p, in.left);
        free(set[n]);
    }
    return 0;
}
