/* bigmem.c - see bigmem.h. */
#define _GNU_SOURCE
#include "base/bigmem.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/types.h"

#define LARGE (2 * MIB)

static size_t whole(size_t len)
{
    return (len + LARGE - 1) & ~(LARGE - 1);
}

void *bigmem_alloc(size_t len)
{
    len = whole(len);
    uint8_t *p = mmap(NULL, len + LARGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)p & (LARGE - 1);
    if (before)
        munmap(p, before);
    if (before < LARGE)
        munmap(p + before + len, LARGE - before);
    madvise(p + before, len, MADV_HUGEPAGE); /* where there are none, it works all the same */
    return p + before;
}

void bigmem_free(void *p, size_t len)
{
    if (p)
        munmap(p, whole(len));
}
