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

static void *map(size_t len, int prot, int flags, int fd)
{
    void *p = mmap(NULL, len, prot, flags, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* As anonymous memory: perf looks into its map for that only. */
static int map_for_perf(struct jit *j, struct error *e)
{
    j->rw = map(j->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
    void *again = j->rw ? mremap(j->rw, 0, j->size, MREMAP_MAYMOVE) : MAP_FAILED;
    if (again == MAP_FAILED)
        return error_errno(e, ERR_HOST, errno, "cannot map memory for translations");
    j->rx = again;
    if (mprotect(again, j->size, PROT_READ | PROT_EXEC))
        return error_errno(e, ERR_HOST, errno, "cannot map executable memory");
    return 0;
}

int jit_arena_create(struct jit *j, uint64_t code, uint64_t data, struct error *e)
{
    j->data = bigmem_alloc(data);
    if (!j->data)
        return error_set(e, ERR_NOMEM, "out of memory for the translator");
    j->data_size = data;
    j->size = code;
    if (jit_log_perf())
        return map_for_perf(j, e);
    int fd = memfd_create("sosia-jit", MFD_CLOEXEC | MFD_EXEC);
    if (fd < 0 && errno == EINVAL) /* a kernel that does not know MFD_EXEC */
        fd = memfd_create("sosia-jit", MFD_CLOEXEC);
    if (fd < 0)
        return error_errno(e, ERR_HOST, errno, "cannot create executable memory");
    if (ftruncate(fd, (off_t)code) == 0) {
        j->rw = map(code, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
        j->rx = map(code, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    }
    int err = errno;
    close(fd);
    if (!j->rw || !j->rx)
        return error_errno(e, ERR_HOST, err, "cannot map executable memory");
    return 0;
}

void jit_arena_destroy(struct jit *j)
{
    if (j->rw)
        munmap(j->rw, j->size);
    if (j->rx)
        munmap(j->rx, j->size);
    bigmem_free(j->data, j->data_size);
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
