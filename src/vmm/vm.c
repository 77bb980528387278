/*
 * vm.c - building a VM from its spec, stopping and resetting it, taking it down. See vm.h for the
 * threads and the life cycle.
 */
#include "vmm/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/url.h"
#include "char/file.h"
#include "vmm/sandbox.h"

/* ---- parking ---- */

bool vm_vcpu_may_run(struct vm *vm)
{
    pthread_mutex_lock(&vm->park_lock);
    if (vm->stop && !vm->quit) {
        vm->parked++;
        if (vm->parked == vm->nvcpu)
            uv_async_send(&vm->wake);
        while (vm->stop && !vm->quit)
            pthread_cond_wait(&vm->park_cond, &vm->park_lock);
        vm->parked--;
    }
    bool run = !vm->quit;
    pthread_mutex_unlock(&vm->park_lock);
    return run;
}

void vm_post_all(struct vm *vm, uint32_t bits)
{
    for (unsigned n = 0; n < vm->nvcpu; n++)
        vcpu_post(&vm->vcpu[n], bits);
}

void vm_request(struct vm *vm, enum vm_req req, const char *why)
{
    pthread_mutex_lock(&vm->park_lock);
    if (req > vm->req) {
        vm->req = req;
        snprintf(vm->req_why, sizeof vm->req_why, "%s", why ? why : "");
    }
    vm->stop = true;
    pthread_mutex_unlock(&vm->park_lock);
    vm_post_all(vm, X86_PEND_KICK);
    uv_async_send(&vm->wake);
}

static void release(struct vm *vm, bool quit)
{
    pthread_mutex_lock(&vm->park_lock);
    /* Another request may have come meanwhile. */
    vm->stop = !quit && (vm->req != VM_REQ_NONE || vm->paused);
    vm->quit = quit;
    pthread_cond_broadcast(&vm->park_cond);
    pthread_mutex_unlock(&vm->park_lock);
    vm_post_all(vm, X86_PEND_KICK);
}

/* All vCPUs are parked. */
static int reset(struct vm *vm, struct error *e)
{
    for (unsigned n = 0; n < SPEC_MAX_DISKS; n++)
        blk_drain(vm->disk[n]);
    blk_drain(vm->cdrom);
    blk_drain(vm->floppy);
    pthread_mutex_lock(&vm->lock);
    pc_reset(vm->pc);
    pthread_mutex_unlock(&vm->lock);
    for (unsigned n = 0; n < vm->nvcpu; n++) {
        struct x86_cpu *c = vm->vcpu[n].cpu;
        atomic_store(&c->pending, 0);
        x86_reset(c, false);
    }
    return pc_boot(vm->pc, vm->vcpu[0].cpu, e);
}

/* Tells the control socket how it ends. QEMU's names of reasons (qapi/run-state.json). */
static void tell_end(struct vm *vm, enum vm_req req)
{
    bool guest = req == VM_REQ_POWEROFF || req == VM_REQ_EXIT;
    const char *reason = guest                  ? "guest-shutdown"
                         : req == VM_REQ_QUIT   ? "host-qmp-quit"
                         : req == VM_REQ_SIGNAL ? "host-signal"
                                                : "host-error";
    control_event(vm->control, "SHUTDOWN",
                  json_pack("{s:b, s:s}", "guest", guest, "reason", reason));
}

/* All vCPUs are parked; the VM goes on, or pauses. */
static void go_on(struct vm *vm, bool was_reset)
{
    bool guest = strcmp(vm->req_why, VM_WHY_CONTROL) != 0;
    if (was_reset)
        control_event(vm->control, "RESET",
                      json_pack("{s:b, s:s}", "guest", guest, "reason",
                                guest ? "guest-reset" : "host-qmp-system-reset"));
    vm_snap_parked(vm);
    vm_loop_pause(vm);
    control_parked(vm->control);
    release(vm, false);
}

/* On the loop's thread: carries a request out once every vCPU has parked. */
static void on_wake(uv_async_t *a)
{
    struct vm *vm = a->data;
    pthread_mutex_lock(&vm->park_lock);
    enum vm_req req = vm->req;
    bool ready = req != VM_REQ_NONE && vm->parked == vm->nvcpu;
    if (ready)
        vm->req = VM_REQ_NONE;
    pthread_mutex_unlock(&vm->park_lock);
    if (!ready)
        return;
    if (req <= VM_REQ_RESET)
        vm_change_engine(vm);
    if (req >= VM_REQ_RESET)
        log_info("%s: %s", req == VM_REQ_RESET ? "reset" : "end", vm->req_why);
    bool goes_on = req < VM_REQ_RESET || (req == VM_REQ_RESET && !reset(vm, &vm->result));
    if (!goes_on)
        vm_save_cancel(vm);
    else if (!vm_save_parked(vm)) {
        go_on(vm, req == VM_REQ_RESET);
        return;
    }
    tell_end(vm, req);
    if (req == VM_REQ_SIGNAL)
        error_set(&vm->result, ERR_GUEST, "ended by a signal (%s); the guest was not shut down",
                  vm->req_why);
    if (req == VM_REQ_EXIT)
        error_set(&vm->result, ERR_GUEST, "the guest ended with %s", vm->req_why);
    if (req == VM_REQ_FAILED)
        error_set(&vm->result, ERR_STATE, "engine %s cannot go on", vm->req_why);
    release(vm, true);
    uv_stop(&vm->loop);
}

static void on_quit_key(void *arg)
{
    vm_request(arg, VM_REQ_QUIT, "left by the user");
}

static void on_power_key(void *arg)
{
    struct vm *vm = arg;
    pthread_mutex_lock(&vm->lock);
    pc_power_button(vm->pc);
    pthread_mutex_unlock(&vm->lock);
}

static void on_screen_key(void *arg, char *buf, size_t size)
{
    struct vm *vm = arg;
    pthread_mutex_lock(&vm->lock);
    pc_screen_text(vm->pc, buf, size);
    pthread_mutex_unlock(&vm->lock);
}

static void on_engine_key(void *arg)
{
    vm_next_engine(arg);
}

static void key_saved(void *arg, int rc, const struct error *e)
{
    const struct vm *vm = arg;
    char line[sizeof e->msg + 64];
    if (rc)
        snprintf(line, sizeof line, "not saved: %s", e->msg);
    else
        snprintf(line, sizeof line, "saved to %s", vm->save_file);
    char_terminal_say(vm->terminal, line);
}

static void on_save_key(void *arg)
{
    struct vm *vm = arg;
    struct error e;
    const struct vm_save s = {
        .path = vm->save_file, .then = VM_SAVE_QUIT, .done = key_saved, .arg = vm};
    if (!vm->save_file)
        char_terminal_say(vm->terminal, "not saved: start with --save FILE to say where");
    else if (vm_save(vm, &s, &e))
        key_saved(vm, e.code, &e);
}

/* ---- set-up ---- */

/* Seconds since 1970 as the guest's RTC shall show them now. */
static int64_t wall_clock(const struct spec *s)
{
    time_t now = time(NULL);
    if (s->clock == SPEC_CLOCK_UTC)
        return now;
    struct tm tm;
    localtime_r(&now, &tm);
    return (int64_t)now + tm.tm_gmtoff;
}

/* The terminal as the far end of the device with these ends. spec_check() lets no second have it.
 */
static int open_console(struct vm *vm, struct char_out *out, struct char_ready *ready,
                        struct error *e)
{
    const struct char_console_config cfg = {.log = vm->service->console_log,
                                            .old = vm->service->console_old,
                                            .delivered = control_delivered,
                                            .arg = vm->control};
    int rc = char_console_open(&vm->console, &vm->loop, &vm->lock, &cfg, e);
    if (rc)
        return rc;
    *out = char_console_out(vm->console);
    *ready = char_console_ready(vm->console);
    return 0;
}

static int open_terminal(struct vm *vm, struct char_out *out, struct char_ready *ready,
                         struct error *e)
{
    if (vm->service)
        return open_console(vm, out, ready, e);
    const struct char_terminal_hooks hooks = {.quit = on_quit_key,
                                              .power = on_power_key,
                                              .screen = on_screen_key,
                                              .engine = on_engine_key,
                                              .save = on_save_key,
                                              .arg = vm};
    int rc = char_terminal_open(&vm->terminal, &vm->loop, &vm->lock, &hooks, e);
    if (rc)
        return rc;
    *out = char_terminal_out(vm->terminal);
    *ready = char_terminal_ready(vm->terminal);
    return 0;
}

static int open_serial(struct vm *vm, struct pc_config *cfg, struct error *e)
{
    int rc = 0;
    switch (vm->spec->serial) {
    case SPEC_SERIAL_TERMINAL:
        return open_terminal(vm, &cfg->serial, &cfg->serial_ready, e);
    case SPEC_SERIAL_FILE:
        rc = char_file_open(&vm->serial_file, vm->spec->serial_file, &vm->loop, &vm->lock, e);
        if (rc)
            return rc;
        cfg->serial = char_file_out(vm->serial_file);
        return 0;
    case SPEC_SERIAL_NONE:
        return 0;
    }
    return 0;
}

/* The firmware's own messages (port 0x402), a line at a time, with -vv. */
static size_t debug_port(void *ctx, const uint8_t *buf, size_t len)
{
    (void)ctx;
    static char line[256];
    static size_t n;
    for (size_t k = 0; k < len; k++) {
        if (buf[k] != '\n' && n < sizeof line - 1) {
            line[n++] = (char)(buf[k] >= ' ' && buf[k] < 127 ? buf[k] : '?');
            continue;
        }
        line[n] = 0;
        n = 0;
        log_debug("firmware: %s", line);
    }
    return len;
}

static int build(struct vm *vm, struct error *e)
{
    const struct spec *s = vm->spec;
    int rc = ram_init(&vm->ram, s->memory, e);
    vm->ram.code_written = vm_code_written;
    vm->ram.code_ctx = vm;
    if (!rc)
        rc = x86_model_init(&vm->model, PC_TSC_HZ, e);
    if (!rc)
        rc = vm_loop_init(vm, e);
    if (!rc && vm->service)
        rc = control_open(&vm->control, vm, vm->service->control, vm->service->events, e);
    if (!rc)
        rc = vm_open_disks(vm, e);
    if (rc)
        return rc;
    struct pc_config cfg = {
        .spec = s,
        .ram = &vm->ram,
        .timers = &vm->timers,
        .host = vm_pc_host(vm),
        .cdrom = vm->cdrom,
        .floppy = vm->floppy,
        .debug = {.write = debug_port},
        .wall_clock = wall_clock(s),
    };
    memcpy(cfg.disk, vm->disk, sizeof cfg.disk);
    rc = open_serial(vm, &cfg, e);
    if (!rc && s->console == SPEC_CONSOLE_TERMINAL)
        rc = open_terminal(vm, &cfg.console, &cfg.console_ready, e);
    if (!rc)
        rc = pc_create(&vm->pc, &cfg, e);
    if (rc)
        return rc;
    struct char_in in =
        s->console == SPEC_CONSOLE_TERMINAL ? pc_console_in(vm->pc) : pc_serial_in(vm->pc);
    if (vm->terminal)
        char_terminal_set_in(vm->terminal, in);
    if (vm->console)
        char_console_set_in(vm->console, in);
    if (vm->serial_file)
        char_file_set_in(vm->serial_file, pc_serial_in(vm->pc));

    vm->engine = vm_choose_engine(s, e);
    if (!vm->engine)
        return ERR_HOST;
    for (unsigned n = 0; n < s->cpus && !rc; n++) {
        rc = vcpu_init(&vm->vcpu[n], vm, vm->engine, n, e);
        vm->nvcpu += !rc;
    }
    return rc;
}

int vm_create(struct vm *vm, const struct spec *s, const struct vmm_service *service,
              struct error *e)
{
    memset(vm, 0, sizeof *vm);
    vm->spec = s;
    vm->service = service;
    vm->ram.fd = vm->timer_fd = -1;
    pthread_mutex_init(&vm->lock, NULL);
    pthread_mutex_init(&vm->park_lock, NULL);
    pthread_cond_init(&vm->park_cond, NULL);
    vclock_init(&vm->clock);
    timerq_init(&vm->timers, &vm->clock);
    int rc = uv_loop_init(&vm->loop);
    if (!rc)
        rc = uv_async_init(&vm->loop, &vm->wake, on_wake);
    if (rc)
        return error_set(e, ERR_HOST, "cannot set up the event loop: %s", uv_strerror(rc));
    vm->wake.data = vm;
    log_info("%s: a pc with %u vCPU%s and %llu MiB of memory", s->name ? s->name : "vm", s->cpus,
             s->cpus == 1 ? "" : "s", (unsigned long long)(s->memory / MIB));
    rc = build(vm, e);
    if (rc)
        vm_destroy(vm);
    return rc;
}

/* The sanitizers look at the process in ways that no VM needs. */
bool vm_is_sandboxed(const struct vm *vm)
{
    return vm->service && !SOSIA_SANITIZED;
}

bool vm_has_remote_disk(const struct spec *s)
{
    for (unsigned i = 0; i < s->ndisk; i++) {
        const struct spec_disk *d = &s->disk[i];
        for (unsigned k = 0; k < d->members.n; k++)
            if (url_is_remote(d->members.path[k]))
                return true;
        if (url_is_remote(d->file))
            return true;
    }
    return false;
}

int vm_run(struct vm *vm, struct error *e)
{
    int rc = vm->restored ? 0 : pc_boot(vm->pc, vm->vcpu[0].cpu, e);
    if (rc)
        return rc;
    if (vm->restored)
        vm_clock_resume(vm);
    if (vm_is_sandboxed(vm))
        rc = sandbox_enter(SANDBOX_PROCESS, vm_has_remote_disk(vm->spec), e);
    if (rc)
        return rc;
    for (unsigned n = 0; n < vm->nvcpu; n++) {
        rc = vcpu_start(&vm->vcpu[n], e);
        if (rc) { /* those that run already must end */
            pthread_mutex_lock(&vm->park_lock);
            vm->stop = true;
            pthread_mutex_unlock(&vm->park_lock);
            release(vm, true);
            return rc;
        }
    }
    if (vm->service && vm->service->changed)
        vm->service->changed(vm->service->arg, VMM_READY);
    uv_run(&vm->loop, UV_RUN_DEFAULT);
    if (vm->result.code && e)
        *e = vm->result;
    return vm->result.code;
}

void vm_destroy(struct vm *vm)
{
    for (unsigned n = 0; n < vm->nvcpu; n++)
        vcpu_join(&vm->vcpu[n]);
    vm_snap_end(vm);
    /* From here on no vCPU thread exists; requests in flight on disks still complete under the
     * lock, and post to vCPUs. */
    for (unsigned n = 0; n < SPEC_MAX_DISKS; n++)
        blk_close(vm->disk[n]);
    blk_close(vm->cdrom);
    blk_close(vm->floppy);
    char_terminal_close(vm->terminal);
    char_console_close(vm->console);
    control_close(vm->control);
    if (vm->serial_file)
        char_file_close(vm->serial_file);
    vm_loop_fini(vm);
    pc_destroy(vm->pc);
    timerq_fini(&vm->timers);
    for (unsigned n = 0; n < vm->nvcpu; n++)
        vcpu_fini(&vm->vcpu[n]);
    ram_fini(&vm->ram);
    pthread_cond_destroy(&vm->park_cond);
    pthread_mutex_destroy(&vm->park_lock);
    pthread_mutex_destroy(&vm->lock);
}
