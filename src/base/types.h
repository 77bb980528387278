/*
 * types.h - scalar types with meaning, and the few macros everyone needs.
 */
#ifndef SOSIA_BASE_TYPES_H
#define SOSIA_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpa_t; /* guest-physical address */
typedef uint64_t gva_t; /* guest-linear (virtual) address */
typedef int64_t ns_t;   /* nanoseconds of the VM clock */

#define KIB       1024ull
#define MIB       (1024ull * KIB)
#define GIB       (1024ull * MIB)
#define PAGE_SIZE 4096ull

#define NS_PER_SEC 1000000000ll

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define LIKELY(x)                       __builtin_expect(!!(x), 1)
#define UNLIKELY(x)                     __builtin_expect(!!(x), 0)
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
