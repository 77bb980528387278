/* engine.c - the list of engines and the choice among them. */
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>

const struct engine *const engine_list[] = {&engine_interp, &engine_jit, NULL};

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
    return NULL;
}
