/* control_cmd.c - the commands of the control socket: one table. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "spec/schema.h"
#include "vmm/control_int.h"
#include "vmm/save.h"

#define RELEASED 0x8000u

static int qmp_capabilities(struct control_call *call)
{
    call->client->negotiated = true;
    return 0;
}

static int query_version(struct control_call *call)
{
    call->ret = json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", 0, "minor", 1, "micro", 0,
                          "package", "sosia");
    return 0;
}

static int query_commands(struct control_call *call)
{
    call->ret = json_array();
    for (const struct control_command *k = control_commands; k->name; k++)
        json_array_append_new(call->ret, json_pack("{s:s}", "name", k->name));
    return 0;
}

static int query_name(struct control_call *call)
{
    const char *name = call->c->vm->spec->name;
    call->ret = name ? json_pack("{s:s}", "name", name) : json_object();
    return 0;
}

static int query_status(struct control_call *call)
{
    bool runs = !call->c->vm->paused;
    call->ret = json_pack("{s:b, s:b, s:s}", "running", runs, "singlestep", 0, "status",
                          runs ? "running" : "paused");
    return 0;
}

static json_t *block_json(const char *device, const char *file, const char *driver,
                          const struct blk *b, bool removable)
{
    json_t *name = file ? json_string(file) : NULL;
    json_t *o = json_pack("{s:s, s:b, s:b, s:s}", "device", device, "locked", 0, "removable",
                          removable, "type", "unknown");
    if (name)
        json_object_set_new(o, "inserted",
                            json_pack("{s:o, s:b, s:s, s:{s:I}}", "file", name, "ro", b->readonly,
                                      "drv", driver, "image", "virtual-size", (json_int_t)b->size));
    return o;
}

static int query_block(struct control_call *call)
{
    const struct vm *vm = call->c->vm;
    const struct spec *s = vm->spec;
    call->ret = json_array();
    for (unsigned i = 0; i < s->ndisk; i++) {
        char name[16];
        snprintf(name, sizeof name, "disk%u", i);
        json_array_append_new(
            call->ret, block_json(name, s->disk[i].file, spec_format_words[s->disk[i].format],
                                  vm->disk[i], s->disk[i].media != SPEC_MEDIA_DISK));
    }
    if (s->cdrom)
        json_array_append_new(call->ret, block_json("cdrom", s->cdrom, "raw", vm->cdrom, true));
    if (s->floppy)
        json_array_append_new(call->ret, block_json("floppy", s->floppy, "raw", vm->floppy, true));
    return 0;
}

static int find_disk(struct control_call *call, const char *device, unsigned *n)
{
    char end;
    if (sscanf(device, "disk%u%c", n, &end) == 1 && *n < call->c->vm->spec->ndisk)
        return 0;
    return error_set(&call->e, ERR_USAGE,
                     "there is no disk \"%.40s\": the first one of the spec is disk0", device);
}

/* A guest cannot be asked to give up the end of a disk: it only grows. */
static int block_resize(struct control_call *call)
{
    struct vm *vm = call->c->vm;
    const char *device = json_string_value(json_object_get(call->args, "device"));
    json_int_t size = json_integer_value(json_object_get(call->args, "size"));
    unsigned n = 0;
    int rc = find_disk(call, device, &n);
    if (rc)
        return rc;
    struct blk *b = vm->disk[n];
    if (b->readonly)
        return error_set(&call->e, ERR_STATE, "%s can only be read", device);
    if (size <= 0 || size % 512)
        return error_set(&call->e, ERR_USAGE, "a size is a multiple of 512 bytes");
    if ((uint64_t)size < b->size)
        return error_set(&call->e, ERR_STATE, "a disk in use cannot become smaller");
    return blk_resize(b, (uint64_t)size, &call->e);
}

static int query_cpus_fast(struct control_call *call)
{
    struct vm *vm = call->c->vm;
    call->ret = json_array();
    for (unsigned i = 0; i < vm->nvcpu; i++) {
        char path[32];
        snprintf(path, sizeof path, "/machine/cpu/%u", i);
        json_array_append_new(call->ret,
                              json_pack("{s:i, s:s, s:i, s:s}", "cpu-index", (int)i, "qom-path",
                                        path, "thread-id", (int)atomic_load(&vm->vcpu[i].tid),
                                        "target", "x86_64"));
    }
    return 0;
}

static int stop(struct control_call *call)
{
    vm_pause(call->c->vm, true);
    return CONTROL_LATER;
}

static int cont(struct control_call *call)
{
    vm_pause(call->c->vm, false);
    return CONTROL_LATER;
}

static int done(struct control_call *call)
{
    return 0;
}

static int system_powerdown(struct control_call *call)
{
    struct vm *vm = call->c->vm;
    pthread_mutex_lock(&vm->lock);
    pc_power_button(vm->pc);
    pthread_mutex_unlock(&vm->lock);
    control_event(call->c, "POWERDOWN", NULL);
    return 0;
}

static int system_reset(struct control_call *call)
{
    vm_request(call->c->vm, VM_REQ_RESET, VM_WHY_CONTROL);
    return 0;
}

static int quit(struct control_call *call)
{
    vm_request(call->c->vm, VM_REQ_QUIT, VM_WHY_CONTROL);
    return 0;
}

static int inject_nmi(struct control_call *call)
{
    vm_post_all(call->c->vm, X86_PEND_NMI);
    return 0;
}

/* ---- keyboard ---- */

static int queue_keys(struct control_call *call, const uint16_t *events, size_t n)
{
    if (call->c->keys.owner || call->c->keys.used)
        return error_set(&call->e, ERR_BUSY, "somebody else's keys are being pressed");
    if (!control_keys_add(call->c, events, n))
        return error_set(&call->e, ERR_LIMIT, "too many keys at once");
    control_keys_start(call->c, call->client);
    return CONTROL_LATER;
}

static int send_key(struct control_call *call)
{
    json_t *keys = json_object_get(call->args, "keys"), *k;
    uint16_t events[32];
    size_t n = json_array_size(keys), i;
    if (n == 0 || n > ARRAY_LEN(events) / 2)
        return error_set(&call->e, ERR_USAGE, "from 1 to 16 keys");
    json_array_foreach(keys, i, k)
    {
        const char *name = json_string_value(json_object_get(k, "data"));
        if (!name || !control_key_code(name, &events[i]))
            return error_set(&call->e, ERR_USAGE, "there is no key \"%.40s\"", name ? name : "?");
        events[2 * n - 1 - i] = events[i] | RELEASED;
    }
    return queue_keys(call, events, 2 * n);
}

static int type_text(struct control_call *call)
{
    const char *text = json_string_value(json_object_get(call->args, "text"));
    size_t len = strlen(text), n = 0;
    CLEANUP_FREE uint16_t *events = calloc(len + 1, 4 * sizeof *events);
    if (!events)
        return error_set(&call->e, ERR_NOMEM, "out of memory");
    for (const char *p = text; *p; p++) {
        uint16_t key = 0;
        bool shift = false;
        if (!control_char_keys(*p, &key, &shift))
            return error_set(&call->e, ERR_USAGE,
                             "a US keyboard has no key for the character 0x%02x",
                             (unsigned char)*p);
        if (shift)
            events[n++] = 42; /* KEY_LEFTSHIFT */
        events[n++] = key;
        events[n++] = key | RELEASED;
        if (shift)
            events[n++] = 42 | RELEASED;
    }
    return n ? queue_keys(call, events, n) : 0;
}

/* ---- our own ---- */

static int screen(struct control_call *call)
{
    char text[16384] = "";
    struct vm *vm = call->c->vm;
    pthread_mutex_lock(&vm->lock);
    pc_screen_text(vm->pc, text, sizeof text);
    pthread_mutex_unlock(&vm->lock);
    json_t *s = json_string(text);
    call->ret = json_pack("{s:o}", "text", s ? s : json_string(""));
    return 0;
}

static int console_input(struct control_call *call)
{
    struct control *c = call->c;
    json_t *data = json_object_get(call->args, "data");
    size_t n = json_string_length(data);
    if (!c->vm->console)
        return error_set(&call->e, ERR_STATE, "no device of this VM leads to the console");
    if (n == 0)
        return 0;
    if (n > CHAR_CONSOLE_INPUT)
        return error_set(&call->e, ERR_LIMIT, "at most %u bytes at a time", CHAR_CONSOLE_INPUT);
    if (!char_console_input(c->vm->console, (const uint8_t *)json_string_value(data), n))
        return error_set(&call->e, ERR_BUSY,
                         "input of somebody else waits for the guest to read it");
    c->typist = call->client;
    return CONTROL_LATER;
}

static int change_engine(struct control_call *call)
{
    const char *name = json_string_value(json_object_get(call->args, "engine"));
    const struct engine *to = engine_by_name(name);
    if (!to)
        return error_set(&call->e, ERR_USAGE, "there is no engine \"%.40s\"", name);
    if (to->probe(&call->e))
        return ERR_HOST;
    vm_set_engine(call->c->vm, to);
    return CONTROL_LATER;
}

static int engine_changed(struct control_call *call)
{
    struct vm *vm = call->c->vm;
    const char *name = json_string_value(json_object_get(call->args, "engine"));
    if (strcmp(vm->engine->name, name) != 0)
        return error_set(&call->e, ERR_STATE, "%s", vm->engine_line);
    call->ret = json_pack("{s:s, s:s}", "engine", name, "technique", vm->engine->technique);
    return 0;
}

/* All vCPUs are parked, and stay so: the guest ends where its state ends. */
static int suspend(struct control_call *call)
{
    struct vm *vm = call->c->vm;
    struct state_stats stats = {0};
    int fd = vm->service->state;
    if (fd < 0)
        return error_set(&call->e, ERR_STATE, "this VM has no file for its state");
    int rc = ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0
                 ? error_errno(&call->e, ERR_IO, errno, "the file for the state")
                 : vmm_save(vm, fd, &stats, &call->e);
    if (!rc && fsync(fd) < 0)
        rc = error_errno(&call->e, ERR_IO, errno, "the state cannot be made durable");
    if (rc) {
        if (ftruncate(fd, 0) < 0) /* the room that half a state takes */
            log_warn("half a state stays where it is");
        vm_clock_resume(vm);
        return rc;
    }
    call->ret =
        json_pack("{s:I, s:I}", "pages", (json_int_t)stats.pages, "bytes", (json_int_t)stats.bytes);
    vm_request(vm, VM_REQ_QUIT, VMM_WHY_SUSPENDED);
    return 0;
}

static void snapped(void *arg, const struct vm_snap *s)
{
    struct control *c = arg;
    struct client *cl = c->snapper;
    struct control_call call = {.c = c, .client = cl, .e = s->error};
    c->snapper = NULL;
    if (!cl)
        return;
    if (!s->rc && s->fd >= 0)
        call.ret = json_pack("{s:I, s:I, s:I}", "pages", (json_int_t)s->stats.pages, "bytes",
                             (json_int_t)s->stats.bytes, "pause-ns", (json_int_t)s->pause);
    control_reply(cl, &call, s->rc);
}

/* The client's files: the first for the state, one more for each disk that is named. */
static int take_files(struct control_call *call, struct vm_snap_files *f)
{
    struct client *cl = call->client;
    json_t *disks = json_object_get(call->args, "disks"), *name;
    size_t i;
    unsigned n = 0;
    for (unsigned k = 0; k < SPEC_MAX_DISKS; k++)
        f->disk[k] = -1;
    if (cl->files != json_array_size(disks) + 1)
        return error_set(&call->e, ERR_USAGE,
                         "%zu descriptors are needed (SCM_RIGHTS): for the state, and for the new "
                         "overlay of each disk",
                         json_array_size(disks) + 1);
    json_array_foreach(disks, i, name)
    {
        const char *text = json_string_value(name);
        int rc = find_disk(call, text ? text : "", &n);
        if (rc)
            return rc;
        if (f->disk[n] >= 0)
            return error_set(&call->e, ERR_USAGE, "disk%u is named twice", n);
        f->disk[n] = cl->file[i + 1];
    }
    f->state = cl->file[0];
    cl->files = 0;
    return 0;
}

/* `files`: 0 if the client's are those, or an error. */
static int ask_snapshot(struct control_call *call,
                        int (*files)(struct control_call *call, struct vm_snap_files *f))
{
    struct control *c = call->c;
    struct vm_snap_files f;
    if (c->vm->paused || c->vm->pause_wanted)
        return error_set(&call->e, ERR_STATE, "the VM is paused");
    int rc = files(call, &f);
    if (!rc)
        rc = vm_snap_ask(c->vm, &f, snapped, c, &call->e);
    if (rc)
        return rc;
    c->snapper = call->client;
    return CONTROL_LATER;
}

static int snapshot(struct control_call *call)
{
    return ask_snapshot(call, take_files);
}

static bool is_or_absent(const struct control_call *call, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(call->args, key));
    return !text || strcmp(text, value) == 0;
}

static int take_overlay(struct control_call *call, struct vm_snap_files *f)
{
    struct client *cl = call->client;
    unsigned n = 0;
    f->state = -1;
    for (unsigned k = 0; k < SPEC_MAX_DISKS; k++)
        f->disk[k] = -1;
    if (!is_or_absent(call, "mode", "existing") || !is_or_absent(call, "format", "qcow2"))
        return error_set(&call->e, ERR_USAGE,
                         "only for an existing qcow2 overlay: this process may open no file");
    if (cl->files != 1)
        return error_set(&call->e, ERR_USAGE,
                         "1 descriptor is needed (SCM_RIGHTS): of the new overlay");
    int rc = find_disk(call, json_string_value(json_object_get(call->args, "device")), &n);
    if (rc)
        return rc;
    f->disk[n] = cl->file[0];
    cl->files = 0;
    return 0;
}

/* The file is the descriptor's, whatever it is called. */
static int snapshot_disk(struct control_call *call)
{
    return ask_snapshot(call, take_overlay);
}

static int info(struct control_call *call)
{
    struct vm *vm = call->c->vm;
    call->ret =
        json_pack("{s:s, s:i, s:i, s:I, s:I}", "engine", vm->engine->name, "pid", (int)getpid(),
                  "cpus", (int)vm->nvcpu, "memory", (json_int_t)vm->spec->memory, "time-ns",
                  (json_int_t)vclock_now(&vm->clock));
    return 0;
}

static int monitor(struct control_call *call)
{
    const char *line = json_string_value(json_object_get(call->args, "command-line"));
    CLEANUP_FREE char *text = NULL;
    int rc = monitor_info(call->c->vm, line, &text, &call->e);
    if (rc)
        return rc;
    call->ret = json_string(text);
    return call->ret ? 0 : error_set(&call->e, ERR_FORMAT, "the answer is no text");
}

const struct control_command control_commands[] = {
    {"qmp_capabilities", "enable?:a", qmp_capabilities, NULL},
    {"query-version", "", query_version, NULL},
    {"query-commands", "", query_commands, NULL},
    {"query-name", "", query_name, NULL},
    {"query-status", "", query_status, NULL},
    {"query-block", "", query_block, NULL},
    {"query-cpus-fast", "", query_cpus_fast, NULL},
    {"block_resize", "device:s size:i", block_resize, NULL},
    {"stop", "", stop, done},
    {"cont", "", cont, done},
    {"system_powerdown", "", system_powerdown, NULL},
    {"system_reset", "", system_reset, NULL},
    {"quit", "", quit, NULL},
    {"inject-nmi", "", inject_nmi, NULL},
    {"send-key", "keys:a hold-time?:i", send_key, NULL},
    {"human-monitor-command", "command-line:s cpu-index?:i", NULL, monitor},
    {"x-sosia-info", "", info, NULL},
    {"x-sosia-engine", "engine:s", change_engine, engine_changed},
    {"x-sosia-suspend", "", NULL, suspend},
    {"x-sosia-screen", "", screen, NULL},
    {"x-sosia-type", "text:s", type_text, NULL},
    {"x-sosia-console-input", "data:s", console_input, NULL},
    {"x-sosia-snapshot", "disks:a", snapshot, NULL},
    {"blockdev-snapshot-sync", "device:s snapshot-file?:s format?:s mode?:s", snapshot_disk, NULL},
    {NULL, NULL, NULL, NULL},
};
