/* status.c - see status.h. */
#define _GNU_SOURCE
#include "catalog/status.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/lock.h"
#include "catalog/store.h"

#define MAX_RECORD 65536
#define ROOM       8190
#define LAST_WORDS "sosia: ended by signal"

const char *const vm_run_words[] = {"stopped", "starting", "running",
                                    "paused",  "crashed",  "suspended"};

const char *const vm_state_files[VM_STATE_FILES] = {"suspended.state", "suspended.state.2"};

const char *vm_state_other(const char *name)
{
    return vm_state_files[name && strcmp(name, vm_state_files[0]) == 0];
}

static void boot_id(char out[40])
{
    CLEANUP_FCLOSE FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!f || !fgets(out, 40, f))
        out[0] = 0;
    out[strcspn(out, "\n")] = 0;
}

/* What a VMM that a signal ended wrote last in its log. */
static void last_words(int dir, off_t begin, char *out, size_t size)
{
    char tail[512] = "";
    CLEANUP_CLOSE int fd = openat(dir, "logs/vmm.log", O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t from = end > (off_t)sizeof tail - 1 ? end - ((off_t)sizeof tail - 1) : 0;
    if (begin <= end && from < begin)
        from = begin; /* what was said before is about another run */
    if (end <= from)
        return;
    ssize_t n = pread(fd, tail, sizeof tail - 1, from);
    tail[n > 0 ? n : 0] = 0;
    char *words = NULL;
    for (char *p = tail; (p = strstr(p, LAST_WORDS)); p++)
        words = p;
    if (!words)
        return;
    words[strcspn(words, "\n")] = 0;
    snprintf(out, size, "%s", words + strlen("sosia: "));
}

static void copy_text(char *out, size_t size, const json_t *v)
{
    const char *s = json_string_value(v);
    snprintf(out, size, "%s", s ? s : "");
}

static void why_gone(int dir, const json_t *o, struct vm_status *s)
{
    char now[40];
    boot_id(now);
    const char *then = json_string_value(json_object_get(o, "boot"));
    if (then && now[0] && strcmp(then, now) != 0) {
        snprintf(s->reason, sizeof s->reason, "the host went down while it ran");
        return;
    }
    last_words(dir, (off_t)json_integer_value(json_object_get(o, "log")), s->reason,
               sizeof s->reason);
    if (!s->reason[0])
        snprintf(s->reason, sizeof s->reason,
                 "its process (%d) was killed: by SIGKILL, or for want of memory", s->pid);
}

/* NULL: there is none. */
static json_t *load_record(int dir)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    struct error unused;
    if (store_read(dir, VM_RUN_FILE, MAX_RECORD, &text, &len, &unused))
        return NULL;
    json_t *o = json_loadb(text, len, 0, NULL);
    return o ? o : json_null();
}

static void take_record(int dir, const json_t *o, struct vm_status *s)
{
    s->pid = (int)json_integer_value(json_object_get(o, "pid"));
    s->started = json_integer_value(json_object_get(o, "started"));
    s->ended = json_integer_value(json_object_get(o, "ended"));
    copy_text(s->engine, sizeof s->engine, json_object_get(o, "engine"));
    copy_text(s->reason, sizeof s->reason, json_object_get(o, "reason"));
    const char *outcome = json_string_value(json_object_get(o, "outcome"));
    const char *state = json_string_value(json_object_get(o, "state"));
    bool restoring = json_is_true(json_object_get(o, "restoring"));
    if (state && strcmp(state, vm_state_files[1]) == 0)
        s->state = vm_state_files[1];
    if (vm_is_alive(s))
        return;
    s->run = (outcome && strcmp(outcome, "suspended") == 0) || restoring ? VM_SUSPENDED
             : outcome && strcmp(outcome, "off") == 0                    ? VM_STOPPED
                                                                         : VM_CRASHED;
    if (!outcome && !restoring)
        why_gone(dir, o, s);
}

json_t *vm_status_saved(const struct vm *vm, struct vm_status *s)
{
    *s = (struct vm_status){.run = VM_STOPPED, .state = vm_state_files[0]};
    if (vm_lock_held(vm->lock, VM_LOCK_ALIVE))
        s->run = !vm_lock_held(vm->lock, VM_LOCK_READY)   ? VM_STARTING
                 : vm_lock_held(vm->lock, VM_LOCK_PAUSED) ? VM_PAUSED
                                                          : VM_RUNNING;
    json_t *o = load_record(vm->dir);
    if (!o)
        return NULL;
    take_record(vm->dir, o, s);
    json_t *saved = json_incref(json_object_get(o, "saved"));
    json_decref(o);
    return saved;
}

void vm_status_read(const struct vm *vm, struct vm_status *s)
{
    json_decref(vm_status_saved(vm, s));
}

/* In place: the sandbox lets nobody make a file. A reader that meets half of it sees a crash for an
 * instant, as does one that comes too late for the lock. Blanks make it as long from the beginning
 * as it may become, so that a full disk cannot keep the end off the record. 0 or an errno. */
static int put_record(const struct vm_record *r, const char *outcome, const char *reason)
{
    json_t *o =
        json_pack("{s:i, s:i, s:I, s:s, s:I, s:s, s:s*, s:s*}", "version", 1, "pid", (int)getpid(),
                  "log", (json_int_t)r->log, "boot", r->boot, "started", (json_int_t)r->started,
                  "engine", r->engine, "outcome", outcome, "reason", reason);
    if (r->from)
        json_object_set_new(o, "restoring", json_true());
    if (r->saved && (r->from || (outcome && strcmp(outcome, "suspended") == 0)))
        json_object_set(o, "saved", r->saved);
    json_object_set_new(o, "state", json_string(r->from ? r->from : r->next));
    if (outcome)
        json_object_set_new(o, "ended", json_integer((json_int_t)time(NULL)));
    CLEANUP_FREE char *text = json_dumps(o, JSON_PRESERVE_ORDER);
    json_decref(o);
    CLEANUP_FREE char *padded = NULL;
    int len = text ? asprintf(&padded, "%-*s\n", ROOM, text) : -1;
    if (len < 0) {
        padded = NULL;
        return ENOMEM;
    }
    ssize_t n = pwrite(r->fd, padded, (size_t)len, 0);
    if (n < 0 || ftruncate(r->fd, len) < 0 || fdatasync(r->fd) < 0)
        return errno;
    return n == len ? 0 : ENOSPC;
}

static void drop_record(struct vm_record *r)
{
    json_decref(r->saved);
    r->saved = NULL;
    close(r->fd);
    r->fd = -1;
}

int vm_record_begin(struct vm_record *r, int dir, const char *engine, const char *from,
                    struct error *e)
{
    char path[STORE_PATH];
    struct stat st;
    *r = (struct vm_record){
        .started = (int64_t)time(NULL), .from = from, .next = vm_state_other(from)};
    boot_id(r->boot);
    r->log = fstatat(dir, "logs/vmm.log", &st, 0) == 0 ? st.st_size : 0;
    snprintf(r->engine, sizeof r->engine, "%s", engine);
    r->fd = openat(dir, VM_RUN_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (r->fd < 0)
        return error_file(e, errno, "%s: cannot write it", store_path(dir, VM_RUN_FILE, path));
    if (from) {
        json_t *before = load_record(dir);
        r->saved = json_incref(json_object_get(before, "saved"));
        json_decref(before);
    }
    int err = put_record(r, NULL, NULL);
    if (!err)
        return 0;
    drop_record(r);
    return error_file(e, err, "%s: cannot write it", store_path(dir, VM_RUN_FILE, path));
}

void vm_record_end(struct vm_record *r, const char *outcome, const char *reason, json_t *saved)
{
    if (saved) {
        json_decref(r->saved);
        r->saved = saved;
    }
    put_record(r, outcome, reason);
    drop_record(r);
}

void vm_record_touch(struct vm_record *r)
{
    put_record(r, NULL, NULL);
}

void vm_record_ready(struct vm_record *r)
{
    r->from = NULL;
    put_record(r, NULL, NULL);
}
