/*
 * fw_cfg.c - the firmware configuration device.
 */
#include "chip/fw_cfg.h"

#include <limits.h>
#include <stdlib.h>

#include "base/endian.h"
#include "base/log.h"

#define PORT_BASE 0x510u

enum { REG_SELECTOR = 0, REG_DATA = 1, REG_DMA_HIGH = 4, REG_DMA_LOW = 8 };

#define ID_TRADITIONAL 1u
#define ID_DMA         2u
#define DMA_SIGNATURE  0x51454d5520434647ull /* "QEMU CFG", what reading the DMA register yields */

/* FWCfgDmaAccess: control, length, address, all big-endian. */
#define DMA_DESC_LEN 16
#define DMA_ERROR    0x01u
#define DMA_READ     0x02u
#define DMA_SKIP     0x04u
#define DMA_SELECT   0x08u
#define DMA_WRITE    0x10u

#define DIR_ENTRY_LEN (8 + FW_CFG_NAME_LEN)
/* A transfer may ask for more than an item holds and gets zeroes; but no more than this. */
#define MAX_EXCESS (1u * MIB)

/* ---- items ---- */

static int find(const struct fw_cfg *f, uint16_t key)
{
    for (unsigned i = 0; i < f->nitem; i++) {
        if (f->item[i].key == key)
            return (int)i;
    }
    return -1;
}

/* Takes ownership of `data`. */
static int put(struct fw_cfg *f, uint16_t key, uint8_t *data, size_t len, struct error *e)
{
    int i = find(f, key);
    if (i < 0) {
        if (f->nitem == FW_CFG_MAX_ITEMS) {
            free(data);
            return error_set(e, ERR_LIMIT, "fw_cfg: more than %d items", FW_CFG_MAX_ITEMS);
        }
        i = (int)f->nitem++;
        f->item[i] = (struct fw_cfg_item){.key = key};
    }
    free(f->item[i].data);
    f->item[i].data = data;
    f->item[i].len = (uint32_t)len;
    if (i == f->sel)
        f->pos = 0;
    return 0;
}

int fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len, struct error *e)
{
    if (len > INT_MAX)
        return error_set(e, ERR_LIMIT, "fw_cfg: an item of %zu bytes", len);
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        return error_set(e, ERR_NOMEM, "fw_cfg: no memory for %zu bytes", len);
    if (len)
        memcpy(copy, data, len);
    return put(f, key, copy, len, e);
}

int fw_cfg_add_u16(struct fw_cfg *f, uint16_t key, uint16_t v, struct error *e)
{
    uint8_t b[2];
    store_le16(b, v);
    return fw_cfg_add(f, key, b, sizeof b, e);
}

int fw_cfg_add_u32(struct fw_cfg *f, uint16_t key, uint32_t v, struct error *e)
{
    uint8_t b[4];
    store_le32(b, v);
    return fw_cfg_add(f, key, b, sizeof b, e);
}

int fw_cfg_add_u64(struct fw_cfg *f, uint16_t key, uint64_t v, struct error *e)
{
    uint8_t b[8];
    store_le64(b, v);
    return fw_cfg_add(f, key, b, sizeof b, e);
}

/* The directory: a big-endian count, then size, key, 0 and name of each file. */
static int build_directory(struct fw_cfg *f, struct error *e)
{
    size_t len = 4 + (size_t)f->nfile * DIR_ENTRY_LEN;
    uint8_t *dir = calloc(1, len);
    if (!dir)
        return error_set(e, ERR_NOMEM, "fw_cfg: no memory for the directory");
    store_be32(dir, f->nfile);
    for (unsigned n = 0; n < f->nfile; n++) {
        uint8_t *p = dir + 4 + (size_t)n * DIR_ENTRY_LEN;
        int i = find(f, (uint16_t)(FW_CFG_FILE_FIRST + n));
        store_be32(p, i < 0 ? 0 : f->item[i].len);
        store_be16(p + 4, (uint16_t)(FW_CFG_FILE_FIRST + n));
        memcpy(p + 8, f->name[n], FW_CFG_NAME_LEN);
    }
    return put(f, FW_CFG_FILE_DIR, dir, len, e);
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len,
                    struct error *e)
{
    unsigned n = 0;
    if (strlen(name) >= FW_CFG_NAME_LEN)
        return error_set(e, ERR_LIMIT, "fw_cfg: file name '%s' is too long", name);
    while (n < f->nfile && strcmp(f->name[n], name))
        n++;
    if (n == FW_CFG_MAX_FILES)
        return error_set(e, ERR_LIMIT, "fw_cfg: more than %d files", FW_CFG_MAX_FILES);
    int rc = fw_cfg_add(f, (uint16_t)(FW_CFG_FILE_FIRST + n), data, len, e);
    if (rc)
        return rc;
    if (n == f->nfile) {
        memset(f->name[n], 0, FW_CFG_NAME_LEN);
        memcpy(f->name[n], name, strlen(name));
        f->nfile++;
    }
    return build_directory(f, e);
}

/* ---- the guest's side ---- */

/* Bits 14 (write) and 15 (architecture) are part of the key; the former is not used any more. */
static void choose(struct fw_cfg *f, uint16_t key)
{
    f->sel = find(f, key & 0xbfff);
    f->pos = 0;
}

/* The bytes of the selected item that are left; NULL if none. */
static const uint8_t *rest(const struct fw_cfg *f, uint32_t *len)
{
    *len = f->sel < 0 ? 0 : f->item[f->sel].len - f->pos;
    return *len ? f->item[f->sel].data + f->pos : NULL;
}

static uint8_t next_byte(struct fw_cfg *f)
{
    uint32_t len;
    const uint8_t *p = rest(f, &len);
    if (!p)
        return 0;
    f->pos++;
    return *p;
}

static bool dma_zero(struct fw_cfg *f, gpa_t addr, uint32_t len)
{
    static const uint8_t zeroes[PAGE_SIZE];
    while (len) {
        uint32_t n = (uint32_t)min_u64(len, sizeof zeroes);
        if (!dma_write(f->mem, addr, zeroes, n))
            return false;
        addr += n;
        len -= n;
    }
    return true;
}

static bool dma_transfer(struct fw_cfg *f, gpa_t addr, uint32_t len)
{
    uint32_t have;
    const uint8_t *p = rest(f, &have);
    uint32_t n = (uint32_t)min_u64(len, have);
    if (len - n > MAX_EXCESS || addr + len < addr)
        return false;
    if (n && !dma_write(f->mem, addr, p, n))
        return false;
    f->pos += n;
    return dma_zero(f, addr + n, len - n);
}

static bool dma_execute(struct fw_cfg *f, uint32_t control, uint32_t len, gpa_t addr)
{
    uint32_t have;
    if (control & DMA_SELECT)
        choose(f, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        return dma_transfer(f, addr, len);
    if (control & DMA_WRITE)
        return len == 0; /* no item is writable */
    if (control & DMA_SKIP) {
        rest(f, &have);
        f->pos += (uint32_t)min_u64(len, have);
    }
    return true;
}

/* Runs the command whose descriptor is at `addr` and reports in the descriptor's control field: 0,
 * or the error bit. If even the descriptor cannot be reached there is nowhere to report to. */
static void dma_run(struct fw_cfg *f, gpa_t addr)
{
    uint8_t desc[DMA_DESC_LEN], result[4];
    if (!dma_read(f->mem, addr, desc, sizeof desc)) {
        log_guest("fw_cfg: DMA descriptor at %#llx is not in RAM", (unsigned long long)addr);
        return;
    }
    bool ok = dma_execute(f, load_be32(desc), load_be32(desc + 4), load_be64(desc + 8));
    store_be32(result, ok ? 0 : DMA_ERROR);
    dma_write(f->mem, addr, result, sizeof result);
}

static uint64_t fw_cfg_read(void *dev, uint64_t off, unsigned size)
{
    struct fw_cfg *f = dev;
    switch (off) {
    case REG_DATA:
        return size == 1 ? next_byte(f) : 0;
    case REG_DMA_HIGH: /* the register is big-endian */
        return size == 4 ? htobe32((uint32_t)(DMA_SIGNATURE >> 32)) : 0;
    case REG_DMA_LOW:
        return size == 4 ? htobe32((uint32_t)DMA_SIGNATURE) : 0;
    default:
        return 0;
    }
}

static void fw_cfg_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct fw_cfg *f = dev;
    if (off == REG_SELECTOR && size == 2) {
        choose(f, (uint16_t)val);
    } else if (off == REG_DMA_HIGH && size == 4) {
        f->dma_high = be32toh((uint32_t)val);
    } else if (off == REG_DMA_LOW && size == 4) {
        gpa_t addr = (uint64_t)f->dma_high << 32 | be32toh((uint32_t)val);
        f->dma_high = 0; /* so that 32-bit guests need write the low half only */
        dma_run(f, addr);
    }
}

static void reset(void *dev)
{
    struct fw_cfg *f = dev;
    f->sel = -1;
    f->pos = 0;
    f->dma_high = 0;
}

int fw_cfg_init(struct fw_cfg *f, struct space *mem, struct error *e)
{
    memset(f, 0, sizeof *f);
    f->mem = mem;
    reset(f);
    int rc = fw_cfg_add(f, FW_CFG_SIGNATURE, "QEMU", 4, e);
    if (!rc)
        rc = fw_cfg_add_u32(f, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, e);
    if (!rc)
        rc = build_directory(f, e);
    if (rc)
        fw_cfg_fini(f);
    return rc;
}

void fw_cfg_fini(struct fw_cfg *f)
{
    for (unsigned i = 0; i < f->nitem; i++)
        free(f->item[i].data);
    f->nitem = 0;
}

static const struct io_ops fw_cfg_ops = {"fw_cfg", 1 | 2 | 4, fw_cfg_read, fw_cfg_write};

/* ---- state ---- */

/* Which item is selected, by its key; the items are made anew from the spec. */
#define NO_ITEM 0x10000u

static uint64_t get_sel(const void *dev)
{
    const struct fw_cfg *f = dev;
    return f->sel < 0 ? NO_ITEM : f->item[f->sel].key;
}

static bool set_sel(void *dev, uint64_t v)
{
    struct fw_cfg *f = dev;
    f->sel = v < NO_ITEM ? find(f, (uint16_t)v) : -1;
    return f->sel >= 0 || v == NO_ITEM;
}

static int post_load(void *dev, struct error *e)
{
    const struct fw_cfg *f = dev;
    if (f->sel >= 0 && f->pos > f->item[f->sel].len)
        return error_set(e, ERR_FORMAT, "pos: is beyond the end of the item");
    return 0;
}

static const struct field fields[] = {
    FIELD_NONE(struct fw_cfg, mem),   FIELD_NONE(struct fw_cfg, item),
    FIELD_NONE(struct fw_cfg, nitem), FIELD_NONE(struct fw_cfg, nfile),
    FIELD_NONE(struct fw_cfg, name),  FIELD_VALUE(struct fw_cfg, sel, get_sel, set_sel),
    FIELD(struct fw_cfg, pos),        FIELD(struct fw_cfg, dma_high),
};
static const struct field_table table =
    FIELD_TABLE(struct fw_cfg, "fw_cfg", fields, .post_load = post_load);

const struct chip_desc fw_cfg_desc = {
    .fields = &table,
    .name = "fw_cfg",
    .reset = reset,
    .ranges = (const struct chip_range[]){{true, PORT_BASE, 12, &fw_cfg_ops}, {.len = 0}},
};
