/*
 * piix4smb.c - the PIIX4's SMBus host controller.
 */
#include "chip/piix4smb.h"

#include <string.h>

enum { HSTSTS = 0, SLVSTS = 1, HSTCNT = 2, BLKDAT = 7 };

#define STS_DEV_ERR 0x04u
#define STS_FAILED  0x10u
#define STS_W1C     0x1eu
#define CNT_START   0x40u
#define CNT_KILL    0x02u
#define CNT_VALID   0x1fu

static uint64_t smb_read(void *dev, uint64_t off, unsigned size)
{
    const struct piix4smb *s = dev;
    switch (off) {
    case HSTSTS:
        return s->status;
    case SLVSTS:
        return 0;
    default:
        return off < PIIX4SMB_SIZE ? s->reg[off] : 0xff;
    }
}

static void smb_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct piix4smb *s = dev;
    switch (off) {
    case HSTSTS:
        s->status &= ~(val & STS_W1C);
        break;
    case HSTCNT:
        s->reg[HSTCNT] = val & CNT_VALID; /* START reads as 0 */
        if (val & CNT_KILL)
            s->status |= STS_FAILED;
        else if (val & CNT_START)
            s->status |= STS_DEV_ERR; /* nobody acknowledged the address */
        break;
    default:
        if (off > HSTCNT && off <= BLKDAT)
            s->reg[off] = (uint8_t)val;
        break;
    }
}

void piix4smb_reset(struct piix4smb *s)
{
    memset(s, 0, sizeof *s);
}

const struct io_ops piix4smb_ops = {"piix4 smbus", 1, smb_read, smb_write};

static const struct field fields[] = {
    FIELD(struct piix4smb, status),
    FIELD_ARRAY(struct piix4smb, reg),
};
const struct field_table piix4smb_fields = FIELD_TABLE(struct piix4smb, "piix4smb", fields);
