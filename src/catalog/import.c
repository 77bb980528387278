/* import.c - what the parsers of import.h share: notes, values that a spec can have, its text. */
#define _GNU_SOURCE
#include "catalog/import.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/url.h"
#include "spec/schema.h"

#define IDE_DRIVES  4
#define AHCI_DRIVES 6
#define MAX_CPUS    32
#define MAX_MEMORY  (1024 * GIB)

static const char *const bus_names[] = {
    [SPEC_BUS_IDE] = "ide",   [SPEC_BUS_VIRTIO] = "virtio", [SPEC_BUS_AHCI] = "ahci",
    [SPEC_BUS_NVME] = "nvme", [SPEC_BUS_SCSI] = "scsi",
};
static const char *const boot_names[] = {
    [SPEC_BOOT_DISK] = "disk", [SPEC_BOOT_CDROM] = "cdrom", [SPEC_BOOT_FLOPPY] = "floppy"};

/* ---- characters ---- */

/* The character at `s` and its bytes; 0: it is none (RFC 3629). */
static unsigned take_char(const char *s, uint32_t *c)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *b = (const uint8_t *)s;
    unsigned n = b[0] < 0x80 ? 1 : b[0] < 0xc0 ? 0 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
    if (n == 0 || b[0] > 0xf4)
        return 0;
    *c = n == 1 ? b[0] : b[0] & (0x7fu >> n);
    for (unsigned i = 1; i < n; i++) {
        if ((b[i] & 0xc0) != 0x80) /* the NUL at the end, too */
            return 0;
        *c = *c << 6 | (b[i] & 0x3fu);
    }
    return *c < least[n] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000) ? 0 : n;
}

/* One that a line of YAML can hold (YAML 1.1, 5.1) and that breaks no line (5.4). */
static bool is_plain(uint32_t c)
{
    return (c >= 0x20 && c < 0x7f) ||
           (c >= 0xa0 && c < 0xfffe && c != 0x2028 && c != 0x2029 && c != 0xfeff) || c >= 0x10000;
}

static bool all_plain(const char *s)
{
    uint32_t c;
    for (unsigned n; *s; s += n) {
        n = take_char(s, &c);
        if (!n || !is_plain(c))
            return false;
    }
    return true;
}

/* For a terminal. */
static void make_plain(char *s)
{
    uint32_t c;
    for (unsigned n; *s; s += n) {
        n = take_char(s, &c);
        if (!n || !is_plain(c)) {
            memset(s, '?', n ? n : 1);
            n = n ? n : 1;
        }
    }
}

/* ---- notes ---- */

static struct import_note *add_note(struct import *m, struct import_notes *l, const char *from)
{
    if (l->n == IMPORT_MAX_NOTES) {
        l->more++;
        return NULL;
    }
    if (!l->note)
        l->note = calloc(IMPORT_MAX_NOTES, sizeof *l->note);
    if (!l->note) {
        m->nomem = true;
        return NULL;
    }
    struct import_note *note = &l->note[l->n++];
    snprintf(note->from, sizeof note->from, "%s", from);
    if (strlen(from) >= sizeof note->from)
        memcpy(note->from + sizeof note->from - 4, "...", 4);
    make_plain(note->from);
    return note;
}

#define NOTE(list)                                             \
    do {                                                       \
        struct import_note *note = add_note(m, (list), from);  \
        va_list ap;                                            \
        va_start(ap, fmt);                                     \
        if (note) {                                            \
            vsnprintf(note->text, sizeof note->text, fmt, ap); \
            make_plain(note->text);                            \
        }                                                      \
        va_end(ap);                                            \
    } while (0)

void import_took(struct import *m, const char *from, const char *fmt, ...)
{
    NOTE(&m->took);
}

void import_drop(struct import *m, const char *from, const char *fmt, ...)
{
    NOTE(&m->dropped);
}

void import_drop_once(struct import *m, const char *from, const char *why)
{
    char text[80];
    snprintf(text, sizeof text, "%s", from);
    make_plain(text);
    for (unsigned i = 0; i < m->dropped.n; i++)
        if (strcmp(m->dropped.note[i].from, text) == 0)
            return;
    import_drop(m, text, "%s", why);
}

void import_fini(struct import *m)
{
    free(m->title);
    free(m->took.note);
    free(m->dropped.note);
    spec_fini(&m->spec);
    *m = (struct import){0};
}

/* ---- values ---- */

int import_check_text(const char *text, size_t len, struct error *e)
{
    if (len > IMPORT_MAX_TEXT)
        return error_set(e, ERR_LIMIT, "larger than %u KiB, which no description of a VM is",
                         IMPORT_MAX_TEXT / 1024);
    if (memchr(text, 0, len))
        return error_set(e, ERR_FORMAT, "not a text: there are NUL bytes in it");
    return 0;
}

bool import_text(struct import *m, const char *from, const char *key, const char *value, size_t max,
                 char **field)
{
    if (!value[0]) {
        import_drop(m, from, "it is empty");
        return false;
    }
    if (strlen(value) > max) {
        import_drop(m, from, "it is longer than %zu bytes", max);
        return false;
    }
    if (!all_plain(value)) {
        import_drop(m, from, "not one line of UTF-8 text");
        return false;
    }
    char *copy = strdup(value);
    m->nomem |= !copy;
    if (!copy)
        return false;
    free(*field);
    *field = copy;
    if (key)
        import_took(m, from, "%s: %s", key, value);
    return true;
}

bool import_path(struct import *m, const char *from, const char *what, const char *value,
                 char **field)
{
    bool drive = ((value[0] | 32) >= 'a' && (value[0] | 32) <= 'z') && value[1] == ':';
    if (drive || strncmp(value, "\\\\", 2) == 0) {
        import_drop(m, from, "%s is a path of Windows; copy the file here and name it in the spec",
                    value);
        return false;
    }
    if (!m->remote && url_is_remote(value)) {
        import_drop(m, from, "%s is not a file on this host", value);
        return false;
    }
    return import_text(m, from, what, value, PATH_MAX / 2, field);
}

void import_drop_floppy(struct import *m, const char *from, const char *file)
{
    import_drop(m, from,
                "the guest would write to %s; if that is an image: sosia set NAME floppy=FILE",
                file);
}

void import_memory(struct import *m, const char *from, uint64_t bytes)
{
    char text[32];
    if (bytes == 0 || bytes > MAX_MEMORY) {
        import_drop(m, from, "memory is from 1M to 1T; the default is used");
        return;
    }
    m->spec.memory = (bytes + MIB - 1) / MIB * MIB;
    import_took(m, from, "memory: %s%s", spec_format_size(text, m->spec.memory),
                bytes % MIB ? " (rounded up)" : "");
}

void import_cpus(struct import *m, const char *from, uint64_t n)
{
    if (n == 0) {
        import_drop(m, from, "no number of CPUs; there will be 1");
        return;
    }
    m->spec.cpus = (unsigned)min_u64(n, MAX_CPUS);
    import_took(m, from, "cpus: %u", m->spec.cpus);
    if (n > MAX_CPUS)
        import_drop(m, from, "a VM has at most %u CPUs", MAX_CPUS);
}

/* ---- disks ---- */

static unsigned drives_on(const struct spec *s, enum spec_bus bus)
{
    unsigned n = bus == SPEC_BUS_IDE && s->cdrom ? 1 : 0;
    for (unsigned i = 0; i < s->ndisk; i++)
        n += s->disk[i].bus == bus;
    return n;
}

/* Where there is room: IDE and AHCI have few places, the others are cards of their own. */
static enum spec_bus place(const struct spec *s, const struct import_disk *d)
{
    enum spec_bus bus = d->bus;
    if (d->cdrom && (bus == SPEC_BUS_VIRTIO || bus == SPEC_BUS_NVME))
        bus = SPEC_BUS_AHCI; /* neither knows CD-ROM drives */
    if (bus == SPEC_BUS_IDE && drives_on(s, bus) >= IDE_DRIVES)
        bus = SPEC_BUS_AHCI;
    if (bus == SPEC_BUS_AHCI && drives_on(s, bus) >= AHCI_DRIVES)
        bus = SPEC_BUS_SCSI;
    return bus;
}

static unsigned format_of(const char *name)
{
    for (unsigned i = 0; name && spec_format_words[i]; i++)
        if (strcmp(spec_format_words[i], name) == 0)
            return i;
    return 0;
}

void import_disk(struct import *m, const char *from, const struct import_disk *d)
{
    struct spec *s = &m->spec;
    enum spec_bus bus = place(s, d);
    if (d->cdrom && bus == SPEC_BUS_IDE && !s->cdrom && !url_is_remote(d->file)) {
        import_path(m, from, "cdrom", d->file, &s->cdrom);
        return;
    }
    if (s->ndisk == SPEC_MAX_DISKS) {
        import_drop(m, from, "a VM has at most %u disks", SPEC_MAX_DISKS);
        return;
    }
    struct spec_disk disk = {.bus = bus,
                             .media = d->cdrom ? SPEC_MEDIA_CDROM : SPEC_MEDIA_DISK,
                             .readonly = d->cdrom || d->readonly,
                             .format = format_of(d->format)};
    if (!import_path(m, from, NULL, d->file, &disk.file))
        return;
    m->overlay[s->ndisk] = d->overlay && !disk.readonly;
    s->disk[s->ndisk++] = disk;
    import_took(m, from, "%s on %s: %s%s%s", d->cdrom ? "CD-ROM" : "disk", bus_names[bus], d->file,
                d->readonly && !d->cdrom ? ", read only" : "",
                bus != d->bus ? " (there is no such place on its own bus)" : "");
}

/* ---- the spec's text ---- */

static void put_text(FILE *f, const char *before, const char *value)
{
    fprintf(f, "%s\"", before);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            fputc('\\', f);
        fputc(*value, f);
    }
    fputs("\"\n", f);
}

static void put_optional(FILE *f, const char *before, const char *value)
{
    if (value)
        put_text(f, before, value);
}

static void put_disk(FILE *f, const struct spec_disk *d)
{
    put_text(f, "  - file: ", d->file);
    fprintf(f, "    bus: %s\n", bus_names[d->bus]);
    if (d->media == SPEC_MEDIA_CDROM)
        fputs("    media: cdrom\n", f);
    else if (d->readonly)
        fputs("    readonly: true\n", f);
    if (d->format)
        fprintf(f, "    format: %s\n", spec_format_words[d->format]);
    if (d->backing == SPEC_BACKING_ANYWHERE)
        fputs("    backing: anywhere\n", f);
}

static void put_spec(FILE *f, const struct spec *s)
{
    char size[32];
    /* Never left out: a spec file says something. */
    fprintf(f, "memory: %s\n", spec_format_size(size, s->memory ? s->memory : 512 * MIB));
    if (s->cpus)
        fprintf(f, "cpus: %u\n", s->cpus);
    for (unsigned i = 0; i < s->nboot; i++)
        fprintf(f, "%s%s%s", i ? ", " : "boot: [", boot_names[s->boot[i]],
                i + 1 == s->nboot ? "]\n" : "");
    put_optional(f, "kernel: ", s->kernel);
    if (s->kernel) { /* nobody else would use them, and a spec may not have them alone */
        put_optional(f, "initrd: ", s->initrd);
        put_optional(f, "cmdline: ", s->cmdline);
    }
    if (s->ndisk)
        fputs("disks:\n", f);
    for (unsigned i = 0; i < s->ndisk; i++)
        put_disk(f, &s->disk[i]);
    put_optional(f, "cdrom: ", s->cdrom);
    put_optional(f, "floppy: ", s->floppy);
    if (s->serial == SPEC_SERIAL_FILE)
        put_text(f, "serial:\n  file: ", s->serial_file);
    else if (s->serial == SPEC_SERIAL_NONE)
        fputs("serial: none\n", f);
    if (s->clock == SPEC_CLOCK_LOCALTIME)
        fputs("clock: localtime\n", f);
}

int import_spec_text(const struct import *m, const char *name, char **out, struct error *e)
{
    size_t len;
    *out = NULL;
    FILE *f = open_memstream(out, &len);
    if (!f)
        return error_set(e, ERR_NOMEM, "out of memory for the spec");
    fprintf(f,
            "# The VM \"%s\". The keys: sosia.yaml(5), `sosia spec`. To change one:\n"
            "# sosia set %s KEY=VALUE, or sosia edit %s\n",
            name, name, name);
    put_spec(f, &m->spec);
    bool failed = ferror(f);
    failed |= fclose(f) != 0;
    if (!failed)
        return 0;
    free(*out);
    *out = NULL;
    return error_set(e, ERR_NOMEM, "out of memory for the spec");
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

void import_name(const char *title, char out[IMPORT_NAME])
{
    size_t n = 0;
    for (; *title && n < IMPORT_NAME - 1; title++)
        if (is_alnum(*title) || (n && strchr("._-", *title)))
            out[n++] = *title;
        else if (n && out[n - 1] != '-')
            out[n++] = '-';
    while (n && !is_alnum(out[n - 1]))
        n--;
    out[n] = 0;
}

bool import_number(const char *text, uint64_t *n)
{
    char *end;
    if (!text || text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *n = strtoull(text, &end, 10);
    return !*end && !errno;
}
