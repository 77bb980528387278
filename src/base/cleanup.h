/*
 * cleanup.h - cleanup bound to scope: `CLEANUP_FREE char *p = ...;`, `CLEANUP_CLOSE int fd = -1;`.
 */
#ifndef SOSIA_BASE_CLEANUP_H
#define SOSIA_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_fn(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_close_fn(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_fclose_fn(FILE **f)
{
    if (*f)
        fclose(*f);
}

#define CLEANUP_FREE   __attribute__((cleanup(cleanup_free_fn)))
#define CLEANUP_CLOSE  __attribute__((cleanup(cleanup_close_fn)))
#define CLEANUP_FCLOSE __attribute__((cleanup(cleanup_fclose_fn)))

#endif
