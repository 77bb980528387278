/* dsdt.h - the DSDT as the ASL compiler made it from dsdt.asl at build time. */
#ifndef SOSIA_MACHINE_DSDT_H
#define SOSIA_MACHINE_DSDT_H

#include "base/types.h"

const uint8_t *dsdt_aml(size_t *len);

#endif
