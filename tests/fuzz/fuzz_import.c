/*
 * fuzz_import.c - descriptions of VMs by other programs, each by every parser. What comes out of a
 * parser is a spec that can be read, and notes that a terminal may see.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "catalog/import.h"
#include "fuzz.h"

static void check_notes(const struct import_notes *l)
{
    FUZZ_REQUIRE(l->n <= IMPORT_MAX_NOTES);
    for (unsigned i = 0; i < l->n; i++)
        for (const char *s = l->note[i].text; *s; s++)
            FUZZ_REQUIRE((unsigned char)*s >= 0x20 && *s != 0x7f);
}

static void check_spec(const struct import *m)
{
    struct error e = {0};
    struct spec s;
    char *text = NULL, name[IMPORT_NAME];
    import_name(m->title ? m->title : "", name);
    FUZZ_REQUIRE(import_spec_text(m, name, &text, &e) == 0);
    FUZZ_REQUIRE(spec_load_text("/x/vm.yaml", text, strlen(text), &s, &e) == 0);
    FUZZ_REQUIRE(s.ndisk == m->spec.ndisk);
    spec_fini(&s);
    free(text);
}

static void run(int (*parse)(struct import *, const char *, size_t, struct error *),
                const char *text, size_t size)
{
    struct error e = {0};
    struct import m;
    if (parse(&m, text, size, &e) == 0)
        check_spec(&m);
    else
        FUZZ_REQUIRE(e.code && e.msg[0]);
    check_notes(&m.took);
    check_notes(&m.dropped);
    import_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    FUZZ_REQUIRE(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    run(import_vmx, text, size);
    run(import_qemu, text, size);
    run(import_vbox, text, size);
    free(text);
    return 0;
}
