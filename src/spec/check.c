/* check.c - spec_check(): what only this host, the file system and a look at several keys can tell.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/url.h"
#include "spec/schema.h"

#define IDE_DRIVES  4 /* two channels of two drives (PIIX3 datasheet, IDE interface) */
#define AHCI_DRIVES 6

/* Where the key is written; an empty mark if it is not. */
static struct spec_mark mark_of(const struct spec *s, const char *key)
{
    int k = spec_key_find(spec_schema, key);
    return s->origin && k >= 0 ? s->origin->key[k] : (struct spec_mark){0};
}

static int check_memory(const struct spec *s, struct error *e)
{
    struct sysinfo host;
    char want[32];

    if (sysinfo(&host) < 0)
        return 0; /* not known: the allocation will tell */
    uint64_t have = (uint64_t)host.totalram * host.mem_unit;
    if (s->memory <= have)
        return 0;
    return spec_error(e, mark_of(s, "memory"), NULL,
                      "\"memory\" is %s, but this host has only %llu MiB of RAM",
                      spec_format_size(want, s->memory), (unsigned long long)(have / MIB));
}

/* A file that is there, may be opened for `mode` (access(2)), and holds bytes. */
static int check_file(const char *path, int mode, bool device_ok, struct spec_mark at,
                      struct error *e)
{
    char quoted[SPEC_QUOTE + 4];
    struct stat st;

    if (!path)
        return 0;
    spec_quote(quoted, path, strlen(path));
    if (stat(path, &st) < 0 || access(path, R_OK) < 0)
        return spec_error(e, at, NULL, "cannot read %s: %s", quoted, strerror(errno));
    if ((mode & W_OK) && access(path, W_OK) < 0)
        return spec_error(e, at, "to use it without writing: {file: PATH, readonly: true}",
                          "cannot write %s: %s", quoted, strerror(errno));
    if (!S_ISREG(st.st_mode) && !(device_ok && S_ISBLK(st.st_mode)))
        return spec_error(e, at, NULL, "%s is not a file%s", quoted,
                          device_ok ? " or block device" : "");
    if (S_ISREG(st.st_mode) && st.st_size == 0)
        return spec_error(e, at, NULL, "%s is empty", quoted);
    return 0;
}

static int check_files(const struct spec *s, struct error *e)
{
    int r;

    if ((r = check_file(s->kernel, R_OK, false, mark_of(s, "kernel"), e)) < 0 ||
        (r = check_file(s->initrd, R_OK, false, mark_of(s, "initrd"), e)) < 0 ||
        (r = check_file(s->cdrom, R_OK, true, mark_of(s, "cdrom"), e)) < 0 ||
        (r = check_file(s->floppy, R_OK, true, mark_of(s, "floppy"), e)) < 0)
        return r;
    for (unsigned i = 0; i < s->ndisk; i++) {
        struct spec_mark at = s->origin ? s->origin->disk[i] : (struct spec_mark){0};
        if (s->disk[i].file && url_is_remote(s->disk[i].file))
            continue; /* connecting to it will tell */
        if (s->disk[i].raid != SPEC_RAID_NONE)
            continue; /* some members may be missing */
        r = check_file(s->disk[i].file, s->disk[i].readonly ? R_OK : R_OK | W_OK, true, at, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What disks can be and have on each bus. */
static const struct {
    const char *name;
    bool cdroms, large_blocks;
    unsigned max; /* 0: as many as there may be */
} buses[] = {
    [SPEC_BUS_IDE] = {"IDE", true, false, IDE_DRIVES},
    [SPEC_BUS_VIRTIO] = {"virtio", false, true, 0},
    [SPEC_BUS_AHCI] = {"AHCI", true, false, AHCI_DRIVES},
    [SPEC_BUS_NVME] = {"NVMe", false, true, 0},
    [SPEC_BUS_SCSI] = {"SCSI", true, true, 0},
};

static int check_disks(const struct spec *s, struct error *e)
{
    unsigned count[ARRAY_LEN(buses)] = {[SPEC_BUS_IDE] = s->cdrom ? 1 : 0};

    for (unsigned i = 0; i < s->ndisk; i++) {
        struct spec_mark at = s->origin ? s->origin->disk[i] : (struct spec_mark){0};
        const struct spec_disk *d = &s->disk[i];
        const char *bus = buses[d->bus].name;
        bool cdrom = d->media == SPEC_MEDIA_CDROM;
        if (d->block_size != SPEC_BLOCK_512 && (cdrom || !buses[d->bus].large_blocks))
            return spec_error(e, at, "bus: virtio", "%s on %s have blocks of %s bytes",
                              cdrom ? "CD-ROMs" : "disks", bus, cdrom ? "2048" : "512");
        if (cdrom && !buses[d->bus].cdroms)
            return spec_error(e, at, "bus: ahci", "there are no CD-ROM drives on %s", bus);
        if (++count[d->bus] > buses[d->bus].max && buses[d->bus].max)
            return spec_error(e, at, NULL, "more than %u drives on %s%s", buses[d->bus].max, bus,
                              d->bus == SPEC_BUS_IDE && s->cdrom ? ", the CD-ROM included" : "");
    }
    return 0;
}

static int check_combinations(const struct spec *s, struct error *e)
{
    if (s->initrd && !s->kernel)
        return spec_error(e, mark_of(s, "initrd"), NULL, "\"initrd\" needs \"kernel\"");
    if (s->cmdline && !s->kernel)
        return spec_error(e, mark_of(s, "cmdline"), NULL, "\"cmdline\" needs \"kernel\"");
    if (s->firmware == SPEC_FIRMWARE_NONE && !s->kernel)
        return spec_error(e, mark_of(s, "firmware"), NULL,
                          "without firmware nothing starts but a \"kernel\"");
    if (s->firmware == SPEC_FIRMWARE_SEABIOS && s->kernel)
        return spec_error(e, mark_of(s, "firmware"), NULL,
                          "seabios starts a boot sector; leave out \"firmware\" or \"kernel\"");
    if (s->console == SPEC_CONSOLE_TERMINAL && s->serial == SPEC_SERIAL_TERMINAL)
        return spec_error(e, mark_of(s, "console"), "serial: none, or: serial: {file: PATH}",
                          "\"console\" and \"serial\" cannot both be the terminal");
    return 0;
}

int spec_check(const struct spec *s, struct error *e)
{
    int r = check_combinations(s, e);
    if (r == 0)
        r = check_disks(s, e);
    if (r == 0)
        r = check_memory(s, e);
    return r == 0 ? check_files(s, e) : r;
}
