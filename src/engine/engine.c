/* engine.c - the list of engines and the choice among them; exchanging their parts of a vCPU. */
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>

const struct engine *const engine_list[] = {&engine_jit, &engine_interp, NULL};

const struct engine *engine_auto(char *why, size_t len)
{
    struct error e = {0};
    for (unsigned n = 0; engine_list[n]; n++) {
        if (engine_list[n]->probe(&e))
            continue;
        if (why)
            snprintf(why, len, "engine %s (%s): the fastest that works here", engine_list[n]->name,
                     engine_list[n]->technique);
        return engine_list[n];
    }
    if (why)
        snprintf(why, len, "%s", e.msg);
    return NULL;
}

const struct engine *engine_by_name(const char *name)
{
    for (unsigned n = 0; engine_list[n]; n++)
        if (!strcmp(engine_list[n]->name, name))
            return engine_list[n];
    return strcmp(engine_lockstep.name, name) ? NULL : &engine_lockstep;
}

void engine_part_swap(struct x86_cpu *c, struct engine_part *p)
{
    struct engine_part was = {c->code, c->native, c->jit};
    c->code = p->code;
    c->native = p->native;
    c->jit = p->jit;
    *p = was;
}

int engine_part_create(const struct engine *engine, struct x86_cpu *c, struct engine_part *p,
                       struct error *e)
{
    *p = (struct engine_part){0};
    engine_part_swap(c, p);
    int rc = engine->vcpu_create(c, e);
    engine_part_swap(c, p);
    return rc;
}

void engine_part_destroy(const struct engine *engine, struct x86_cpu *c, struct engine_part *p)
{
    engine_part_swap(c, p);
    engine->vcpu_destroy(c);
    engine_part_swap(c, p);
}
