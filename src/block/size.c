/* size.c - sizes as people write them. */
#include "block/size.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"

/* What the letter multiplies by; 0: the text after the number is no unit. */
static uint64_t unit_of(const char *u)
{
    static const char letters[] = "BKMGTPE";
    if (!*u)
        return 1;
    const char *at = strchr(letters, toupper((unsigned char)*u));
    if (!at || (u[1] && (at == letters || (strcasecmp(u + 1, "iB") && strcasecmp(u + 1, "B")))))
        return 0;
    return 1ull << 10 * (at - letters);
}

bool size_parse(const char *text, uint64_t *bytes)
{
    uint64_t whole = 0, part = 0, scale = 1;
    const char *c = text;
    if (!isdigit((unsigned char)*c))
        return false;
    for (; isdigit((unsigned char)*c); c++)
        if (!checked_mul_u64(whole, 10, &whole) ||
            !checked_add_u64(whole, (uint64_t)(*c - '0'), &whole))
            return false;
    if (*c == '.') {
        if (!isdigit((unsigned char)*++c))
            return false;
        for (; isdigit((unsigned char)*c); c++) {
            if (scale >= 1000000) /* more digits than anybody means */
                return false;
            part = part * 10 + (uint64_t)(*c - '0');
            scale *= 10;
        }
    }
    uint64_t unit = unit_of(c), extra = 0;
    if (!unit || (part && unit == 1) || !checked_mul_u64(whole, unit, &whole))
        return false;
    if (part) /* part < scale, so the product's upper half is below the unit's */
        extra = (uint64_t)((unsigned __int128)part * unit / scale);
    if (!checked_add_u64(whole, extra, &whole) || whole > INT64_MAX)
        return false;
    *bytes = whole;
    return true;
}

const char *size_format(char buf[32], uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned u = 0;
    uint64_t unit = 1;
    for (; u < ARRAY_LEN(units) - 1 && bytes / unit >= 1024; u++)
        unit *= 1024;
    uint64_t tenths = (uint64_t)((unsigned __int128)bytes * 10 / unit);
    if (tenths % 10 == 0)
        snprintf(buf, 32, "%llu %s", (unsigned long long)(tenths / 10), units[u]);
    else
        snprintf(buf, 32, "%llu.%llu %s", (unsigned long long)(tenths / 10),
                 (unsigned long long)(tenths % 10), units[u]);
    return buf;
}
