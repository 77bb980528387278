/*
 * test_snapshot.c - snapshots of a VM: what the disk reads as afterwards, which layers stay, what
 * is left by one who was killed, and snapshot.json as somebody else might write it.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/image.h"
#include "catalog/layer.h"
#include "catalog/snapshot.h"
#include "catalog/store.h"

#define DISK "disks/disk0.img"
#define SPEC "memory: 64M\ndisks: [{file: " DISK "}]\n"

static char top[] = "/tmp/sosia-snapshot-XXXXXX";
static struct catalog c;
static struct vm vm;
static struct error e;

/* A VM with a raw disk of zeroes. */
static int open_vm(void **state)
{
    struct vm_draft d;
    struct vm_state s;
    if (!mkdtemp(top))
        return -1;
    setenv("SOSIA_HOME", top, 1);
    if (catalog_open(&c, true, &e) || vm_draft_begin(&c, &d, "web", &e) || vm_state_new(&s, &e))
        return -1;
    int fd = openat(d.dir, DISK, O_WRONLY | O_CREAT, 0600);
    int rc = ftruncate(fd, 1 << 20);
    close(fd);
    if (!rc)
        rc = vm_draft_commit(&c, &d, SPEC, &s, &e);
    vm_state_fini(&s);
    vm_draft_end(&c, &d);
    return rc ? rc : catalog_find(&c, "web", VM_FIND_CHANGE, &vm, &e);
}

static int close_vm(void **state)
{
    vm_close(&vm);
    catalog_close(&c);
    int tmp = open("/tmp", O_RDONLY | O_DIRECTORY);
    int rc = store_remove(tmp, strrchr(top, '/') + 1, &e);
    close(tmp);
    memcpy(strrchr(top, '-') + 1, "XXXXXX", 6);
    return rc;
}

/* A byte of the disk; `put` >= 0: it is written first. */
static int disk_byte(uint64_t at, int put)
{
    char path[STORE_PATH];
    struct image_options o = {0};
    struct node *n = NULL;
    uint8_t b = (uint8_t)put;
    assert_int_equal(image_open(store_path(vm.dir, DISK, path), &o, &n, &e), 0);
    if (put >= 0)
        assert_int_equal(node_write(n, &b, 1, at, 0), 0);
    assert_int_equal(node_read(n, &b, 1, at), 0);
    node_close(n);
    return b;
}

static unsigned count(const char *folder, const char *prefix)
{
    unsigned n = 0;
    int fd = openat(vm.dir, folder, O_RDONLY | O_DIRECTORY);
    DIR *d = fdopendir(fd);
    for (struct dirent *f; (f = readdir(d));)
        n += strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0 &&
             strncmp(f->d_name, prefix, strlen(prefix)) == 0;
    closedir(d);
    return n;
}

static void back_and_forth(void **state)
{
    char current[VM_NAME_MAX + 1];
    struct snapshot s;
    disk_byte(5, 1);
    assert_int_equal(vm_snapshot_take(&vm, "a", &e), 0);
    assert_int_equal(disk_byte(5, -1), 1);
    disk_byte(5, 2);
    assert_int_equal(vm_snapshot_take(&vm, "b", &e), 0);
    assert_int_equal(vm_snapshot_take(&vm, "b", &e), ERR_STATE);
    disk_byte(5, 3);
    assert_int_equal(count("disks", "layer-"), 2);
    assert_int_equal(vm_snapshot_load(&vm, "b", &s, &e), 0);
    assert_string_equal(s.parent, "a");
    assert_string_equal(s.disk[0].format, "qcow2");
    snapshot_fini(&s);
    assert_int_equal(vm_snapshot_restore(&vm, "a", &e), 0);
    assert_int_equal(disk_byte(5, -1), 1);
    assert_int_equal(vm_snapshot_current(&vm, current, &e), 0);
    assert_string_equal(current, "a");
    assert_int_equal(vm_snapshot_restore(&vm, "b", &e), 0);
    assert_int_equal(disk_byte(5, -1), 2);
    assert_int_equal(vm_snapshot_remove(&vm, "a", &e), 0);
    assert_int_equal(disk_byte(5, -1), 2);
    assert_int_equal(count("disks", "layer-"), 2); /* b rests on both */
    assert_int_equal(vm_layers_check(&vm, &e), 0);
    assert_int_equal(vm_snapshot_load(&vm, "b", &s, &e), 0);
    assert_string_equal(s.parent, "");
    snapshot_fini(&s);
}

static void unneeded_layers_go(void **state)
{
    assert_int_equal(vm_snapshot_take(&vm, "a", &e), 0);
    disk_byte(5, 2);
    assert_int_equal(vm_snapshot_take(&vm, "b", &e), 0);
    assert_int_equal(vm_snapshot_restore(&vm, "a", &e), 0);
    /* A file beside them that rests on b's: an image of the user's own. */
    struct snapshot s;
    char path[STORE_PATH];
    assert_int_equal(vm_snapshot_load(&vm, "b", &s, &e), 0);
    assert_int_equal(
        layer_overlay(store_path(vm.dir, "disks/own", path), s.disk[0].layer, "qcow2", false, &e),
        0);
    snapshot_fini(&s);
    assert_int_equal(vm_snapshot_remove(&vm, "b", &e), 0);
    assert_int_equal(count("disks", "layer-"), 2);
    assert_int_equal(vm_snapshot_restore(&vm, "a", &e), 0);
    assert_int_equal(vm_snapshot_take(&vm, "c", &e), 0);
    assert_int_equal(count("disks", "layer-"), 2); /* untouched: no new one */
    disk_byte(5, 4);
    assert_int_equal(vm_snapshot_take(&vm, "d", &e), 0);
    assert_int_equal(count("disks", "layer-"), 3);
    assert_int_equal(vm_snapshot_restore(&vm, "a", &e), 0);
    assert_int_equal(vm_snapshot_remove(&vm, "d", &e), 0);
    assert_int_equal(count("disks", "layer-"), 2);
    assert_int_equal(vm_layers_check(&vm, &e), 0);
}

/* The disk rests on a layer of no snapshot any more, and is then put back to before it. */
static void layers_of_none_go(void **state)
{
    assert_int_equal(vm_snapshot_take(&vm, "a", &e), 0);
    disk_byte(5, 2);
    assert_int_equal(vm_snapshot_take(&vm, "b", &e), 0);
    assert_int_equal(vm_snapshot_remove(&vm, "b", &e), 0);
    assert_int_equal(disk_byte(5, -1), 2);
    assert_int_equal(count("disks", "layer-"), 2);
    assert_int_equal(vm_snapshot_restore(&vm, "a", &e), 0);
    assert_int_equal(disk_byte(5, -1), 0);
    assert_int_equal(count("disks", "layer-"), 1);
    assert_int_equal(vm_layers_check(&vm, &e), 0);
}

/* As if killed between the layer's link and the overlay. */
static void leftovers_are_swept(void **state)
{
    static const char text[] = "{\"version\": 1, \"created\": 1, \"of\": \"stopped\", \"disks\": "
                               "[{\"file\": \"" DISK "\", \"layer\": "
                               "\"disks/layer-12345678-disk0.img\", \"format\": \"raw\"}]}";
    struct vm_names list;
    int folder = store_folder(vm.dir, VM_SNAPSHOTS, true, &e);
    int dir = store_folder(folder, SNAPSHOT_DRAFT "1", true, &e);
    disk_byte(7, 7);
    assert_int_equal(store_write_new(dir, SNAPSHOT_FILE, text, strlen(text), &e), 0);
    assert_int_equal(linkat(vm.dir, DISK, vm.dir, "disks/layer-12345678-disk0.img", 0), 0);
    close(dir);
    /* Another one, before its file was written. */
    dir = store_folder(folder, SNAPSHOT_DRAFT "2", true, &e);
    assert_int_equal(store_write_new(dir, SNAPSHOT_FILE, "", 0, &e), 0);
    close(dir);
    close(folder);
    assert_int_equal(vm_snapshot_list(&vm, &list, &e), 0);
    assert_int_equal(list.n, 0);
    catalog_list_free(&list);
    assert_int_equal(vm_snapshot_take(&vm, "a", &e), 0);
    assert_int_equal(count("disks", "layer-12345678"), 0);
    assert_int_equal(count(VM_SNAPSHOTS, ""), 1);
    assert_int_equal(disk_byte(7, -1), 7);
}

/* A VM that was not restored to its end does not start, until it is. */
static void broken_off(void **state)
{
    struct vm_state s;
    assert_int_equal(vm_snapshot_take(&vm, "a", &e), 0);
    assert_int_equal(vm_state_load(vm.dir, &s, &e), 0);
    json_object_set_new(s.root, "restoring", json_string("a"));
    assert_int_equal(vm_state_save(vm.dir, &s, false, &e), 0);
    vm_state_fini(&s);
    assert_int_equal(vm_layers_check(&vm, &e), ERR_STATE);
    assert_int_equal(vm_snapshot_take(&vm, "b", &e), ERR_STATE);
    assert_int_equal(vm_snapshot_remove(&vm, "a", &e), ERR_STATE);
    assert_int_equal(vm_snapshot_restore(&vm, "a", &e), 0);
    assert_int_equal(vm_layers_check(&vm, &e), 0);
}

static void hostile_files(void **state)
{
#define HEAD "{\"version\": 1, \"created\": 1, "
#define PLACES(f, l)                                                         \
    "\"of\": \"stopped\", \"disks\": [{\"file\": \"" f "\", \"layer\": \"" l \
    "\", \"format\": \"raw\"}]}"
    static const struct {
        const char *text;
        int rc;
    } files[] = {
        {"", ERR_DAMAGED},
        {"[1]", ERR_DAMAGED},
        {"{\"version\": 2}", ERR_HOST},
        {HEAD "\"of\": \"stopped\"}", ERR_DAMAGED},
        {HEAD "\"of\": \"asleep\", \"disks\": []}", ERR_DAMAGED},
        {HEAD "\"parent\": \"../a\", \"of\": \"stopped\", \"disks\": []}", ERR_DAMAGED},
        {HEAD PLACES("/etc/passwd", "x"), ERR_DAMAGED},
        {HEAD PLACES("disks/../../x", "x"), ERR_DAMAGED},
        {HEAD PLACES("x", ".."), ERR_DAMAGED},
        {HEAD PLACES("x", ""), ERR_DAMAGED},
        {HEAD "\"of\": \"stopped\", \"disks\": [{\"file\": \"x\", \"layer\": \"y\", \"format\": "
              "\"warp\"}]}",
         ERR_DAMAGED},
        {HEAD PLACES("..x/y", "a..b"), 0},
        {HEAD "\"of\": \"running\", \"disks\": []}", 0},
    };
    int folder = store_folder(vm.dir, VM_SNAPSHOTS, true, &e);
    int dir = store_folder(folder, "a", true, &e);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct snapshot s;
        assert_int_equal(store_write(dir, SNAPSHOT_FILE, files[i].text, strlen(files[i].text), &e),
                         0);
        assert_int_equal(vm_snapshot_load(&vm, "a", &s, &e), files[i].rc);
        if (!files[i].rc)
            snapshot_fini(&s);
    }
    close(dir);
    close(folder);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_vm, close_vm)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(back_and_forth),      TEST(unneeded_layers_go), TEST(layers_of_none_go),
        TEST(leftovers_are_swept), TEST(broken_off),         TEST(hostile_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
