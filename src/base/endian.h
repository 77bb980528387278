/*
 * endian.h - explicit-endian, alignment-free accessors for bytes that come from files or the guest.
 */
#ifndef SOSIA_BASE_ENDIAN_H
#define SOSIA_BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define ENDIAN_ACCESSORS(bits)                                   \
    static inline uint##bits##_t load_le##bits(const void *p)    \
    {                                                            \
        uint##bits##_t v;                                        \
        memcpy(&v, p, sizeof v);                                 \
        return le##bits##toh(v);                                 \
    }                                                            \
    static inline uint##bits##_t load_be##bits(const void *p)    \
    {                                                            \
        uint##bits##_t v;                                        \
        memcpy(&v, p, sizeof v);                                 \
        return be##bits##toh(v);                                 \
    }                                                            \
    static inline void store_le##bits(void *p, uint##bits##_t v) \
    {                                                            \
        v = htole##bits(v);                                      \
        memcpy(p, &v, sizeof v);                                 \
    }                                                            \
    static inline void store_be##bits(void *p, uint##bits##_t v) \
    {                                                            \
        v = htobe##bits(v);                                      \
        memcpy(p, &v, sizeof v);                                 \
    }
ENDIAN_ACCESSORS(16)
ENDIAN_ACCESSORS(32)
ENDIAN_ACCESSORS(64)
#undef ENDIAN_ACCESSORS

#endif
