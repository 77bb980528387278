/* vmm.c - the entry point: one VM, from spec to power-off. */
#include "vmm/vmm.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "engine/jit/log.h"
#include "vmm/sandbox.h"
#include "vmm/vm.h"

static int run(struct vm *vm, const struct vmm_options *o, struct error *e)
{
    vm->save_file = o->save;
    vm->restored = o->state;
    int rc = o->state ? vm_load_file(vm, o->state, e) : 0;
    return rc ? rc : vm_run(vm, e);
}

int vmm_run(const struct spec *s, const struct vmm_options *o, struct error *e)
{
    log_set_level(o->verbose >= 2 ? LOG_DEBUG : o->verbose == 1 ? LOG_INFO : LOG_WARN);
    if (o->service && !SOSIA_SANITIZED)
        sandbox_namespaces(vm_has_remote_disk(s));
    struct vm *vm = malloc(sizeof *vm);
    if (!vm)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = jit_log_start(o->log_code, o->perf_map, e);
    if (!rc) {
        rc = vm_create(vm, s, o->service, e);
        if (!rc) {
            rc = run(vm, o, e);
            if (o->why)
                snprintf(o->why, VMM_WHY, "%s", vm->req_why);
            vm_destroy(vm);
        }
        jit_log_stop();
    }
    free(vm);
    return rc;
}
