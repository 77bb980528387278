/*
 * test_catalog.c - files that are whole at every instant, locks that end with their holder, and
 * what is read from both: the state of a VM.
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
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "catalog/lock.h"
#include "catalog/state.h"
#include "catalog/status.h"
#include "catalog/store.h"

static char top[] = "/tmp/sosia-catalog-XXXXXX";
static struct catalog c;
static struct error e;

static int open_top(void **state)
{
    if (!mkdtemp(top))
        return -1;
    setenv("SOSIA_HOME", top, 1);
    return catalog_open(&c, true, &e);
}

static int close_top(void **state)
{
    catalog_close(&c);
    int tmp = open("/tmp", O_RDONLY | O_DIRECTORY);
    int rc = store_remove(tmp, strrchr(top, '/') + 1, &e);
    close(tmp);
    return rc;
}

static void make(const char *name)
{
    struct vm_draft d;
    struct vm_state s;
    assert_int_equal(vm_draft_begin(&c, &d, name, &e), 0);
    assert_int_equal(vm_state_new(&s, &e), 0);
    assert_int_equal(vm_draft_commit(&c, &d, "memory: 64M\n", &s, &e), 0);
    vm_state_fini(&s);
    vm_draft_end(&c, &d);
}

static size_t count(int folder)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY);
    DIR *d = fdopendir(fd);
    size_t n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void stores(void **state)
{
    char *text;
    size_t len;
    make("s");
    struct vm vm;
    assert_int_equal(catalog_find(&c, "s", VM_FIND_CHANGE, &vm, &e), 0);
    size_t before = count(vm.dir);
    assert_int_equal(store_write(vm.dir, "vm.yaml", "a", 1, &e), 0);
    assert_int_equal(store_write(vm.dir, "vm.yaml", "longer", 6, &e), 0);
    assert_int_equal(store_read(vm.dir, "vm.yaml", 6, &text, &len, &e), 0);
    assert_string_equal(text, "longer");
    free(text);
    assert_int_equal(store_read(vm.dir, "vm.yaml", 5, &text, &len, &e), ERR_LIMIT);
    assert_int_equal(store_read(vm.dir, "none", 5, &text, &len, &e), ERR_NOTFOUND);
    assert_int_equal(store_read(vm.dir, "disks", 99, &text, &len, &e), ERR_IO);
    assert_int_equal(symlinkat("/etc/passwd", vm.dir, "link"), 0);
    assert_int_equal(store_read(vm.dir, "link", 9999, &text, &len, &e), ERR_IO);
    assert_int_equal(store_write_new(vm.dir, "vm.yaml", "x", 1, &e), ERR_IO);
    assert_int_equal(count(vm.dir), before + 1);
    vm_close(&vm);
}

/* Who takes the lock removes what a killed writer left, and nothing else. */
static void sweeps_parts(void **state)
{
    static const char *const left[] = {".vm.yaml.1.part", ".state.json.4194304.part"},
                             *const others[] = {"vm.yaml.1.part",   ".vm.yaml.part",
                                                ".vm.yaml..part",   ".vm.yaml.1x.part",
                                                ".vm.yaml.1.part~", ".theirs.1.part"};
    struct vm vm;
    make("parts");
    assert_int_equal(catalog_find(&c, "parts", VM_FIND_READ, &vm, &e), 0);
    size_t before = count(vm.dir);
    for (size_t i = 0; i < ARRAY_LEN(left); i++)
        assert_int_equal(store_write_new(vm.dir, left[i], "x", 1, &e), 0);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        assert_int_equal(store_write_new(vm.dir, others[i], "x", 1, &e), 0);
    vm_close(&vm);
    assert_int_equal(catalog_find(&c, "parts", VM_FIND_READ, &vm, &e), 0);
    assert_int_equal(count(vm.dir), before + ARRAY_LEN(left) + ARRAY_LEN(others));
    vm_close(&vm);
    assert_int_equal(catalog_find(&c, "parts", VM_FIND_CHANGE, &vm, &e), 0);
    assert_int_equal(count(vm.dir), before + ARRAY_LEN(others));
    for (size_t i = 0; i < ARRAY_LEN(left); i++)
        assert_int_equal(faccessat(vm.dir, left[i], F_OK, 0), -1);
    vm_close(&vm);
}

static void removes_trees(void **state)
{
    make("t");
    struct vm vm;
    assert_int_equal(catalog_find(&c, "t", VM_FIND_CHANGE, &vm, &e), 0);
    char outside[sizeof top + 16];
    snprintf(outside, sizeof outside, "%s/outside", top);
    assert_int_equal(mkdir(outside, 0700), 0);
    assert_int_equal(symlinkat(outside, vm.dir, "disks/link"), 0);
    assert_int_equal(catalog_remove(&c, &vm, &e), 0);
    assert_int_equal(catalog_trash_name(vm.name), 1);
    assert_int_equal(catalog_purge(&c, &vm, &e), 0);
    vm_close(&vm);
    assert_int_equal(count(c.trash), 0);
    assert_int_equal(access(outside, F_OK), 0); /* a link is removed, not followed */
}

/* A process that does what a VMM does to the locks, until it is killed. */
static pid_t hold(const char *name, const enum vm_lock *locks, unsigned n, bool record)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct vm vm;
        struct vm_record r;
        bool ok = vm_open(c.vms, name, VM_FIND_READ, &vm, &e) == 0;
        int fd = ok ? vm_lock_open(vm.dir, true, &e) : -1;
        for (unsigned i = 0; i < n; i++)
            ok = ok && vm_lock_try(fd, locks[i]);
        if (record)
            ok = ok && vm_record_begin(&r, vm.dir, "jit", NULL, &e) == 0;
        if (!ok || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    char x;
    assert_int_equal(read(ready[0], &x, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void states_from_locks(void **state)
{
    static const enum vm_lock locks[] = {VM_LOCK_ALIVE, VM_LOCK_READY, VM_LOCK_PAUSED};
    static const enum vm_run runs[] = {VM_STOPPED, VM_STARTING, VM_RUNNING, VM_PAUSED};
    struct vm vm;
    struct vm_status s;
    make("l");
    assert_int_equal(catalog_find(&c, "l", VM_FIND_READ, &vm, &e), 0);
    for (unsigned n = 0; n < 4; n++) {
        pid_t pid = hold("l", locks, n, n > 0);
        vm_status_read(&vm, &s);
        assert_int_equal(s.run, runs[n]);
        assert_int_equal(s.pid, n ? pid : 0);
        assert_int_equal(vm_need_stopped(&vm, "rm", &e), n ? ERR_STATE : 0);
        end(pid);
        vm_status_read(&vm, &s);
        assert_int_equal(s.run, n ? VM_CRASHED : VM_STOPPED);
        assert_true(!n || strstr(s.reason, "was killed"));
    }
    vm_close(&vm);
}

static void verbs_exclude_each_other(void **state)
{
    static const enum vm_lock verb = VM_LOCK_VERB;
    struct vm vm;
    make("v");
    pid_t pid = hold("v", &verb, 1, false);
    assert_int_equal(catalog_find(&c, "v", VM_FIND_READ, &vm, &e), 0);
    assert_true(vm_lock_held(vm.lock, VM_LOCK_VERB));
    vm_close(&vm);
    assert_int_equal(catalog_find(&c, "v", VM_FIND_CHANGE, &vm, &e), ERR_BUSY);
    end(pid);
    assert_int_equal(catalog_find(&c, "v", VM_FIND_CHANGE, &vm, &e), 0);
    vm_close(&vm);
}

static void ends_of_runs(void **state)
{
    struct vm vm;
    struct vm_status s;
    struct vm_record r;
    make("r");
    assert_int_equal(catalog_find(&c, "r", VM_FIND_READ, &vm, &e), 0);
    assert_int_equal(vm_record_begin(&r, vm.dir, "jit", NULL, &e), 0);
    vm_record_end(&r, "off", "power-off", NULL);
    vm_status_read(&vm, &s);
    assert_int_equal(s.run, VM_STOPPED);
    assert_string_equal(s.reason, "power-off");
    assert_int_equal(vm_record_begin(&r, vm.dir, "jit", NULL, &e), 0);
    vm_record_end(&r, "failed", "no memory", NULL);
    vm_status_read(&vm, &s);
    assert_int_equal(s.run, VM_CRASHED);
    assert_string_equal(s.reason, "no memory");
    /* What a signal handler left in the log. */
    int fd = openat(vm.dir, "logs/vmm.log", O_CREAT | O_WRONLY, 0600);
    static const char words[] = "x\nsosia: ended by signal 11 (Segmentation fault)\n";
    assert_int_equal(write(fd, words, strlen(words)), strlen(words));
    assert_int_equal(vm_record_begin(&r, vm.dir, "jit", NULL, &e), 0);
    vm_status_read(&vm, &s);
    assert_non_null(strstr(s.reason, "was killed")); /* those words are of the run before */
    assert_int_equal(write(fd, words, strlen(words)), strlen(words));
    close(fd);
    close(r.fd);
    vm_status_read(&vm, &s);
    assert_int_equal(s.run, VM_CRASHED);
    assert_string_equal(s.reason, "ended by signal 11 (Segmentation fault)");
    /* A suspended VM stays so until its guest runs again. */
    assert_int_equal(vm_record_begin(&r, vm.dir, "jit", NULL, &e), 0);
    vm_record_end(&r, "suspended", "suspended", json_pack("{s:i}", "n", 7));
    vm_status_read(&vm, &s);
    assert_int_equal(s.run, VM_SUSPENDED);
    /* What its state rests on is on record as long, whoever dies. */
    assert_int_equal(vm_record_begin(&r, vm.dir, "jit", vm_state_files[0], &e), 0);
    vm_record_end(&r, "suspended", "no memory", NULL);
    assert_int_equal(vm_record_begin(&r, vm.dir, "jit", vm_state_files[0], &e), 0);
    json_t *saved = vm_status_saved(&vm, &s);
    assert_int_equal(s.run, VM_SUSPENDED);
    assert_int_equal(json_integer_value(json_object_get(saved, "n")), 7);
    json_decref(saved);
    vm_record_ready(&r);
    assert_null(vm_status_saved(&vm, &s));
    assert_int_equal(s.run, VM_CRASHED);
    vm_record_end(&r, "off", "power-off", NULL);
    assert_null(vm_status_saved(&vm, &s));
    /* Nonsense in the record is no crash of ours. */
    assert_int_equal(store_write(vm.dir, VM_RUN_FILE, "[1", 2, &e), 0);
    vm_status_read(&vm, &s);
    assert_int_equal(s.run, VM_CRASHED);
    vm_close(&vm);
}

/* A draft whose maker was killed is no VM, and goes when it is old; one in the making stays. */
static void sweeps_drafts(void **state)
{
    struct vm_draft old, young;
    struct vm_names list;
    assert_int_equal(vm_draft_begin(&c, &old, "old", &e), 0);
    const struct timespec then[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(c.vms, old.temp, then, 0), 0);
    size_t before = count(c.vms);
    assert_int_equal(vm_draft_begin(&c, &young, "young", &e), 0);
    assert_int_equal(count(c.vms), before + 1); /* it is locked */
    close(old.lock);
    old.lock = -1;
    make("d");
    assert_int_equal(count(c.vms), before + 1); /* the old one has gone, d has come */
    assert_int_equal(catalog_list(c.vms, &list, &e), 0);
    for (size_t i = 0; i < list.n; i++)
        assert_true(list.name[i][0] != '.');
    catalog_list_free(&list);
    vm_draft_end(&c, &young);
    vm_draft_end(&c, &old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stores),
        cmocka_unit_test(sweeps_parts),
        cmocka_unit_test(removes_trees),
        cmocka_unit_test(states_from_locks),
        cmocka_unit_test(verbs_exclude_each_other),
        cmocka_unit_test(ends_of_runs),
        cmocka_unit_test(sweeps_drafts),
    };
    return cmocka_run_group_tests(tests, open_top, close_top);
}
