/*
 * engine.h - a way to execute guest instructions. Engines are const tables of functions; a vCPU's
 * architectural state is complete in memory whenever run() is not executing.
 */
#ifndef SOSIA_ENGINE_ENGINE_H
#define SOSIA_ENGINE_ENGINE_H

#include "base/error.h"
#include "isa/x86/cpu.h"

enum engine_exit {
    ENGINE_EXIT_KICK,     /* X86_PEND_KICK was set */
    ENGINE_EXIT_HALT,     /* nothing to do until `pending` changes (HLT, wait for SIPI) */
    ENGINE_EXIT_SHUTDOWN, /* triple fault */
    ENGINE_EXIT_FAILED,   /* the engine is at its end; it has said why in the log */
};

struct engine {
    const char *name;
    const char *technique; /* one phrase for -v and --help */
    /* Can this host run it? 0 or ERR_HOST with the reason. */
    int (*probe)(struct error *e);
    /* The engine's part of a vCPU whose struct x86_cpu is filled in (bus, mem, ram, model). */
    int (*vcpu_create)(struct x86_cpu *c, struct error *e);
    void (*vcpu_destroy)(struct x86_cpu *c);
    /* Executes until there is a reason not to. Only the vCPU's own thread calls it. */
    enum engine_exit (*run)(struct x86_cpu *c);
};

/* What vcpu_create() adds to a vCPU. A vCPU that does not run changes its engine by exchanging the
 * present part for another one. */
struct engine_part {
    struct x86_code *code;
    struct x86_native *native;
    struct jit *jit;
};
/* The new engine's part, made beside the one in use; *p is undefined if it fails. */
int engine_part_create(const struct engine *engine, struct x86_cpu *c, struct engine_part *p,
                       struct error *e);
void engine_part_destroy(const struct engine *engine, struct x86_cpu *c, struct engine_part *p);
void engine_part_swap(struct x86_cpu *c, struct engine_part *p);

extern const struct engine engine_interp, engine_jit;
extern const struct engine engine_lockstep; /* for debugging, hence not in the list */

/* All engines, fastest first, NULL at the end. */
extern const struct engine *const engine_list[];
/* The first of the list that this host can run; `why` (may be NULL) receives one line that says so.
 */
const struct engine *engine_auto(char *why, size_t len);
const struct engine *engine_by_name(const char *name);

#endif
