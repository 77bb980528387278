/* image.c - the images of the crash test: making them, and looking at them after a crash. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/create.h"
#include "block/format/formats.h"
#include "crash.h"
#include "storage.h"

#define BASE_SIZE (2 * MIB + 512) /* smaller than the disk */

const struct kind kinds[] = {
    {.name = "qcow2", .format = "qcow2"},
    {.name = "qcow2, clusters of 512, refcounts of 64 bits, over raw",
     .format = "qcow2",
     .option = {"cluster_size=512", "refcount_bits=64"},
     .base = "raw"},
    {.name = "qcow2 of version 2, clusters of 4K, over qcow2",
     .format = "qcow2",
     .option = {"cluster_size=4096", "version=2"},
     .base = "qcow2"},
    {.name = "qcow2 with subclusters, zstd, over qcow2",
     .format = "qcow2",
     .option = {"cluster_size=32k", "extended_l2=on", "compression_type=zstd"},
     .base = "qcow2"},
    {.name = "qcow2 with lazy refcounts, clusters of 4K",
     .format = "qcow2",
     .option = {"cluster_size=4096", "lazy_refcounts=on"},
     .lazy = true},
    {.name = "qcow2 with lazy refcounts of 1 bit, subclusters, over raw",
     .format = "qcow2",
     .option = {"cluster_size=16k", "lazy_refcounts=on", "refcount_bits=1", "extended_l2=on"},
     .base = "raw",
     .lazy = true},
    {.name = "qcow2, clusters of 2M, refcounts of 2 bits",
     .format = "qcow2",
     .option = {"cluster_size=2M", "refcount_bits=2"}},
    {.name = "qcow2 with a data file, clusters of 4K, over raw",
     .format = "qcow2",
     .option = {"cluster_size=4096", "data_file=data"},
     .base = "raw",
     .data_file = true},
    {.name = "qcow2 with a raw data file, refcounts of 8 bits",
     .format = "qcow2",
     .option = {"data_file=data", "data_file_raw=on", "refcount_bits=8"},
     .data_file = true},
    {.name = "qcow2 with all tables made at once",
     .format = "qcow2",
     .option = {"cluster_size=4096", "preallocation=metadata"}},
    {.name = "vdi", .format = "vdi", .fixed = true},
    {.name = "raw", .format = "raw"},
};
const unsigned nkinds = ARRAY_LEN(kinds);

struct rig rig;

uint64_t rig_rnd(uint64_t n)
{
    rig.rng ^= rig.rng << 13;
    rig.rng ^= rig.rng >> 7;
    rig.rng ^= rig.rng << 17;
    return (rig.rng >> 11) % n;
}

const char *rig_path(const char *name, char out[192])
{
    snprintf(out, 192, "%s/%s", rig.folder, name);
    return out;
}

const char *rig_top(void)
{
    return rig.layered ? "top" : "disk";
}

/* Its format: that of the kind, but overlays are qcow2 over anything. */
static const char *format_of(const char *name)
{
    return !strcmp(name, "base")   ? rig.kind->base
           : !strcmp(name, "disk") ? rig.kind->format
                                   : "qcow2";
}

static int make(const char *name, uint64_t size, const char *backing, const char *const *option)
{
    char path[192];
    struct output out = {0};
    struct error e = {0};
    struct image_create c = {.format = format_find(format_of(name)),
                             .size = size,
                             .backing = backing,
                             .backing_format = backing ? format_of(backing) : NULL,
                             .option = option};
    while (option && c.noptions < MAX_KIND_OPTIONS && option[c.noptions])
        c.noptions++;
    int rc = image_create(&out, rig_path(name, path), &c, &e);
    if (!rc)
        rc = output_commit(&out, &e);
    if (rc && !storage_is_cut())
        crash_fail("%s cannot be made: %s", name, e.msg);
    return rc;
}

static struct node *open_it(const char *name, bool check)
{
    char path[192];
    struct error e = {0};
    struct node *n = NULL;
    struct image_options o = {.format = format_of(name), .check = check};
    int rc = image_open(rig_path(name, path), &o, &n, &e);
    if (rc)
        crash_fail("%s cannot be opened: %s", name, e.msg);
    return n;
}

void rig_open(void)
{
    rig.node = open_it(rig_top(), false);
}

void rig_close(void)
{
    node_close(rig.node);
    rig.node = NULL;
}

static void fill_base(void)
{
    struct node *n = open_it("base", false);
    for (uint64_t i = 0; i < BASE_SIZE / SECTOR; i++) {
        rig.m->sector[i].durable = ++rig.m->stamp;
        uint32_t *buf = model_fill(1, rig.m->stamp);
        int rc = node_write(n, buf, SECTOR, i * SECTOR, 0);
        free(buf);
        if (rc)
            crash_fail("the base cannot be written: %d", rc);
    }
    node_close(n);
}

void rig_create(const struct kind *k)
{
    static const char *const names[] = {"top", "disk", "base", "data"};
    char path[192];
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unlink(rig_path(names[i], path));
    rig.kind = k;
    rig.layered = false;
    model_reset(rig.m, DISK_SIZE);
    if (k->base) {
        make("base", BASE_SIZE, NULL, NULL);
        fill_base();
    }
    make("disk", DISK_SIZE, k->base ? "base" : NULL, k->option);
}

int rig_overlay(void)
{
    /* Of the same kind where that can be, without what only one image of a folder can have. */
    bool same = !strcmp(rig.kind->format, "qcow2") && !rig.kind->data_file &&
                !strstr(rig.kind->name, "all tables");
    int rc = make("top", 0, "disk", same ? rig.kind->option : NULL);
    rig.layered |= !rc;
    return rc;
}

void rig_remove_top(void)
{
    char path[192];
    unlink(rig_path("top", path));
    rig.layered = false;
}

void rig_sweep(void)
{
    char path[192 + 256];
    DIR *d = opendir(rig.folder);
    for (struct dirent *f; d && (f = readdir(d));)
        if (f->d_name[0] == '.' && strstr(f->d_name, ".part")) {
            snprintf(path, sizeof path, "%s/%s", rig.folder, f->d_name);
            unlink(path);
        }
    if (d)
        closedir(d);
}

/* ---- afterwards ---- */

/* Whether places that were taken and are not used are all that QEMU found in a vdi image. It calls
 * them an error: the header's count, which is written before the map, says more than the map. */
static bool only_leaks(const char *format)
{
    char path[192], line[256];
    unsigned long used, counted;
    bool only = !strcmp(format, "vdi");
    FILE *f = fopen(rig_path("out", path), "r");
    while (f && only && fgets(line, sizeof line, f))
        only = strncmp(line, "ERROR:", 6) ||
               (sscanf(line, "ERROR: allocated blocks mismatch, is %lu, should be %lu", &used,
                       &counted) == 2 &&
                used < counted);
    if (!f)
        return false;
    fclose(f);
    return only;
}

/* QEMU's opinion: 0 is clean, 3 leaks. */
static void ask_qemu(const char *name, bool leaks_allowed)
{
    char cmd[512];
    const char *format = format_of(name);
    if (!rig.qemu || !strcmp(format, "raw"))
        return;
    snprintf(cmd, sizeof cmd, "cd %s && exec qemu-img check -q -f %s %s >out 2>&1", rig.folder,
             format, name);
    int rc = WEXITSTATUS(system(cmd));
    if (rc == 0 || (leaks_allowed && (rc == 3 || (rc == 2 && only_leaks(format)))))
        return;
    snprintf(cmd, sizeof cmd, "head -20 %s/out | sed 's/^/# /'", rig.folder);
    (void)!system(cmd);
    crash_fail("qemu-img check %s: exit %d", name, rc);
}

static void say(void *ctx, const char *line)
{
    printf("# %s\n", line);
}

static void check_one(const char *name, bool ask, bool repair)
{
    const struct format *f = format_find(format_of(name));
    struct format_check c = {.say = say};
    struct error e = {0};
    bool lazy = rig.kind->lazy && strcmp(name, "base");
    struct node *n = open_it(name, !lazy); /* waits for what a killed process left to the kernel */
    if (ask && !lazy) {
        node_close(n);
        ask_qemu(name, true);
        n = open_it(name, true);
    }
    if (f->check && f->check(n, repair ? FORMAT_FIX_LEAKS : 0, &c, &e))
        crash_fail("%s cannot be checked: %s", name, e.msg);
    if (c.errors)
        crash_fail("%s has %llu errors", name, (unsigned long long)c.errors);
    node_close(n);
    if (ask && f->check && (repair || lazy))
        ask_qemu(name, false);
}

void rig_verify(void)
{
    char why[160];
    bool ask = rig.often || rig_rnd(4) == 0, repair = rig_rnd(4) == 0;
    if (rig.kind->base)
        check_one("base", ask, repair);
    check_one("disk", ask, repair);
    if (rig.layered)
        check_one("top", ask, repair);
    rig_open();
    if (!model_learn(rig.m, rig.node, false, why))
        crash_fail("%s", why);
    rig_close();
}
