/* arena.c - memory for translations: code, mapped twice, and data. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bigmem.h"
#include "engine/jit/jit.h"
#include "engine/jit/log.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u /* Linux 6.3: needed where vm.memfd_noexec is set */
#endif

static int open_memory(const struct jit *j, struct error *e)
{
    int fd = memfd_create("sosia-jit", MFD_CLOEXEC | MFD_EXEC);
    if (fd < 0 && errno == EINVAL) /* a kernel that does not know MFD_EXEC */
        fd = memfd_create("sosia-jit", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)j->size)) {
        close(fd);
        fd = -1;
    }
    return fd < 0 ? error_errno(e, ERR_HOST, errno, "cannot create executable memory") : fd;
}

int jit_arena_create(struct jit *j, uint64_t code, uint64_t data, struct error *e)
{
    j->data = bigmem_alloc(data);
    if (!j->data)
        return error_set(e, ERR_NOMEM, "out of memory for the translator");
    j->data_size = data;
    j->size = code;
    int fd = -1; /* anonymous memory: perf looks into its map for that only */
    if (!jit_log_perf() && (fd = open_memory(j, e)) < 0)
        return fd;
    j->rw = bigmem_map(fd, code, PROT_READ | PROT_WRITE);
    j->rx = j->rw ? bigmem_map_again(j->rw, code, PROT_READ | PROT_EXEC) : NULL;
    int err = errno;
    if (fd >= 0)
        close(fd);
    if (!j->rx)
        return error_errno(e, ERR_HOST, err, "cannot map executable memory");
    return 0;
}

void jit_arena_destroy(struct jit *j)
{
    bigmem_free(j->rw, j->size);
    bigmem_free(j->rx, j->size);
    bigmem_free(j->data, j->data_size);
}

void jit_arena_grown(struct jit *j, uint64_t before)
{
    const uint64_t step = 2 * MIB, from = before & ~(step - 1);
    if (j->used - from >= step)
        bigmem_collapse(j->rx + from, (j->used & ~(step - 1)) - from);
}

void *jit_data_alloc(struct jit *j, size_t len)
{
    len = (len + 7) & ~(size_t)7;
    if (j->data_size - j->data_used < len)
        return NULL;
    void *p = j->data + j->data_used;
    j->data_used += len;
    memset(p, 0, len);
    return p;
}

struct jit_tb *jit_tb_alloc(struct jit *j)
{
    uint64_t at = (j->data_used + JIT_TB_ALIGN - 1) & ~(uint64_t)(JIT_TB_ALIGN - 1);
    if (at > j->data_size)
        return NULL;
    j->data_used = at;
    return jit_data_alloc(j, sizeof(struct jit_tb));
}

/* IRET is the serializing instruction that a hypervisor below us does not intercept. */
void jit_serialize(void)
{
    __asm__ volatile("mov %%rsp, %%rax\n\t"
                     "lea -128(%%rsp), %%rsp\n\t" /* the red zone */
                     "and $-16, %%rsp\n\t"
                     "mov %%ss, %%ecx\n\t"
                     "push %%rcx\n\t"
                     "push %%rax\n\t"
                     "pushfq\n\t"
                     "mov %%cs, %%ecx\n\t"
                     "push %%rcx\n\t"
                     "lea 1f(%%rip), %%rcx\n\t"
                     "push %%rcx\n\t"
                     "iretq\n"
                     "1:"
                     :
                     :
                     : "rax", "rcx", "memory", "cc");
}
