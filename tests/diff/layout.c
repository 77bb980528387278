/* layout.c - the LDT, which both the throw-away process and the guest have. */
#include "diff.h"

const struct ldt_entry diff_ldt[LDT_COUNT] = {
    {CODE_AT, 0xffff, 2, false, false, false, false}, /* SEL_CS16 */
    {DATA_SEG, 0xffff, 0, true, false, false, false}, /* SEL_DATA; big: ESP is used */
    {DATA_AT, 0x1fff, 0, true, true, false, false},   /* read only */
    {DATA_AT, 0xfff, 1, true, false, false, false},   /* expands down from 4 GiB to 1000H */
    {CODE_AT, 0xfffff, 2, true, true, true, false},   /* execute only */
    {DATA_AT, 0xffff, 0, true, false, false, true},   /* not present */
    {0x1000, 0x12345, 2, true, false, false, false},  /* 32-bit code, a bytewise limit */
};
