/*
 * ahci_fis.c - what an AHCI port reads from the guest's memory (command list, command tables,
 * scatter lists) and writes there (frames received). Clauses are AHCI 1.3.1's.
 */
#include <string.h>

#include "base/endian.h"
#include "chip/ahci_core.h"

#define HEADER_LEN 32u
#define PRD_LEN    16u
#define PRDT       0x80u /* in a command table */

/* Header, double word 0. */
#define H_ATAPI 0x20u
#define H_CLEAR 0x400u

/* The area of received frames, 4.2.1. */
enum { RX_PIO_SETUP = 0x20, RX_REGISTERS = 0x40, RX_DEVICE_BITS = 0x58 };
enum { FIS_REGISTERS = 0x34, FIS_PIO_SETUP = 0x5f, FIS_DEVICE_BITS = 0xa1 };
#define FIS_INTERRUPT 0x40u
#define FIS_TO_HOST   0x20u

bool ahci_read_command(struct ahci_port *p, unsigned slot, struct ahci_command *c)
{
    uint8_t h[HEADER_LEN];
    struct space *mem = p->hba->mem;
    if (!dma_read(mem, p->clb + slot * HEADER_LEN, h, sizeof h))
        return false;
    uint32_t dw0 = load_le32(h);
    *c = (struct ahci_command){.atapi = dw0 & H_ATAPI,
                               .clear_busy = dw0 & H_CLEAR,
                               .prdtl = (uint16_t)(dw0 >> 16),
                               .table = load_le64(h + 8) & ~0x7full};
    return dma_read(mem, c->table, c->fis, sizeof c->fis);
}

void ahci_write_count(struct ahci_port *p, unsigned slot, uint32_t bytes)
{
    uint8_t raw[4];
    store_le32(raw, bytes);
    if (p->hba->dma)
        dma_write(p->hba->mem, p->clb + slot * HEADER_LEN + 4, raw, sizeof raw);
}

/* 4.2.3.3: addresses and lengths are even, the length is stored less one, so an entry is at least
 * two bytes long. */
int ahci_list_next(struct ahci_port *p, struct ahci_list *l)
{
    uint8_t raw[PRD_LEN];
    if (l->next == l->entries)
        return 0;
    if (!dma_read(p->hba->mem, l->table + PRDT + (uint64_t)l->next * PRD_LEN, raw, sizeof raw))
        return -1;
    l->next++;
    uint32_t dw3 = load_le32(raw + 12);
    l->addr = load_le64(raw) & ~1ull;
    l->count = ((dw3 & 0x3fffff) | 1) + 1;
    if (dw3 >> 31)
        p->is |= IS_DPS;
    return 1;
}

/* ---- frames to the host ---- */

static void post(struct ahci_port *p, unsigned at, const uint8_t *fis, unsigned len)
{
    if ((p->cmd & CMD_FRE) && p->hba->dma)
        dma_write(p->hba->mem, p->fb + at, fis, len);
}

static void put_registers(const struct ide_drive *d, uint8_t *fis)
{
    fis[2] = d->status;
    fis[3] = d->error;
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = d->reg[IDE_LBA0 + i][0];
        fis[8 + i] = d->reg[IDE_LBA0 + i][1];
    }
    fis[7] = d->reg[IDE_DEVICE][0];
    fis[12] = d->reg[IDE_COUNT][0];
    fis[13] = d->reg[IDE_COUNT][1];
}

void ahci_post_registers(struct ahci_port *p, bool interrupt)
{
    uint8_t fis[20] = {FIS_REGISTERS, interrupt ? FIS_INTERRUPT : 0};
    put_registers(&p->ide.drive[0], fis);
    post(p, RX_REGISTERS, fis, sizeof fis);
    if (interrupt)
        ahci_port_event(p, IS_DHRS);
}

/* A drive sends one for each block of data; guests look at the last one only. */
void ahci_post_pio_setup(struct ahci_port *p, uint32_t bytes)
{
    const struct ide_drive *d = &p->ide.drive[0];
    uint8_t fis[20] = {FIS_PIO_SETUP, FIS_INTERRUPT | FIS_TO_HOST};
    put_registers(d, fis);
    fis[15] = d->status; /* after the block */
    store_le16(fis + 16, (uint16_t)bytes);
    post(p, RX_PIO_SETUP, fis, sizeof fis);
    ahci_port_event(p, IS_PSS);
}

void ahci_post_device_bits(struct ahci_port *p, uint32_t finished)
{
    const struct ide_drive *d = &p->ide.drive[0];
    uint8_t fis[8] = {FIS_DEVICE_BITS, FIS_INTERRUPT, d->status & 0x77, d->error};
    store_le32(fis + 4, finished);
    post(p, RX_DEVICE_BITS, fis, sizeof fis);
    ahci_port_event(p, IS_SDBS);
}
