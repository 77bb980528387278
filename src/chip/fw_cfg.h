/*
 * fw_cfg.h - the firmware configuration device: how the machine hands items (numbers, named files)
 * to SeaBIOS, OVMF and Linux. Compatible with QEMU's device of that name; its protocol is described
 * in QEMU's docs/specs/fw_cfg: selector port 0x510, data port 0x511, DMA address at 0x514.
 *
 * Items are read-only to the guest. The device owns copies of everything that is added.
 */
#ifndef SOSIA_CHIP_FW_CFG_H
#define SOSIA_CHIP_FW_CFG_H

#include "chip/chip.h"

/* Keys of items that are not files. Values are little-endian. */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,  /* u64, bytes */
    FW_CFG_NOGRAPHIC = 0x04, /* u16: 1 makes SeaBIOS use the serial port as console */
    FW_CFG_NB_CPUS = 0x05,   /* u16 */
    FW_CFG_MACHINE_ID = 0x06,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_NUMA = 0x0d,
    FW_CFG_BOOT_MENU = 0x0e, /* u16 */
    FW_CFG_MAX_CPUS = 0x0f,  /* u16 */
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_IRQ0_OVERRIDE = 0x8002, /* u8: 1: the i8254's IRQ0 is I/O APIC pin 2 */
};

#define FW_CFG_MAX_FILES 64
#define FW_CFG_MAX_ITEMS (FW_CFG_MAX_FILES + 32)
#define FW_CFG_NAME_LEN  56 /* of a file, with the final NUL */

struct fw_cfg_item {
    uint16_t key;
    uint32_t len;
    uint8_t *data;
};

struct fw_cfg {
    struct space *mem; /* DMA */
    struct fw_cfg_item item[FW_CFG_MAX_ITEMS];
    unsigned nitem, nfile;
    char name[FW_CFG_MAX_FILES][FW_CFG_NAME_LEN];
    int sel;      /* selected item, or -1 */
    uint32_t pos; /* next byte of it; <= its len */
    uint32_t dma_high;
};

extern const struct chip_desc fw_cfg_desc;

/* Adds the signature, the ID and an empty directory. */
int fw_cfg_init(struct fw_cfg *f, struct space *mem, struct error *e);
void fw_cfg_fini(struct fw_cfg *f);

/* Add an item or replace the one with that key or name. ERR_LIMIT (too many, name too long),
 * ERR_NOMEM. */
int fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len, struct error *e);
int fw_cfg_add_u16(struct fw_cfg *f, uint16_t key, uint16_t v, struct error *e);
int fw_cfg_add_u32(struct fw_cfg *f, uint16_t key, uint32_t v, struct error *e);
int fw_cfg_add_u64(struct fw_cfg *f, uint16_t key, uint64_t v, struct error *e);
int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len,
                    struct error *e);

#endif
