/*
 * linux_boot.h - loading a Linux kernel without firmware, by the x86 boot protocol
 * (Documentation/arch/x86/boot.rst and zero-page.rst of the Linux sources).
 */
#ifndef SOSIA_MACHINE_LINUX_BOOT_H
#define SOSIA_MACHINE_LINUX_BOOT_H

#include "base/error.h"
#include "base/types.h"
#include "mem/ram.h"

enum { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

#define LINUX_MAX_E820 128 /* room in boot_params */

struct e820_entry {
    uint64_t addr, size;
    uint32_t type;
};

struct linux_boot {
    const char *kernel;  /* path of a bzImage */
    const char *initrd;  /* path, or NULL */
    const char *cmdline; /* or NULL */
    const struct e820_entry *e820;
    unsigned ne820;
    gpa_t rsdp;    /* of the ACPI tables; 0: none */
    gpa_t low_top; /* [1 MiB, low_top) is free RAM at the same RAM offset; at most 4 GiB */
};

/* The CPU state to start with: protected mode without paging, or long mode with 4 GiB mapped to
 * themselves; interrupts off; CS = LINUX_CS, the other segments LINUX_DS, all flat. */
#define LINUX_CS 0x10
#define LINUX_DS 0x18

struct linux_entry {
    bool long_mode;
    uint64_t rax, rbx, rsi; /* rsi: boot_params; the other general registers are 0 */
    gpa_t rip, rsp;
    gpa_t cr3; /* long mode only */
    gpa_t gdt_base;
    uint32_t gdt_limit;
};

/* Loads kernel and initrd into RAM, and what they need below 640 KiB (0x10000..0x30000). ERR_IO,
 * ERR_FORMAT (not a kernel, or a damaged one), ERR_LIMIT (command line, memory map), ERR_NOMEM (the
 * guest has too little memory). After a failure RAM may hold parts of the files. */
int linux_load(struct ram *ram, const struct linux_boot *in, struct linux_entry *out,
               struct error *e);

/* What every loader asks of its input: a memory map of a bearable length, memory below 4 GiB that
 * exists. ERR_LIMIT. */
int linux_check_input(const struct ram *ram, const struct linux_boot *in, struct error *e);

#endif
