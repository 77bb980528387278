/*
 * bigmem.h - memory that is looked up all over: in large pages where the host gives them, so that
 * a look-up does not miss the host's TLB, too.
 */
#ifndef SOSIA_BASE_BIGMEM_H
#define SOSIA_BASE_BIGMEM_H

#include <stdbool.h>
#include <stddef.h>

/* All are aligned to 2 MiB, and NULL (errno) if there is no room. */

/* Zeroed; takes space where it is touched. */
void *bigmem_alloc(size_t len);
/* Its first `len` bytes take space now. */
void bigmem_touch(void *p, size_t len);
/* Shared memory: the file's first `len` bytes, `prot` as for mmap(2). */
void *bigmem_map(int fd, size_t len, int prot);
/* The same memory as at `p`, which bigmem_map() gave, once more. */
void *bigmem_map_again(void *p, size_t len, int prot);
/* What has been filled meanwhile, of memory that bigmem_map() gave, becomes large pages also on
 * hosts that do not make them of shared memory otherwise. Costs a copy of it. */
void bigmem_collapse(void *p, size_t len);
/* NULL is allowed. */
void bigmem_free(void *p, size_t len);

#endif
