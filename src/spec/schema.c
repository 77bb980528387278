/* schema.c - the keys of a spec file, and what follows from the table alone. */
#include "spec/schema.h"

#include <stdio.h>
#include <string.h>

#include "base/suggest.h"

static const char *const engine_words[] = {"auto", "interp", "jit", "lockstep", NULL};
static const char *const firmware_words[] = {"auto", "seabios", "none", NULL};
static const char *const bus_words[] = {"ide", "virtio", "ahci", "nvme", "scsi", NULL};
static const char *const media_words[] = {"disk", "cdrom", NULL};
static const char *const raid_words[] = {"none", "0", "1", NULL};
static const char *const backing_words[] = {"inside", "anywhere", NULL};
static const char *const block_size_words[] = {"512", "4096", NULL};
static const char *const boot_words[] = {"disk", "cdrom", "floppy", NULL};
static const char *const serial_words[] = {"terminal", "file", "none", NULL};
static const char *const console_words[] = {"none", "terminal", NULL};
static const char *const clock_words[] = {"utc", "localtime", NULL};

const char *const spec_format_words[] = {"auto", "raw", "qcow2", "vmdk", "vdi", NULL};

#define FIELD(f) offsetof(struct spec, f)

const struct spec_key spec_schema[] = {
    {.name = "name",
     .parse = spec_parse_name,
     .offset = FIELD(name),
     .form = "NAME",
     .help = "name of the VM: letters, digits, '.', '_' and '-'",
     .min = 1,
     .max = 63},
    {.name = "engine",
     .parse = spec_parse_word,
     .offset = FIELD(engine),
     .form = "auto | interp | jit | lockstep",
     .def = "auto",
     .help = "how guest instructions are executed",
     .words = engine_words},
    {.name = "cpus",
     .parse = spec_parse_count,
     .offset = FIELD(cpus),
     .form = "NUMBER",
     .def = "1",
     .hardware = true,
     .help = "virtual CPUs, 1 to 32",
     .min = 1,
     .max = 32},
    {.name = "memory",
     .parse = spec_parse_size,
     .offset = FIELD(memory),
     .form = "SIZE",
     .def = "512M",
     .hardware = true,
     .help = "RAM: a number and K, M, G or T (powers of 1024), a multiple of 1M",
     .min = MIB,
     .max = 1024 * GIB},
    {.name = "boot",
     .parse = spec_parse_boot,
     .form = "[disk, cdrom, floppy]",
     .def = "[disk, cdrom, floppy]",
     .help = "what the firmware tries, in order; one word or a list",
     .words = boot_words},
    {.name = "firmware",
     .parse = spec_parse_word,
     .offset = FIELD(firmware),
     .form = "auto | seabios | none",
     .def = "auto",
     .hardware = true,
     .help = "auto: none with a kernel, else seabios",
     .words = firmware_words},
    {.name = "kernel",
     .parse = spec_parse_path,
     .offset = FIELD(kernel),
     .form = "PATH",
     .hardware = true,
     .help = "Linux (bzImage) or multiboot kernel to start without firmware"},
    {.name = "initrd",
     .parse = spec_parse_path,
     .offset = FIELD(initrd),
     .form = "PATH",
     .help = "initial RAM disk for the kernel; its module with multiboot"},
    {.name = "cmdline",
     .parse = spec_parse_text,
     .offset = FIELD(cmdline),
     .form = "TEXT",
     .help = "the kernel's command line",
     .max = 2047}, /* the x86 boot protocol's cmdline_size of every kernel since 2.6.x */
    {.name = "disks",
     .parse = spec_parse_disks,
     .form = "[PATH | {file: PATH, bus: virtio | ide, readonly: true, ...} | {raid: 1, members: "
             "[PATH, ...], ...}, ...]",
     .help = "disk images or block devices; a plain path is a writable virtio disk"},
    {.name = "cdrom",
     .parse = spec_parse_path,
     .offset = FIELD(cdrom),
     .form = "PATH",
     .hardware = true,
     .help = "ISO image in an IDE CD-ROM drive"},
    {.name = "floppy",
     .parse = spec_parse_path,
     .offset = FIELD(floppy),
     .form = "PATH",
     .hardware = true,
     .help = "floppy image in drive A"},
    {.name = "serial",
     .parse = spec_parse_serial,
     .offset = FIELD(serial),
     .form = "terminal | none | {file: PATH}",
     .def = "terminal",
     .help = "where the first serial port (ttyS0, COM1) leads",
     .words = serial_words},
    {.name = "console",
     .parse = spec_parse_word,
     .offset = FIELD(console),
     .form = "none | terminal",
     .def = "none",
     .hardware = true,
     .help = "where the virtio console (hvc0) leads; for terminal, serial must be another",
     .words = console_words},
    {.name = "clock",
     .parse = spec_parse_word,
     .offset = FIELD(clock),
     .form = "utc | localtime",
     .def = "utc",
     .help = "what the battery-backed clock shows",
     .words = clock_words},
    {.name = "testdev",
     .parse = spec_parse_bool,
     .offset = FIELD(testdev),
     .form = "true | false",
     .def = "false",
     .hardware = true,
     .help = "the device of test kernels: an end with a status, interrupt lines, memory"},
    {.name = NULL},
};

const struct spec_key spec_disk_schema[] = {
    {.name = "file",
     .parse = spec_parse_path,
     .offset = offsetof(struct spec_disk, file),
     .form = "PATH | URL",
     .help = "the image, or nbd://HOST/EXPORT; required, or `raid` and `members`"},
    {.name = "raid",
     .parse = spec_parse_word,
     .offset = offsetof(struct spec_disk, raid),
     .form = "none | 0 | 1",
     .def = "none",
     .help = "an array of images: 0 striped, 1 mirrored",
     .words = raid_words},
    {.name = "members",
     .parse = spec_parse_members,
     .offset = offsetof(struct spec_disk, members),
     .form = "[PATH | URL, ...]",
     .help = "the images of the array"},
    {.name = "degraded",
     .parse = spec_parse_bool,
     .offset = offsetof(struct spec_disk, degraded),
     .form = "true | false",
     .def = "false",
     .help = "start a mirror without a member that was in sync"},
    {.name = "bus",
     .parse = spec_parse_word,
     .offset = offsetof(struct spec_disk, bus),
     .form = "virtio | ide | ahci | nvme | scsi",
     .def = "virtio",
     .hardware = true,
     .help = "what the guest sees the disk on",
     .words = bus_words},
    {.name = "media",
     .parse = spec_parse_word,
     .offset = offsetof(struct spec_disk, media),
     .form = "disk | cdrom",
     .def = "disk",
     .hardware = true,
     .help = "cdrom: a CD-ROM drive with this ISO image",
     .words = media_words},
    {.name = "readonly",
     .parse = spec_parse_bool,
     .offset = offsetof(struct spec_disk, readonly),
     .form = "true | false",
     .def = "false",
     .hardware = true,
     .help = "the guest cannot write"},
    {.name = "format",
     .parse = spec_parse_word,
     .offset = offsetof(struct spec_disk, format),
     .form = "auto | raw | qcow2 | vmdk | vdi",
     .def = "auto",
     .help = "the image's format; auto: found out from its first bytes",
     .words = spec_format_words},
    {.name = "backing",
     .parse = spec_parse_word,
     .offset = offsetof(struct spec_disk, backing),
     .form = "inside | anywhere",
     .def = "inside",
     .help = "where the files may lie that the image names: in its folder, or anywhere",
     .words = backing_words},
    {.name = "copyonread",
     .parse = spec_parse_bool,
     .offset = offsetof(struct spec_disk, copy_on_read),
     .form = "true | false",
     .def = "false",
     .help = "what is read from a backing file is copied into the image"},
    {.name = "iops",
     .parse = spec_parse_count,
     .offset = offsetof(struct spec_disk, iops),
     .form = "NUMBER",
     .help = "operations per second at most",
     .min = 1,
     .max = 10000000},
    {.name = "bandwidth",
     .parse = spec_parse_size,
     .offset = offsetof(struct spec_disk, bandwidth),
     .form = "SIZE",
     .help = "bytes per second at most, read and written together; a multiple of 1M",
     .min = MIB,
     .max = 1024 * GIB},
    {.name = "serial",
     .parse = spec_parse_text,
     .offset = offsetof(struct spec_disk, serial),
     .form = "TEXT",
     .hardware = true,
     .help = "the serial number that the guest sees, up to 20 characters",
     .min = 1,
     .max = SPEC_MAX_SERIAL},
    {.name = "blocksize",
     .parse = spec_parse_word,
     .offset = offsetof(struct spec_disk, block_size),
     .form = "512 | 4096",
     .def = "512",
     .hardware = true,
     .help = "bytes in a block as the guest addresses it",
     .words = block_size_words},
    {.name = NULL},
};

const struct spec_key spec_serial_schema[] = {
    {.name = "file",
     .parse = spec_parse_path,
     .offset = FIELD(serial_file),
     .form = "PATH",
     .help = "created or emptied at start, then gets all output; required"},
    {.name = NULL},
};

_Static_assert(ARRAY_LEN(spec_schema) == SPEC_SCHEMA_KEYS + 1, "SPEC_SCHEMA_KEYS counts the table");

int spec_key_find(const struct spec_key *table, const char *name)
{
    for (int i = 0; table[i].name; i++)
        if (strcmp(table[i].name, name) == 0)
            return i;
    return -1;
}

static const char *nth_key(const void *list, size_t i)
{
    return ((const struct spec_key *)list)[i].name;
}

int spec_key_unknown(const struct spec_key *table, const char *name, struct spec_mark at,
                     struct error *e)
{
    char quoted[SPEC_QUOTE + 4], hint[96];
    const char *near = suggest(name, nth_key, table);

    spec_quote(quoted, name, strlen(name));
    if (near)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", near);
    else
        snprintf(hint, sizeof hint, "`sosia spec` lists the keys");
    return spec_error(e, at, hint, "unknown key \"%s\"", quoted);
}

int spec_parse_map(const struct spec_parse *p, const struct spec_key *table,
                   const struct spec_node *node, void *base, struct spec_mark *marks)
{
    uint32_t seen = 0; /* bit per table position; every table is shorter than 32 */

    for (size_t i = 0; i < node->nchild; i += 2) {
        const struct spec_node *key = &node->child[i], *value = &node->child[i + 1];
        if (key->kind != SPEC_NODE_TEXT)
            return spec_error(p->e, key->at, NULL, "a key must be a word, not %s",
                              spec_node_kind_name(key));
        int k = spec_key_find(table, key->text);
        if (k < 0)
            return spec_key_unknown(table, key->text, key->at, p->e);
        if (seen & 1u << k)
            return spec_error(p->e, key->at, NULL, "\"%s\" is given twice", table[k].name);
        seen |= 1u << k;
        if (value->kind == SPEC_NODE_NULL)
            return spec_error(p->e, value->at, "leave the key out to get its default",
                              "\"%s\" has no value", table[k].name);
        int r = table[k].parse(p, &table[k], value, (char *)base + table[k].offset);
        if (r < 0)
            return r;
        if (marks)
            marks[k] = value->at;
    }
    return 0;
}

void spec_print_help(FILE *out)
{
    fprintf(out, "Keys of a spec file (YAML), all optional; sosia.yaml(5) tells more:\n");
    for (const struct spec_key *k = spec_schema; k->name; k++) {
        fprintf(out, "\n  %s: %s\n      %s", k->name, k->form, k->help);
        if (k->def)
            fprintf(out, " (default: %s)", k->def);
        fputc('\n', out);
    }
}

void spec_print_defaults(FILE *out)
{
    fprintf(out, "# Every key of a Sosia spec file with its default; see sosia.yaml(5).\n");
    for (const struct spec_key *k = spec_schema; k->name; k++) {
        fprintf(out, "\n# %s\n", k->help);
        if (k->def)
            fprintf(out, "%s: %s\n", k->name, k->def);
        else
            fprintf(out, "# %s: %s\n", k->name, k->form);
    }
}
