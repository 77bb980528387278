/*
 * spec.h - a VM as its spec file describes it, and the schema that the file is read by.
 *
 * The schema table in schema.c is the single source for the parser, `--help`, sosia.yaml(5) and
 * `sosia spec --defaults`. A parsed spec is typed and checked; paths are resolved relative to the
 * spec file's folder.
 */
#ifndef SOSIA_SPEC_SPEC_H
#define SOSIA_SPEC_SPEC_H

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"

enum spec_engine { SPEC_ENGINE_AUTO, SPEC_ENGINE_INTERP, SPEC_ENGINE_JIT, SPEC_ENGINE_LOCKSTEP };
enum spec_firmware { SPEC_FIRMWARE_AUTO, SPEC_FIRMWARE_SEABIOS, SPEC_FIRMWARE_NONE };
enum spec_bus { SPEC_BUS_IDE, SPEC_BUS_VIRTIO, SPEC_BUS_AHCI, SPEC_BUS_NVME, SPEC_BUS_SCSI };
enum spec_media { SPEC_MEDIA_DISK, SPEC_MEDIA_CDROM };
enum spec_block_size { SPEC_BLOCK_512, SPEC_BLOCK_4096 };
enum spec_boot { SPEC_BOOT_DISK, SPEC_BOOT_CDROM, SPEC_BOOT_FLOPPY };
enum spec_serial { SPEC_SERIAL_TERMINAL, SPEC_SERIAL_FILE, SPEC_SERIAL_NONE };
enum spec_console { SPEC_CONSOLE_NONE, SPEC_CONSOLE_TERMINAL };
enum spec_clock { SPEC_CLOCK_UTC, SPEC_CLOCK_LOCALTIME };

enum spec_raid { SPEC_RAID_NONE, SPEC_RAID_0, SPEC_RAID_1 };
enum spec_backing { SPEC_BACKING_INSIDE, SPEC_BACKING_ANYWHERE };

#define SPEC_MAX_DISKS   16
#define SPEC_MAX_MEMBERS 16 /* of an array */
#define SPEC_MAX_BOOT    3
#define SPEC_MAX_SERIAL  20 /* what every kind of disk has room for */

struct spec_members {
    char *path[SPEC_MAX_MEMBERS]; /* resolved */
    unsigned n;
};

struct spec_disk {
    char *file; /* resolved path; of an array a name for messages */
    enum spec_raid raid;
    struct spec_members members;
    bool degraded; /* do without a member that may have what the others lack */
    enum spec_bus bus;
    enum spec_media media;
    bool readonly;   /* so is every CD-ROM */
    unsigned format; /* position in spec_format_words */
    enum spec_backing backing;
    bool copy_on_read;
    unsigned iops;      /* at most, per second; 0: any number */
    uint64_t bandwidth; /* bytes per second at most; 0: any number */
    char *serial;       /* as the guest sees it; NULL: made up */
    enum spec_block_size block_size;
};

struct spec { /* strings are owned; NULL: not given */
    char *name;
    enum spec_engine engine;
    unsigned cpus;   /* 1..32 */
    uint64_t memory; /* bytes, multiple of 1 MiB */
    enum spec_boot boot[SPEC_MAX_BOOT];
    unsigned nboot;
    enum spec_firmware firmware;
    char *kernel, *initrd, *cmdline;
    struct spec_disk disk[SPEC_MAX_DISKS];
    unsigned ndisk;
    char *cdrom, *floppy;
    enum spec_serial serial;
    char *serial_file; /* with SPEC_SERIAL_FILE */
    enum spec_console console;
    enum spec_clock clock;
    bool testdev;
    struct spec_origin *origin; /* where each value is written, for spec_check(); NULL: by hand */
};

/* Reads a spec file and applies `nset` overrides "key=value" (an override error's `where` is "--set
 * key=value"). On failure e->where is "file:line:column" and e->msg holds the message, the source
 * line, a caret and a hint, on lines of their own. ERR_SPEC, ERR_IO. */
int spec_load(const char *path, const char *const *set, unsigned nset, struct spec *s,
              struct error *e);
/* The same for `len` bytes of text that are to become the file at `path`. */
int spec_load_text(const char *path, const char *text, size_t len, struct spec *s, struct error *e);
/* Checks what the parser cannot: files exist and are readable, memory fits this host, combinations
 * make sense. Errors as spec_load()'s, pointing at the value if it is known where it is written.
 * ERR_SPEC. */
int spec_check(const struct spec *s, struct error *e);
/* What the guest sees of the machine, a line "key: value" for each key that says it, of disks
 * "disks[0].bus: virtio". Of files only whether they are given. Allocated; NULL: out of memory. */
char *spec_hardware(const struct spec *s);
void spec_fini(struct spec *s); /* a failed spec_load() leaves nothing to free */

/* "auto", then the names of image formats; NULL at the end. */
extern const char *const spec_format_words[];

/* The keys with their forms and help, for people. */
void spec_print_help(FILE *out);
/* A spec file that says what an empty one means, with comments. */
void spec_print_defaults(FILE *out);

#endif
