/* power.c - the power fails at a random moment of what is done with images. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/io/file.h"
#include "block/rewrite.h"
#include "crash.h"
#include "storage.h"

#define OPS 60

static void power_off(void)
{
    storage_cut();
    rig.cuts++;
}

static void power_on(void)
{
    storage_restore();
    rig_sweep();
    rig_verify();
}

/* A short or a long while. */
static uint64_t moment(void)
{
    return rig_rnd(rig_rnd(2) ? 400 : 60);
}

static void power_off_and_on(void)
{
    power_off();
    rig_close();
    power_on();
}

void power_writes(const struct kind *k, unsigned times)
{
    rig_create(k);
    for (unsigned i = 0; i < times; i++) {
        storage_record(moment(), rig_rnd(1u << 30));
        rig_open();
        life_run(OPS);
        power_off_and_on();
    }
}

void power_resizes(const struct kind *k, unsigned times)
{
    rig_create(k);
    for (unsigned i = 0; i < times; i++) {
        rig_open();
        life_run(10);
        if (life_flush())
            crash_fail("the image cannot be flushed");
        storage_record(rig_rnd(40), rig_rnd(1u << 30));
        while (!life_resize() && !life_write(rig_rnd(MIB / 2 / SECTOR), 9, 0))
            continue;
        power_off_and_on();
    }
}

static struct model *copy_of_model(void)
{
    struct model *copy = malloc(sizeof *copy);
    if (!copy)
        crash_fail("out of memory");
    *copy = *rig.m;
    return copy;
}

/* A snapshot: an overlay is made and written to, the image below stays as it was. */
void power_overlays(const struct kind *k, unsigned times)
{
    rig_create(k);
    rig_open();
    life_run(OPS);
    rig_close();
    rig_verify();
    for (unsigned i = 0; i < times; i++) {
        struct model *below = copy_of_model();
        storage_record(rig_rnd(rig_rnd(2) ? 20 : 100), rig_rnd(1u << 30));
        bool made = rig_overlay() == 0;
        if (made && !storage_is_cut()) {
            rig_open();
            life_run(OPS / 4);
            power_off();
            rig_close();
        } else {
            power_off();
        }
        storage_restore();
        char path[192];
        bool there = access(rig_path("top", path), F_OK) == 0;
        if (made && !there)
            crash_fail("the new overlay is gone");
        rig.layered = there;
        rig_sweep();
        rig_verify();
        if (there)
            rig_remove_top();
        uint32_t stamp = rig.m->stamp;
        *rig.m = *below;
        rig.m->stamp = stamp;
        free(below);
        rig_verify();
    }
}

/* How many operations something takes, so that the power fails within it. */
static uint64_t within(uint64_t ops)
{
    return ops ? rig_rnd(ops + ops / 8 + 1) : STORAGE_NEVER;
}

/* Something to merge or to leave out: what is discarded, and zeroes. */
static void prepare(void)
{
    rig_open();
    life_run(OPS / 2);
    if (life_flush())
        crash_fail("the image cannot be flushed");
    rig_close();
}

typedef int rewriting(const char *path, struct rewrite *r, struct error *e);

static void rewrite(rewriting *what, uint64_t *ops)
{
    char path[192];
    struct error e = {0};
    struct rewrite r = {.image = {.format = rig.layered ? "qcow2" : rig.kind->format}};
    storage_record(within(*ops), rig_rnd(1u << 30));
    int rc = what(rig_path(rig_top(), path), &r, &e);
    if (rc && !storage_is_cut())
        crash_fail("it cannot be rewritten: %s", e.msg);
    free(r.backing_path);
    if (!*ops)
        *ops = storage_ops();
    power_off();
    power_on();
}

void power_merges(const struct kind *k, unsigned times)
{
    uint64_t ops = 0;
    rig_create(k);
    prepare();
    if (rig_overlay())
        crash_fail("no overlay");
    for (unsigned i = 0; i < times; i++) {
        if (rig_rnd(3) || !i) /* else it goes on with what was interrupted */
            prepare();
        rewrite(image_commit, &ops);
    }
}

void power_compacts(const struct kind *k, unsigned times)
{
    uint64_t ops = 0;
    rig_create(k);
    if (k->data_file) /* not possible, and said so; an overlay over it can be compacted */
        if (rig_overlay())
            crash_fail("no overlay");
    for (unsigned i = 0; i < times; i++) {
        prepare();
        rewrite(image_compact, &ops);
    }
}

/* A short life in which L1, refcount table and refcount blocks all have to grow. */
static int short_life(void)
{
    int rc = life_write(0, 200, 0);
    if (!rc)
        rc = life_flush();
    if (!rc)
        rc = life_write(800, 300, 0);
    if (!rc)
        rc = life_discard(0, 100);
    if (!rc)
        rc = life_flush();
    if (!rc)
        rc = life_write(300, 130, NODE_FUA);
    if (!rc)
        rc = life_resize_to(MAX_DISK);
    if (!rc)
        rc = life_write(MAX_SECTORS - 1000, 100, 0);
    return rc ? rc : life_flush();
}

/* The power fails at each operation in turn, until the life is over before it does. */
void power_every_moment(void)
{
    bool over = false;
    for (unsigned op = 0; !over; op++) {
        rig_create(&kinds[1]);
        rig_open();
        /* Little is missing until the refcount table is full. */
        if (life_write(2400, 3700, 0) || life_flush())
            crash_fail("the image cannot be written");
        storage_record(op, rig_rnd(1u << 30));
        over = short_life() == 0;
        power_off_and_on();
    }
}

/* The storage itself: what is not flushed may be lost, what is flushed is not. */
void power_self_test(void)
{
    char path[192];
    uint8_t old[4 * SECTOR], now[4 * SECTOR], seen[4 * SECTOR];
    unsigned lost = 0, kept = 0, torn = 0;
    memset(old, 1, sizeof old);
    memset(now, 2, sizeof now);
    for (unsigned i = 0; i < 100; i++) {
        struct node *n = NULL;
        unlink(rig_path("self", path));
        if (file_open(path, &(struct file_options){.create = true}, &n, NULL))
            crash_fail("no file");
        storage_record(STORAGE_NEVER, i);
        int rc = node_write(n, old, sizeof old, 0, 0);
        rc = rc ? rc : node_flush(n);
        rc = rc ? rc : node_write(n, now, sizeof now, 0, 0);
        storage_cut();
        if (rc || node_write(n, now, sizeof now, 0, 0) == 0 || node_flush(n) == 0)
            crash_fail("the storage: %d, or it works without power", rc);
        storage_restore();
        if (node_read(n, seen, sizeof seen, 0) || (seen[0] != 1 && seen[0] != 2))
            crash_fail("the storage lost what was flushed");
        lost += !memcmp(seen, old, sizeof old);
        kept += !memcmp(seen, now, sizeof now);
        torn += seen[0] != seen[SECTOR] || seen[0] != seen[2 * SECTOR];
        node_close(n);
    }
    if (!lost || !kept || !torn)
        crash_fail("of 100 writes %u were lost, %u kept, %u torn", lost, kept, torn);
    unlink(path);
}
