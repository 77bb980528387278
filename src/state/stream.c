/* stream.c - what saving and loading a stream share; see stream.h. */
#include "state/stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <zlib.h>

#include "state/section.h"

uint32_t state_crc(uint32_t crc, const void *p, size_t len)
{
    return (uint32_t)crc32_z(crc, p, len);
}

unsigned state_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned)min_u64((uint64_t)n, STATE_MAX_THREADS);
}

/* ---- lists ---- */

void state_add_part(struct state_list *l, const struct field_table *table, void *obj,
                    const char *fmt, ...)
{
    if (l->nparts++ >= STATE_MAX_PARTS)
        return;
    struct state_part *p = &l->part[l->nparts - 1];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->name, sizeof p->name, fmt, ap);
    va_end(ap);
    p->table = table;
    p->obj = obj;
}

void state_add_memory(struct state_list *l, struct state_memory m)
{
    if (l->nmemories++ < STATE_MAX_MEMORIES)
        l->memory[l->nmemories - 1] = m;
}

int state_check_list(const struct state_list *l, struct error *e)
{
    if (l->nparts > STATE_MAX_PARTS || l->nmemories > STATE_MAX_MEMORIES)
        return error_set(e, ERR_LIMIT, "the machine has more parts than a saved state can have");
    return 0;
}
