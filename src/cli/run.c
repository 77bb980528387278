/* run.c - `sosia run`: a VM in this process, its serial port on this terminal. */
#include <signal.h>

#include <unistd.h>

#include "catalog/layer.h"
#include "catalog/lock.h"
#include "cli/vms.h"
#include "vmm/vmm.h"

/* A VM of the catalog that runs here is as alive as one in the background. */
struct held {
    int lock; /* -1: it is none of the catalog */
    struct vm_record record;
};

static int take(struct held *h, struct vm *vm, struct error *e)
{
    struct vm_status s;
    vm_status_read(vm, &s);
    if (s.run == VM_SUSPENDED)
        return error_set(e, ERR_STATE, "%s is suspended; `sosia start %s` lets it go on", vm->name,
                         vm->name);
    int rc = vm_layers_check(vm, e);
    if (rc)
        return rc;
    h->lock = vm_lock_open(vm->dir, true, e);
    if (h->lock < 0)
        return h->lock;
    if (!vm_lock_try(h->lock, VM_LOCK_ALIVE) || !vm_lock_try(h->lock, VM_LOCK_READY))
        return error_set(e, ERR_STATE, "%s runs already", vm->name);
    return vm_record_begin(&h->record, vm->dir, "auto", NULL, e);
}

static int hold(struct held *h, const char *name, struct error *e)
{
    struct catalog c;
    struct vm vm;
    *h = (struct held){.lock = -1, .record = {.fd = -1}};
    if (cli_is_file(name))
        return 0;
    int rc = vms_open(&c, name, VM_FIND_CHANGE, &vm, e);
    if (rc)
        return rc;
    rc = take(h, &vm, e);
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}

static void let_go(struct held *h, int rc, const struct error *e)
{
    if (h->record.fd >= 0)
        vm_record_end(&h->record, rc && rc != ERR_GUEST ? "failed" : "off",
                      rc ? e->msg : "power-off", NULL);
    if (h->lock >= 0)
        close(h->lock);
}

int cli_run(const struct cli_args *a, struct error *e)
{
    struct spec s;
    int r = cli_load_spec(a, &s, e);

    if (r < 0)
        return r;
    /* Whoever reads the guest's output may leave; the guest goes on. */
    signal(SIGPIPE, SIG_IGN);
    const struct vmm_options o = {.verbose = (int)a->count[CLI_VERBOSE],
                                  .log_code = a->value[CLI_LOG_CODE],
                                  .state = a->value[CLI_FROM_STATE],
                                  .save = a->value[CLI_SAVE_TO],
                                  .perf_map = cli_has(a, CLI_PERF_MAP)};
    struct held h;
    r = hold(&h, a->pos[0], e);
    if (!r)
        r = vmm_run(&s, &o, e);
    let_go(&h, r, e);
    spec_fini(&s);
    return r;
}
