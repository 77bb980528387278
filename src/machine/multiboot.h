/*
 * multiboot.h - loading a kernel of the Multiboot Specification, version 0.6.96 ("multiboot 1"):
 * ELF, or a flat image whose header gives the addresses.
 */
#ifndef SOSIA_MACHINE_MULTIBOOT_H
#define SOSIA_MACHINE_MULTIBOOT_H

#include "machine/linux_boot.h"

/* Whether the file is a multiboot kernel, by its content; false also if it cannot be read. One that
 * is a Linux kernel too counts as such. */
bool multiboot_probe(const char *path);

/* As linux_load(), with the same input; the initrd becomes the only module. What the kernel finds
 * besides itself lies in 0x80000..0x8d000. */
int multiboot_load(struct ram *ram, const struct linux_boot *in, struct linux_entry *out,
                   struct error *e);

#endif
