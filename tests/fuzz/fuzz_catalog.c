/*
 * fuzz_catalog.c - the tool's files in the folder of a VM that somebody else filled: read, and
 * worked on by the verbs that trust them most: snapshots taken, restored and removed, clones.
 *
 * Input: texts, ended by lines "%%": state.json, run.json, vm.yaml, snapshot.json of the snapshot
 * "a", the same of a folder that a killed verb left; then letters, each a step of work().
 *
 * What is outside the VM's folder stays as it is; nothing fails without saying why.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/create.h"
#include "catalog/clone.h"
#include "catalog/layer.h"
#include "catalog/launch.h"
#include "catalog/snapshot.h"
#include "catalog/status.h"
#include "catalog/store.h"
#include "catalog/vmspec.h"
#include "fuzz.h"

#define CANARY "not the VM's"
#define STEPS  12

static char home[64];

static const char *const files[] = {VM_STATE_FILE, VM_RUN_FILE, VM_SPEC,
                                    VM_SNAPSHOTS "/a/" SNAPSHOT_FILE,
                                    VM_SNAPSHOTS "/" SNAPSHOT_DRAFT "b/" SNAPSHOT_FILE};

static void need(int rc, const struct error *e)
{
    FUZZ_REQUIRE(rc == 0 || (rc < 0 && e->code && e->msg[0]));
}

/* ---- the folder ---- */

static int folder(int dir, const char *name)
{
    FUZZ_REQUIRE(mkdirat(dir, name, 0700) == 0);
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_REQUIRE(fd >= 0);
    return fd;
}

static void put(int dir, const char *name, const char *text, size_t len)
{
    struct error e;
    FUZZ_REQUIRE(store_write_new(dir, name, text, len, &e) == 0);
}

static void put_image(const char *name, const char *backing)
{
    char path[200];
    struct error e;
    struct output out;
    struct image_create ic = {
        .format = format_find("qcow2"), .backing = backing, .size = backing ? 0 : 64 * KIB};
    snprintf(path, sizeof path, "%s/vms/web/disks/%s", home, name);
    FUZZ_REQUIRE(image_create(&out, path, &ic, &e) == 0 && output_commit(&out, &e) == 0);
}

/* The next text of the input. */
static size_t section(struct fuzz_in *in, const uint8_t **text)
{
    static const char mark[] = "\n%%\n";
    const uint8_t *end = in->left ? memmem(in->p, in->left, mark, sizeof mark - 1) : NULL;
    size_t n = fuzz_take(in, text, end ? (size_t)(end - in->p) + 1 : in->left);
    fuzz_take(in, &end, sizeof mark - 2);
    return n;
}

static void fill(struct fuzz_in *in)
{
    int top = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_REQUIRE(top >= 0);
    put(top, "outside", CANARY, strlen(CANARY));
    int vms = folder(top, "vms"), web = folder(vms, "web");
    int made[] = {folder(web, "disks"),
                  folder(web, "logs"),
                  folder(web, VM_SNAPSHOTS),
                  folder(web, VM_SNAPSHOTS "/a"),
                  folder(web, VM_SNAPSHOTS "/" SNAPSHOT_DRAFT "b"),
                  vms,
                  web,
                  top};
    put(web, "lock", "", 0);
    put(web, vm_state_files[0], "x", 1);
    put(web, vm_state_files[1], "x", 1);
    put(web, VM_SNAPSHOTS "/a/" SNAPSHOT_STATE, "x", 1);
    put(web, VM_SNAPSHOTS "/a/" VM_SPEC, "disks: [disks/disk0.qcow2]\n", 27);
    for (unsigned i = 0; i < ARRAY_LEN(files); i++) {
        const uint8_t *text;
        size_t n = section(in, &text);
        if (n > 1)
            put(web, files[i], (const char *)text, n);
    }
    put_image("layer-00000001-disk0.qcow2", NULL);
    put_image("layer-00000002-disk0.qcow2", "layer-00000001-disk0.qcow2");
    put_image("disk0.qcow2", "layer-00000002-disk0.qcow2");
    for (unsigned i = 0; i < ARRAY_LEN(made); i++)
        close(made[i]);
}

static void check_outside(void)
{
    struct error e;
    char *text;
    size_t len;
    int top = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_REQUIRE(store_read(top, "outside", 64, &text, &len, &e) == 0);
    FUZZ_REQUIRE(len == strlen(CANARY) && !memcmp(text, CANARY, len));
    free(text);
    close(top);
}

/* ---- what is done in it ---- */

static void look(const struct vm *vm)
{
    struct vm_status s;
    struct vm_state state;
    struct vm_names list;
    struct error e = {0};
    char current[VM_NAME_MAX + 1];
    vm_status_read(vm, &s);
    FUZZ_REQUIRE(s.run <= VM_SUSPENDED && memchr(s.reason, 0, sizeof s.reason));
    int rc = vm_state_load(vm->dir, &state, &e);
    need(rc, &e);
    if (!rc)
        vm_state_fini(&state);
    need(vm_layers_check(vm, &e), &e);
    need(vm_snapshot_current(vm, current, &e), &e);
    FUZZ_REQUIRE(vm_snapshot_list(vm, &list, &e) == 0);
    for (size_t i = 0; i < list.n; i++) {
        struct snapshot snap;
        rc = vm_snapshot_load(vm, list.name[i], &snap, &e);
        need(rc, &e);
        if (!rc)
            snapshot_fini(&snap);
    }
    catalog_list_free(&list);
}

static void make_clone(struct catalog *c, const struct vm *vm, bool linked, const char *snapshot)
{
    struct error e = {0};
    struct vm copy;
    const struct clone how = {.linked = linked, .snapshot = snapshot};
    int rc = vm_clone(c, vm, "copy", &how, &e);
    need(rc, &e);
    if (rc)
        return;
    FUZZ_REQUIRE(vm_open(c->vms, "copy", VM_FIND_CHANGE, &copy, &e) == 0);
    look(&copy);
    vm_close(&copy);
    FUZZ_REQUIRE(store_remove(c->vms, "copy", &e) == 0);
}

static void work(struct catalog *c, const struct vm *vm, char step)
{
    struct error e = {0};
    struct vm_status s;
    vm_status_read(vm, &s);
    switch (step) {
    case 't':
        need(vm_snapshot_take(vm, "new", &e), &e);
        break;
    case 'r':
        need(vm_snapshot_restore(vm, "a", &e), &e);
        break;
    case 'm':
        need(vm_snapshot_remove(vm, "a", &e), &e);
        break;
    case 'd':
        if (s.run == VM_SUSPENDED)
            need(vm_drop_state(vm, &e), &e);
        break;
    case 'l':
        make_clone(c, vm, true, NULL);
        break;
    case 'f':
        make_clone(c, vm, false, NULL);
        break;
    case 's':
        make_clone(c, vm, true, "a");
        break;
    default:
        look(vm);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {.p = data, .left = size};
    struct catalog c;
    struct error e = {0};
    struct vm vm;
    snprintf(home, sizeof home, "/dev/shm/sosia-fuzz-%d", (int)getpid());
    store_remove(AT_FDCWD, home, &e); /* of one that died */
    FUZZ_REQUIRE(mkdir(home, 0700) == 0 && setenv("SOSIA_HOME", home, 1) == 0);
    fill(&in);
    FUZZ_REQUIRE(catalog_open(&c, true, &e) == 0);
    FUZZ_REQUIRE(catalog_find(&c, "web", VM_FIND_CHANGE, &vm, &e) == 0);
    look(&vm);
    for (unsigned n = 0; n < STEPS && in.left; n++)
        work(&c, &vm, (char)fuzz_u8(&in));
    vm_close(&vm);
    catalog_close(&c);
    check_outside();
    FUZZ_REQUIRE(store_remove(AT_FDCWD, home, &e) == 0 || e.code == ERR_IO);
    return 0;
}
