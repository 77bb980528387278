/*
 * field.h - field tables: what of a struct is state, stated once, by name, type and version.
 *
 * A part of the machine (chip, PCI function, vCPU ...) has a const `struct field_table` beside its
 * code. Save, restore and migration (src/state) work on tables alone; no struct is ever dumped raw.
 * Every member of a struct with a table is named in it, those that are no state by FIELD_NONE:
 * tests/lint/fields.py compares the two, so that a member added later is not forgotten.
 *
 * What is loaded comes from a file, and is as hostile as any input: an integer must be within its
 * bounds, a bool 0 or 1, an array as long as it is; what concerns several members is checked by the
 * table's `post_load`, which also makes anew what is derived. A part that was refused holds
 * anything; it is not used but to be torn down.
 */
#ifndef SOSIA_BASE_FIELD_H
#define SOSIA_BASE_FIELD_H

#include "base/error.h"
#include "base/types.h"

enum field_kind {
    FIELD_IS_NONE,   /* no state: wiring, a constant, or made anew from other members */
    FIELD_IS_UINT,   /* `count` unsigned integers of `size` bytes; enums, too */
    FIELD_IS_INT,    /* the same, signed */
    FIELD_IS_BOOL,   /* the same, 0 or 1 */
    FIELD_IS_STRUCT, /* `count` structs of table `sub` */
    FIELD_IS_BUFFER, /* a pointer to bytes, of which another member, a uint32_t, says how many */
    FIELD_IS_VALUE,  /* one unsigned integer that get() computes and set() takes */
};

struct field_table;

struct field {
    const char *name;
    enum field_kind kind;
    uint32_t offset, size, count; /* size: of one element */
    uint64_t max;                 /* UINT, VALUE: the largest valid value; 0: any */
    uint16_t since;               /* the version of the table that has it first; 0: 1 */
    bool optional; /* readers that do not know it may ignore it; absent: stays as after a reset */
    bool same;     /* has the same value (BUFFER: length) on both sides, or the machines differ */
    bool pointer;  /* STRUCT: the member points to one; NULL: there is none, on both sides */
    const struct field_table *sub;
    uint32_t len_offset, cap; /* BUFFER: where the length is; how long it may be */
    uint64_t (*get)(const void *dev);
    bool (*set)(void *dev, uint64_t v); /* false: no valid value */
};

struct field_table {
    const char *name;
    uint16_t version; /* grows with each change of the fields; 0: 1 */
    size_t size;      /* of the struct */
    const struct field *field;
    unsigned nfield;
    /* Before saving: brings members up to date. May be NULL. */
    void (*pre_save)(void *dev);
    /* After loading all members: checks what concerns several, makes derived ones. May be NULL. */
    int (*post_load)(void *dev, struct error *e);
};

#define FIELD_MAX_COUNT 128u /* fields of a table */

/* ---- the entries of a table ---- */

#define FIELD_TYPE(s, m) __typeof__(((s *)0)->m)

#define FIELD_KIND_OF(x)                         \
    _Generic((x), bool                           \
             : FIELD_IS_BOOL, uint8_t            \
             : FIELD_IS_UINT, uint16_t           \
             : FIELD_IS_UINT, uint32_t           \
             : FIELD_IS_UINT, unsigned long      \
             : FIELD_IS_UINT, unsigned long long \
             : FIELD_IS_UINT, int8_t             \
             : FIELD_IS_INT, int16_t             \
             : FIELD_IS_INT, int32_t             \
             : FIELD_IS_INT, long                \
             : FIELD_IS_INT, long long           \
             : FIELD_IS_INT)

/* 0, or a compile-time error unless the member is an array. */
#define FIELD_ARRAY_ONLY(s, m) \
    (0 *                       \
     sizeof(char[1 - 2 * __builtin_types_compatible_p(FIELD_TYPE(s, m), FIELD_TYPE(s, m[0]) *)]))

/* A scalar; more may follow: FIELD(struct x, mode, .max = 5). */
#define FIELD(s, m, ...)                                                          \
    {                                                                             \
        .name = #m, .kind = FIELD_KIND_OF(((s *)0)->m), .offset = offsetof(s, m), \
        .size = sizeof(((s *)0)->m), .count = 1, ##__VA_ARGS__                    \
    }

/* An array of scalars, and one of arrays. */
#define FIELD_ARRAY(s, m, ...)                                                          \
    {                                                                                   \
        .name = #m, .kind = FIELD_KIND_OF(((s *)0)->m[0]), .offset = offsetof(s, m),    \
        .size = sizeof(((s *)0)->m[0]),                                                 \
        .count = FIELD_ARRAY_ONLY(s, m) + sizeof(((s *)0)->m) / sizeof(((s *)0)->m[0]), \
        ##__VA_ARGS__                                                                   \
    }

#define FIELD_ARRAY2(s, m, ...)                                                            \
    {                                                                                      \
        .name = #m, .kind = FIELD_KIND_OF(((s *)0)->m[0][0]), .offset = offsetof(s, m),    \
        .size = sizeof(((s *)0)->m[0][0]),                                                 \
        .count = FIELD_ARRAY_ONLY(s, m) + sizeof(((s *)0)->m) / sizeof(((s *)0)->m[0][0]), \
        ##__VA_ARGS__                                                                      \
    }

/* A char array. */
#define FIELD_TEXT(s, m, ...)                                                   \
    {                                                                           \
        .name = #m, .kind = FIELD_IS_UINT, .offset = offsetof(s, m), .size = 1, \
        .count = sizeof(((s *)0)->m), ##__VA_ARGS__                             \
    }

/* A struct with a table of its own, and an array of such. */
#define FIELD_STRUCT(s, m, table, ...)                                          \
    {                                                                           \
        .name = #m, .kind = FIELD_IS_STRUCT, .offset = offsetof(s, m),          \
        .size = sizeof(((s *)0)->m), .count = 1, .sub = &(table), ##__VA_ARGS__ \
    }

#define FIELD_STRUCTS(s, m, table, ...)                                                 \
    {                                                                                   \
        .name = #m, .kind = FIELD_IS_STRUCT, .offset = offsetof(s, m),                  \
        .size = sizeof(((s *)0)->m[0]),                                                 \
        .count = FIELD_ARRAY_ONLY(s, m) + sizeof(((s *)0)->m) / sizeof(((s *)0)->m[0]), \
        .sub = &(table), ##__VA_ARGS__                                                  \
    }

/* A pointer to a struct with a table. */
#define FIELD_POINTER(s, m, table, ...)                                                           \
    {                                                                                             \
        .name = #m, .kind = FIELD_IS_STRUCT, .offset = offsetof(s, m),                            \
        .size = sizeof(*((s *)0)->m), .count = 1, .sub = &(table), .pointer = true, ##__VA_ARGS__ \
    }

/* What `m` points to: `cap` bytes, of which the first `len` are state; `len` is a field, too. */
#define FIELD_BUFFER(s, m, len, capacity, ...)                                                  \
    {                                                                                           \
        .name = #m, .kind = FIELD_IS_BUFFER, .offset = offsetof(s, m), .size = 1,               \
        .len_offset = offsetof(s, len) + 0 * sizeof(char[sizeof(((s *)0)->len) == 4 ? 1 : -1]), \
        .cap = (capacity), ##__VA_ARGS__                                                        \
    }

/* A member (a pointer, say) that is told as a number. */
#define FIELD_VALUE(s, m, get_fn, set_fn, ...)                                               \
    {                                                                                        \
        .name = #m, .kind = FIELD_IS_VALUE, .offset = offsetof(s, m), .size = 8, .count = 1, \
        .get = (get_fn), .set = (set_fn), ##__VA_ARGS__                                      \
    }

/* A member that is no state; the table says why. */
#define FIELD_NONE(s, m)                                            \
    {                                                               \
        .name = #m, .kind = FIELD_IS_NONE, .offset = offsetof(s, m) \
    }

/* The table of `s` from an array of the entries above. */
#define FIELD_TABLE(s, table_name, array, ...)                                                 \
    {                                                                                          \
        .name = (table_name), .size = sizeof(s), .field = (array),                             \
        .nfield =                                                                              \
            ARRAY_LEN(array) + 0 * sizeof(char[ARRAY_LEN(array) <= FIELD_MAX_COUNT ? 1 : -1]), \
        ##__VA_ARGS__                                                                          \
    }

#endif
