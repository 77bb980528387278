/* life.c - `sosia start`, `stop`, `restart`, `reset`, `pause`, `resume`, `engine`. */
#include <string.h>
#include <unistd.h>

#include "catalog/launch.h"
#include "catalog/layer.h"
#include "catalog/remote.h"
#include "catalog/saved.h"
#include "catalog/watch.h"
#include "cli/life.h"

#define ANSWER_MS  15000 /* of the VMM, which answers at once unless the host is busy */
#define STOP_MS    90000
#define PRESS_MS   5000
#define SUSPEND_MS 600000 /* all of the memory is written */
#define PLUG_MS    10000  /* from "quit" to the end: disks are flushed */

/* ---- what one waits for is shown, on a terminal ---- */

void life_show(void *vm)
{
    char line[120];
    if (!isatty(STDERR_FILENO))
        return;
    vms_last_line(vm, line, sizeof line);
    fprintf(stderr, "\r\033[K%.75s", line);
}

void life_hide(void)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}

/* ---- start ---- */

int life_launch(struct vm *vm, struct error *e)
{
    struct spec s;
    int rc = vm_spec_load(vm, NULL, 0, &s, e);
    if (rc)
        return rc;
    rc = spec_check(&s, e);
    if (!rc)
        rc = vm_layers_check(vm, e);
    if (!rc)
        rc = vm_saved_check(vm, &s, e);
    if (!rc)
        rc = vm_launch(vm, &s, e);
    spec_fini(&s);
    return rc;
}

/* Of one that is to be attached to, its console says the rest. */
static int started(const struct cli_args *a, const struct vm *vm, char said[VMS_SAID],
                   struct error *e)
{
    struct vm_status s;
    vm_status_read(vm, &s);
    if (cli_has(a, CLI_ATTACH))
        return console_attach(vm, e);
    snprintf(said, VMS_SAID, "%s is running (process %d)", vm->name, s.pid);
    return 0;
}

static int check_attach(const struct cli_args *a, struct error *e)
{
    if (!cli_has(a, CLI_ATTACH) || a->npos == 1)
        return 0;
    return error_set(e, ERR_USAGE, "--console is for one VM, and %d are named", a->npos);
}

static int start(const struct cli_args *a, struct vm *vm, char said[VMS_SAID], struct error *e)
{
    int rc = life_launch(vm, e);
    vm_unlock(vm);
    return rc ? rc : started(a, vm, said, e);
}

int cli_start(const struct cli_args *a, struct error *e)
{
    int rc = check_attach(a, e);
    return rc ? rc : vms_each(a, VM_FIND_CHANGE, start, e);
}

/* ---- stop ---- */

static int not_running(const struct vm *vm, const struct vm_status *s, struct error *e)
{
    return error_set(e, ERR_STATE, "%s is %s; `sosia start %s` starts it", vm->name,
                     vm_run_words[s->run], vm->name);
}

/* The plug: by its socket, and by force if it does not hear. */
static int pull_plug(const struct vm *vm, struct vm_watch *w, struct error *e)
{
    struct remote r;
    if (remote_open(&r, vm, e) == 0) {
        remote_call(&r, "quit", NULL, ANSWER_MS, NULL, e);
        remote_close(&r);
        if (vm_watch_end(w, PLUG_MS, NULL, NULL))
            return 0;
    }
    vm_watch_kill(w);
    if (vm_watch_end(w, PLUG_MS, NULL, NULL))
        return 0;
    return error_set(e, ERR_TIMEOUT,
                     "%s does not end, not even by SIGKILL: the host waits for "
                     "its disk or memory",
                     vm->name);
}

int life_pull_plug(const struct vm *vm, struct error *e)
{
    struct vm_watch w;
    int rc = vm_watch_open(&w, vm, e);
    if (rc)
        return rc;
    rc = pull_plug(vm, &w, e);
    vm_watch_close(&w);
    return rc;
}

static int press(const struct vm *vm, struct error *e)
{
    struct remote r;
    int rc = remote_open(&r, vm, e);
    if (rc)
        return rc;
    rc = remote_call(&r, "system_powerdown", NULL, ANSWER_MS, NULL, e);
    remote_close(&r);
    return rc;
}

/* The button is pressed again and again, ever more rarely: a guest that boots does not hear it. */
static int ask_guest(const struct vm *vm, struct vm_watch *w, int64_t ms, struct error *e)
{
    struct vm here = *vm;
    struct error unused;
    bool ended = false;
    int rc = press(vm, e);
    for (int64_t left = ms, turn = PRESS_MS; !rc && !ended && left > 0; turn *= 2) {
        int64_t step = left < turn ? left : turn;
        ended = vm_watch_end(w, step, life_show, &here);
        left -= step;
        if (!ended && left)
            press(vm, &unused);
    }
    life_hide();
    if (rc || ended)
        return rc;
    return error_set(e, ERR_TIMEOUT,
                     "%s has not powered off within %lld s; `sosia stop -f %s` pulls its plug",
                     vm->name, (long long)(ms / 1000), vm->name);
}

static int end(const struct cli_args *a, const struct vm *vm, struct error *e)
{
    struct vm_status s;
    struct vm_watch w;
    int64_t ms;
    int rc = cli_seconds(a, CLI_TIMEOUT_S, STOP_MS, &ms, e);
    if (rc)
        return rc;
    vm_status_read(vm, &s);
    if (s.run == VM_SUSPENDED && cli_has(a, CLI_FORCE))
        return vm_forget_state(vm, e);
    if (!vm_is_alive(&s))
        return not_running(vm, &s, e);
    if (s.run == VM_PAUSED && !cli_has(a, CLI_FORCE))
        return error_set(e, ERR_STATE,
                         "%s is paused, and cannot hear; `sosia resume %s` first, or `sosia stop "
                         "-f %s`",
                         vm->name, vm->name, vm->name);
    rc = vm_watch_open(&w, vm, e);
    if (rc)
        return rc;
    rc = cli_has(a, CLI_FORCE) ? pull_plug(vm, &w, e) : ask_guest(vm, &w, ms, e);
    vm_watch_close(&w);
    return rc;
}

static int stop(const struct cli_args *a, struct vm *vm, char said[VMS_SAID], struct error *e)
{
    snprintf(said, VMS_SAID, "%s is stopped", vm->name);
    return end(a, vm, e);
}

int cli_stop(const struct cli_args *a, struct error *e)
{
    return vms_each(a, VM_FIND_READ, stop, e);
}

static int restart(const struct cli_args *a, struct vm *vm, char said[VMS_SAID], struct error *e)
{
    struct catalog c;
    struct vm changing;
    int rc = end(a, vm, e);
    if (!rc)
        rc = vms_open(&c, vm->name, VM_FIND_CHANGE, &changing, e);
    if (rc)
        return rc;
    rc = life_launch(&changing, e);
    vm_close(&changing);
    catalog_close(&c);
    return rc ? rc : started(a, vm, said, e);
}

int cli_restart(const struct cli_args *a, struct error *e)
{
    int rc = check_attach(a, e);
    return rc ? rc : vms_each(a, VM_FIND_READ, restart, e);
}

/* ---- suspend ---- */

/* Its process has ended, whatever it answered: killed before its end, or suspended because somebody
 * else had asked for it, too. */
static int check_suspended(const struct vm *vm, int rc, struct error *e)
{
    struct vm_status s;
    vm_status_read(vm, &s);
    if (s.run == VM_CRASHED)
        return error_set(e, ERR_GUEST, "%s is not suspended: %s", vm->name, s.reason);
    return s.run == VM_SUSPENDED ? 0 : rc;
}

int life_suspend(const struct vm *vm, struct error *e)
{
    struct remote r;
    struct vm_watch w;
    bool ended = false;
    int rc = remote_open(&r, vm, e);
    if (rc)
        return rc;
    rc = vm_watch_open(&w, vm, e);
    if (!rc) {
        rc = remote_call(&r, "x-sosia-suspend", NULL, SUSPEND_MS, NULL, e);
        ended = vm_watch_end(&w, rc == 0 ? SUSPEND_MS : rc == ERR_IO ? PLUG_MS : 0, NULL, NULL);
        if (!rc && !ended)
            rc = error_set(e, ERR_TIMEOUT, "%s is suspended, but its process does not end",
                           vm->name);
        vm_watch_close(&w);
    }
    remote_close(&r);
    return ended ? check_suspended(vm, rc, e) : rc;
}

static int suspend(const struct cli_args *a, struct vm *vm, char said[VMS_SAID], struct error *e)
{
    snprintf(said, VMS_SAID, "%s is suspended; `sosia start` lets it go on", vm->name);
    return life_suspend(vm, e);
}

int cli_suspend(const struct cli_args *a, struct error *e)
{
    return vms_each(a, VM_FIND_READ, suspend, e);
}

/* ---- one command each ---- */

/* Takes over `args`. */
static int command(const struct vm *vm, const char *name, json_t *args, struct error *e)
{
    struct remote r;
    int rc = remote_open(&r, vm, e);
    if (rc) {
        json_decref(args);
        return rc;
    }
    rc = remote_call(&r, name, args, ANSWER_MS, NULL, e);
    remote_close(&r);
    return rc;
}

static int reset(const struct cli_args *a, struct vm *vm, char said[VMS_SAID], struct error *e)
{
    snprintf(said, VMS_SAID, "%s is reset", vm->name);
    return command(vm, "system_reset", NULL, e);
}

int cli_reset(const struct cli_args *a, struct error *e)
{
    return vms_each(a, VM_FIND_READ, reset, e);
}

static int pause_it(const struct cli_args *a, struct vm *vm, char said[VMS_SAID], struct error *e)
{
    snprintf(said, VMS_SAID, "%s is paused", vm->name);
    return command(vm, "stop", NULL, e);
}

int cli_pause(const struct cli_args *a, struct error *e)
{
    return vms_each(a, VM_FIND_READ, pause_it, e);
}

static int resume(const struct cli_args *a, struct vm *vm, char said[VMS_SAID], struct error *e)
{
    snprintf(said, VMS_SAID, "%s goes on", vm->name);
    return command(vm, "cont", NULL, e);
}

int cli_resume(const struct cli_args *a, struct error *e)
{
    return vms_each(a, VM_FIND_READ, resume, e);
}

int cli_engine(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    int rc = vms_open(&c, a->pos[0], VM_FIND_READ, &vm, e);
    if (rc)
        return rc;
    rc = command(&vm, "x-sosia-engine", json_pack("{s:s}", "engine", a->pos[1]), e);
    if (!rc)
        rc = vms_done(a, &vm, e, "%s goes on with the engine %s", vm.name, a->pos[1]);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}
