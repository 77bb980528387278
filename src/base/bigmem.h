/*
 * bigmem.h - memory for large tables that are looked up all over: in large pages where the host
 * gives them, so that a look-up does not miss the host's TLB, too.
 */
#ifndef SOSIA_BASE_BIGMEM_H
#define SOSIA_BASE_BIGMEM_H

#include <stddef.h>

/* Zeroed, aligned to 2 MiB; takes space where it is touched. NULL: there is none. */
void *bigmem_alloc(size_t len);
/* NULL is allowed. */
void bigmem_free(void *p, size_t len);

#endif
