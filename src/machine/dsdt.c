/* dsdt.c - embeds the compiled DSDT. */
#include "machine/dsdt.h"

/* The included file is a definition: unsigned char dsdt_aml_code[] = {...}; */
/* clang-format off */
static const
#include "machine/dsdt.hex"

const uint8_t *dsdt_aml(size_t *len)
{
    *len = sizeof dsdt_aml_code;
    return dsdt_aml_code;
}
