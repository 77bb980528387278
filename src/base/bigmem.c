/* bigmem.c - see bigmem.h. */
#define _GNU_SOURCE
#include "base/bigmem.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/types.h"

#define LARGE (2 * MIB)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

static size_t whole(size_t len)
{
    return (len + LARGE - 1) & ~(LARGE - 1);
}

/* Addresses alone. */
static void *reserve(size_t len)
{
    uint8_t *p =
        mmap(NULL, len + LARGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)p & (LARGE - 1);
    if (before)
        munmap(p, before);
    if (before < LARGE)
        munmap(p + before + len, LARGE - before);
    return p + before;
}

static void *map(int fd, size_t len, int prot, int flags)
{
    void *p = reserve(whole(len));
    if (!p)
        return NULL;
    if (mmap(p, len, prot, flags | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED) {
        bigmem_free(p, len);
        return NULL;
    }
    madvise(p, len, MADV_HUGEPAGE); /* where there are none, it works all the same */
    return p;
}

void *bigmem_alloc(size_t len)
{
    return map(-1, whole(len), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
}

void bigmem_touch(void *p, size_t len)
{
    volatile uint8_t *b = p;
    for (size_t at = 0; at < len; at += PAGE_SIZE)
        b[at] = 0;
}

void *bigmem_map(int fd, size_t len, int prot)
{
    return map(fd, len, prot, fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED);
}

void *bigmem_map_again(void *p, size_t len, int prot)
{
    void *to = reserve(whole(len));
    if (!to)
        return NULL;
    if (mremap(p, 0, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ||
        mprotect(to, len, prot)) {
        bigmem_free(to, len);
        return NULL;
    }
    madvise(to, len, MADV_HUGEPAGE);
    return to;
}

void bigmem_collapse(void *p, size_t len)
{
    madvise(p, len, MADV_COLLAPSE);
}

void bigmem_free(void *p, size_t len)
{
    if (p)
        munmap(p, whole(len));
}
