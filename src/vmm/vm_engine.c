/*
 * vm_engine.c - which engine runs the VM: the choice at its start, and the change while it runs.
 *
 * All vCPUs change together, while they are parked: the new parts are made first, and only when all
 * of them exist are they put in the places of the old ones. So a failure changes nothing.
 */
#include <stdio.h>

#include "base/log.h"
#include "vmm/vm.h"

const struct engine *vm_choose_engine(const struct spec *s, struct error *e)
{
    char why[160];
    const struct engine *engine = NULL;
    switch (s->engine) {
    case SPEC_ENGINE_AUTO:
        engine = engine_auto(why, sizeof why);
        if (!engine)
            error_set(e, ERR_HOST, "no engine works on this host: %s", why);
        else
            log_info("%s", why);
        return engine;
    case SPEC_ENGINE_INTERP:
        engine = engine_by_name("interp");
        break;
    case SPEC_ENGINE_JIT:
        engine = engine_by_name("jit");
        break;
    case SPEC_ENGINE_LOCKSTEP:
        engine = engine_by_name("lockstep");
        break;
    }
    if (engine->probe(e))
        return NULL;
    log_info("engine %s (%s): as the spec asks", engine->name, engine->technique);
    return engine;
}

/* The next one in the list that this host can run; the same if there is no other. */
static const struct engine *after(const struct engine *engine)
{
    struct error e;
    unsigned n = 0, count = 0;
    for (; engine_list[count]; count++)
        if (engine_list[count] == engine)
            n = count;
    do
        n = (n + 1) % count;
    while (engine_list[n] != engine && engine_list[n]->probe(&e));
    return engine_list[n];
}

void vm_next_engine(struct vm *vm)
{
    vm_set_engine(vm, after(vm->engine_wanted ? vm->engine_wanted : vm->engine));
}

void vm_set_engine(struct vm *vm, const struct engine *to)
{
    vm->engine_wanted = to;
    vm_request(vm, VM_REQ_WORK, "another engine");
}

static void destroy_parts(struct vm *vm, const struct engine *engine, struct engine_part *part,
                          unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        engine_part_destroy(engine, vm->vcpu[n].cpu, &part[n]);
}

static int change(struct vm *vm, const struct engine *to, struct error *e)
{
    struct engine_part part[ARRAY_LEN(vm->vcpu)];
    const struct engine *from = vm->engine;
    for (unsigned n = 0; n < vm->nvcpu; n++) {
        int rc = engine_part_create(to, vm->vcpu[n].cpu, &part[n], e);
        if (rc) {
            destroy_parts(vm, to, part, n);
            return rc;
        }
    }
    for (unsigned n = 0; n < vm->nvcpu; n++) {
        engine_part_swap(vm->vcpu[n].cpu, &part[n]);
        vm->vcpu[n].engine = to;
    }
    vm->engine = to;
    destroy_parts(vm, from, part, vm->nvcpu);
    return 0;
}

void vm_change_engine(struct vm *vm)
{
    const struct engine *to = vm->engine_wanted;
    struct error e = {0};
    char *line = vm->engine_line;
    if (!to)
        return;
    vm->engine_wanted = NULL;
    if (to != vm->engine && change(vm, to, &e))
        snprintf(line, sizeof vm->engine_line, "the engine stays %s: %s", vm->engine->name, e.msg);
    else
        snprintf(line, sizeof vm->engine_line, "engine %s (%s)", to->name, to->technique);
    if (vm->terminal)
        char_terminal_say(vm->terminal, line);
    if (vm->service)
        log_info("%s", line);
    control_event(vm->control, "X_SOSIA_ENGINE", json_pack("{s:s}", "engine", vm->engine->name));
}
