/*
 * boundary.h - what a vCPU does between two instructions, whatever engine executes them: events
 * from outside, and the conditions for which every instruction must be looked at (cpu->slow).
 */
#ifndef SOSIA_ENGINE_BOUNDARY_H
#define SOSIA_ENGINE_BOUNDARY_H

#include "engine/engine.h"

/* Reports debug traps, handles `pending` and `activity`. Returns false if run() shall return *why.
 */
bool boundary_look(struct x86_cpu *c, enum engine_exit *why);
/* The debug traps of the instruction just executed, before any interrupt (SDM table 6-2); dr6:
 * those beside cpu->db_hit. They are held back behind MOV SS (SDM 6.8.3). */
void boundary_report_traps(struct x86_cpu *c, uint64_t dr6);
/* One instruction with everything that `slow` stands for. */
void boundary_step(struct x86_cpu *c);
/* At the landing place of x86_raise(): winds back what the faulting instruction had begun and
 * delivers the exception. */
void boundary_deliver(struct x86_cpu *c);

static inline bool boundary_needed(const struct x86_cpu *c)
{
    return atomic_load_explicit(&c->pending, memory_order_relaxed) | c->slow |
           (uint32_t)c->s.activity;
}

#endif
