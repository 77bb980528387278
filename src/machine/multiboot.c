/*
 * multiboot.c - see multiboot.h. Clauses are those of the Multiboot Specification 0.6.96; ELF is
 * the System V ABI, edition 4.1, chapters 4 and 5.
 *
 * Decode, then do: decode() turns the file, of which nothing is believed, into a checked list of
 * segments that lie in free guest memory and do not overlap; only then guest memory is written.
 * Addresses in the file are proved to be below 4 GiB before they are added to.
 */
#include "machine/multiboot.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "machine/boot_file.h"

/* What the kernel finds below 640 KiB; it may be loaded anywhere else. */
#define INFO         0x80000u
#define MODULE       0x80100u
#define LOADER_NAME  0x80180u
#define GDT          0x80200u
#define MMAP         0x81000u
#define CMDLINE      0x82000u
#define CMDLINE_ROOM 0x8000u
#define MODNAME      0x8a000u
#define MODNAME_ROOM 0x2000u
#define STACK_TOP    0x8d000u /* the kernel has to bring its own; a page until then */
#define TABLES_END   STACK_TOP

/* 3.1: header, a multiple of 4 bytes from the start of the file, within its first 8 KiB */
#define HEADER_MAGIC 0x1badb002u
#define SEARCH       8192u
enum {
    M_FLAGS = 4,
    M_CHECKSUM = 8,
    M_END = 12,
    M_HEADER_ADDR = 12,
    M_LOAD_ADDR = 16,
    M_LOAD_END = 20,
    M_BSS_END = 24,
    M_ENTRY = 28,
    M_END_ADDRESSES = 32,
};
#define WANTS_PAGES     0x00001u /* modules on page boundaries: always so here */
#define WANTS_MEMORY    0x00002u /* always there, too */
#define WANTS_VIDEO     0x00004u
#define MUST_UNDERSTAND 0x0ffffu
#define HAS_ADDRESSES   0x10000u

/* 3.3: boot information */
enum {
    I_FLAGS = 0,
    I_MEM_LOWER = 4,
    I_MEM_UPPER = 8,
    I_CMDLINE = 16,
    I_MODS_COUNT = 20,
    I_MODS_ADDR = 24,
    I_MMAP_LENGTH = 44,
    I_MMAP_ADDR = 48,
    I_LOADER_NAME = 64,
    I_LEN = 128, /* all of it and more, zero */
};
enum { GIVES_MEM = 1, GIVES_CMDLINE = 4, GIVES_MODS = 8, GIVES_MMAP = 64, GIVES_NAME = 512 };
#define BOOTLOADER_MAGIC 0x2badb002u
#define MMAP_ENTRY       24u /* the size field and the 20 bytes that it announces */

/* ELF header and program header, 32 and 64 bits */
#define EHDR_LEN 64u
enum { E_CLASS = 4, E_DATA = 5, E_TYPE = 16, E_MACHINE = 18, E_ENTRY = 24 };
enum { ET_EXEC = 2, EM_386 = 3, EM_X86_64 = 62, PT_LOAD = 1 };

#define MAX_SEGMENTS 32

struct segment {
    uint64_t off, file_len; /* in the file */
    gpa_t gpa;
    uint64_t mem_len; /* at least file_len; the rest is zeroed */
};

struct image {
    struct segment seg[MAX_SEGMENTS];
    unsigned nseg;
    gpa_t entry;
    gpa_t end; /* of the highest segment */
};

static int damaged(const struct boot_file *f, const char *why, struct error *e)
{
    return error_set(e, ERR_FORMAT, "%s: damaged multiboot kernel: %s; get a fresh copy", f->path,
                     why);
}

/* The header's place in the first `len` bytes of the file; -1: there is none. */
static int64_t find_header(const uint8_t *head, size_t len)
{
    for (size_t at = 0; at + M_END <= len; at += 4) {
        const uint8_t *h = head + at;
        if (load_le32(h) == HEADER_MAGIC &&
            load_le32(h) + load_le32(h + M_FLAGS) + load_le32(h + M_CHECKSUM) == 0)
            return (int64_t)at;
    }
    return -1;
}

/* ---- segments ---- */

static int no_room(const struct boot_file *f, gpa_t gpa, uint64_t len, const struct linux_boot *in,
                   struct error *e)
{
    if (gpa < MIB)
        return error_set(e, ERR_LIMIT,
                         "%s: loads at 0x%llx; below 1 MiB only 0 to 0x%x is free for a kernel",
                         f->path, (unsigned long long)gpa, INFO);
    return error_set(e, ERR_NOMEM,
                     "%s: does not fit: it needs the guest to have at least %llu MiB of memory, "
                     "and %llu MiB are there; raise 'memory'",
                     f->path, (unsigned long long)((gpa + len + MIB - 1) / MIB),
                     (unsigned long long)(in->low_top / MIB));
}

/* `s` comes from the file as it is, its numbers below 2^32 but for those of a 64-bit ELF. */
static int add_segment(const struct boot_file *f, const struct linux_boot *in, struct image *m,
                       const struct segment *s, struct error *e)
{
    if (s->mem_len == 0)
        return 0;
    if (m->nseg == MAX_SEGMENTS)
        return error_set(e, ERR_LIMIT, "%s: more than %d segments", f->path, MAX_SEGMENTS);
    if (s->file_len > s->mem_len)
        return damaged(f, "a segment is longer in the file than in memory", e);
    if (!range_within(s->off, s->file_len, f->size))
        return damaged(f, "it promises more than the file has", e);
    if (s->gpa >= 4 * GIB || s->mem_len >= 4 * GIB)
        return damaged(f, "it does not load below 4 GiB", e);
    bool low = range_within(s->gpa, s->mem_len, INFO);
    if (!low && (s->gpa < MIB || !range_within(s->gpa, s->mem_len, in->low_top)))
        return no_room(f, s->gpa, s->mem_len, in, e);
    for (unsigned n = 0; n < m->nseg; n++)
        if (s->gpa < m->seg[n].gpa + m->seg[n].mem_len && m->seg[n].gpa < s->gpa + s->mem_len)
            return damaged(f, "its segments overlap", e);
    m->seg[m->nseg++] = *s;
    m->end = max_u64(m->end, s->gpa + s->mem_len);
    return 0;
}

/* 3.1.3: the address fields, for files that are not ELF. `at` is the header's place. */
static int decode_addresses(const struct boot_file *f, const struct linux_boot *in,
                            const uint8_t *h, uint64_t at, struct image *m, struct error *e)
{
    uint64_t header = load_le32(h + M_HEADER_ADDR), load = load_le32(h + M_LOAD_ADDR);
    uint64_t load_end = load_le32(h + M_LOAD_END), bss_end = load_le32(h + M_BSS_END);
    if (load > header || header - load > at)
        return damaged(f, "its load address is not in the file", e);
    struct segment s = {.off = at - (header - load), .gpa = load};
    s.file_len = load_end ? load_end - load : f->size - s.off;
    if (load_end && load_end <= load)
        return damaged(f, "its addresses contradict each other", e);
    s.mem_len = s.file_len;
    if (bss_end) {
        if (bss_end < load || bss_end - load < s.file_len)
            return damaged(f, "its addresses contradict each other", e);
        s.mem_len = bss_end - load;
    }
    m->entry = load_le32(h + M_ENTRY);
    return add_segment(f, in, m, &s, e);
}

/* ---- ELF ---- */

struct elf {
    bool wide;
    uint64_t entry, phoff;
    unsigned phentsize, phnum;
};

static int decode_elf_header(const struct boot_file *f, const uint8_t *h, struct elf *x,
                             struct error *e)
{
    x->wide = h[E_CLASS] == 2;
    unsigned machine = load_le16(h + E_MACHINE);
    if ((h[E_CLASS] != 1 && !x->wide) || h[E_DATA] != 1 ||
        (machine != EM_386 && machine != EM_X86_64))
        return error_set(e, ERR_FORMAT, "%s: this ELF file is not for x86", f->path);
    if (load_le16(h + E_TYPE) != ET_EXEC)
        return error_set(e, ERR_FORMAT, "%s: this ELF file is not linked to be run at an address",
                         f->path);
    x->entry = x->wide ? load_le64(h + E_ENTRY) : load_le32(h + E_ENTRY);
    x->phoff = x->wide ? load_le64(h + 32) : load_le32(h + 28);
    x->phentsize = load_le16(h + (x->wide ? 54 : 42));
    x->phnum = load_le16(h + (x->wide ? 56 : 44));
    if (x->phentsize != (x->wide ? 56 : 32))
        return damaged(f, "its program headers have an unknown size", e);
    if (!range_within(x->phoff, (uint64_t)x->phnum * x->phentsize, f->size))
        return damaged(f, "its program headers are not in the file", e);
    return 0;
}

/* The entry point is a virtual address; paging is off when the kernel starts. */
static void translate_entry(const struct elf *x, uint64_t vaddr, const struct segment *s,
                            struct image *m)
{
    if (x->entry >= vaddr && x->entry - vaddr < s->mem_len)
        m->entry = s->gpa + (x->entry - vaddr);
}

static int decode_elf(const struct boot_file *f, const struct linux_boot *in, const uint8_t *head,
                      struct image *m, struct error *e)
{
    struct elf x = {0};
    int rc = decode_elf_header(f, head, &x, e);
    m->entry = x.entry;
    for (unsigned n = 0; !rc && n < x.phnum; n++) {
        uint8_t p[56];
        rc = boot_file_read(f, x.phoff + (uint64_t)n * x.phentsize, p, x.phentsize, e);
        if (rc || load_le32(p) != PT_LOAD)
            continue;
        struct segment s = {load_le32(p + 4), load_le32(p + 16), load_le32(p + 12),
                            load_le32(p + 20)};
        if (x.wide)
            s = (struct segment){load_le64(p + 8), load_le64(p + 32), load_le64(p + 24),
                                 load_le64(p + 40)};
        rc = add_segment(f, in, m, &s, e);
        if (!rc)
            translate_entry(&x, x.wide ? load_le64(p + 16) : load_le32(p + 8), &s, m);
    }
    return rc;
}

/* ---- the file ---- */

static int check_flags(const struct boot_file *f, uint32_t flags, struct error *e)
{
    if (flags & WANTS_VIDEO)
        return error_set(e, ERR_FORMAT,
                         "%s: this multiboot kernel asks for a video mode, which only firmware can "
                         "set: boot it with GRUB from a disk",
                         f->path);
    if (flags & MUST_UNDERSTAND & ~(WANTS_PAGES | WANTS_MEMORY))
        return error_set(e, ERR_FORMAT, "%s: this multiboot kernel needs unknown features (0x%x)",
                         f->path, flags & MUST_UNDERSTAND);
    return 0;
}

static bool entry_is_loaded(const struct image *m)
{
    for (unsigned n = 0; n < m->nseg; n++)
        if (m->entry >= m->seg[n].gpa && m->entry - m->seg[n].gpa < m->seg[n].mem_len)
            return true;
    return false;
}

static int decode(const struct boot_file *f, const struct linux_boot *in, struct image *m,
                  struct error *e)
{
    uint8_t head[SEARCH] = {0};
    size_t len = (size_t)min_u64(sizeof head, f->size);
    *m = (struct image){0};
    int rc = boot_file_read(f, 0, head, len, e);
    if (rc)
        return rc;
    int64_t at = find_header(head, len);
    if (at < 0)
        return error_set(e, ERR_FORMAT, "%s: not a multiboot kernel", f->path);
    uint32_t flags = load_le32(head + at + M_FLAGS);
    rc = check_flags(f, flags, e);
    if (rc)
        return rc;
    if (flags & HAS_ADDRESSES) {
        if (!range_within((uint64_t)at, M_END_ADDRESSES, len))
            return damaged(f, "its header is cut off", e);
        rc = decode_addresses(f, in, head + at, (uint64_t)at, m, e);
    } else if (len >= EHDR_LEN && !memcmp(head,
                                          "\x7f"
                                          "ELF",
                                          4)) {
        rc = decode_elf(f, in, head, m, e);
    } else {
        return damaged(f, "it is no ELF file and has no addresses in its header", e);
    }
    if (!rc && !entry_is_loaded(m))
        return damaged(f, "its entry point is not in it", e);
    return rc;
}

/* ---- what the kernel finds ---- */

static int write_strings(struct ram *ram, const struct linux_boot *in, struct error *e)
{
    char *cmdline = (char *)ram->host + CMDLINE, *module = (char *)ram->host + MODNAME;
    const char *args = in->cmdline ? in->cmdline : "";
    /* As GRUB does: the first word is the kernel's own name. */
    int n = snprintf(cmdline, CMDLINE_ROOM, "%s%s%s", in->kernel, *args ? " " : "", args);
    int k = snprintf(module, MODNAME_ROOM, "%s", in->initrd ? in->initrd : "");
    strcpy((char *)ram->host + LOADER_NAME, "sosia");
    if (n < 0 || (unsigned)n >= CMDLINE_ROOM || k < 0 || (unsigned)k >= MODNAME_ROOM)
        return error_set(e, ERR_LIMIT, "%s: the kernel's command line is too long", in->kernel);
    return 0;
}

static void write_info(struct ram *ram, const struct linux_boot *in, gpa_t module, uint64_t len)
{
    uint8_t *i = ram->host + INFO, *mod = ram->host + MODULE;
    memset(i, 0, I_LEN);
    store_le32(i + I_FLAGS, GIVES_MEM | GIVES_CMDLINE | GIVES_MODS | GIVES_MMAP | GIVES_NAME);
    store_le32(i + I_MEM_LOWER, 639); /* KiB: up to the EBDA */
    store_le32(i + I_MEM_UPPER, (uint32_t)((in->low_top - MIB) / KIB));
    store_le32(i + I_CMDLINE, CMDLINE);
    store_le32(i + I_LOADER_NAME, LOADER_NAME);
    store_le32(i + I_MODS_COUNT, in->initrd ? 1 : 0);
    store_le32(i + I_MODS_ADDR, MODULE);
    store_le32(mod, (uint32_t)module);
    store_le32(mod + 4, (uint32_t)(module + len));
    store_le32(mod + 8, MODNAME);
    store_le32(mod + 12, 0);
    store_le32(i + I_MMAP_ADDR, MMAP);
    store_le32(i + I_MMAP_LENGTH, in->ne820 * MMAP_ENTRY);
    for (unsigned n = 0; n < in->ne820; n++) {
        uint8_t *entry = ram->host + MMAP + n * MMAP_ENTRY;
        store_le32(entry, MMAP_ENTRY - 4);
        store_le64(entry + 4, in->e820[n].addr);
        store_le64(entry + 12, in->e820[n].size);
        store_le32(entry + 20, in->e820[n].type);
    }
}

/* 3.2 leaves GDTR open; a GDT that holds what the segment registers say does no harm. */
static void write_gdt(struct ram *ram)
{
    uint8_t *gdt = ram->host + GDT;
    memset(gdt, 0, LINUX_DS + 8);
    store_le64(gdt + LINUX_CS, 0x00cf9b000000ffffull);
    store_le64(gdt + LINUX_DS, 0x00cf93000000ffffull);
}

/* ---- all together ---- */

static int load_segments(struct ram *ram, const struct boot_file *f, const struct image *m,
                         struct error *e)
{
    for (unsigned n = 0; n < m->nseg; n++) {
        const struct segment *s = &m->seg[n];
        int rc = boot_file_load(f, s->off, ram, s->gpa, s->file_len, e);
        if (rc)
            return rc;
        memset(ram->host + s->gpa + s->file_len, 0, s->mem_len - s->file_len);
        ram_note_write(ram, s->gpa, s->mem_len);
    }
    return 0;
}

/* Behind the kernel, as boot loaders do. */
static int load_module(struct ram *ram, const struct linux_boot *in, struct boot_file *f,
                       const struct image *m, gpa_t *at, struct error *e)
{
    int rc = boot_file_open(f, "initrd", e);
    if (rc)
        return rc;
    *at = (max_u64(m->end, MIB) + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    if (!range_within(*at, f->size, in->low_top))
        return no_room(f, *at, f->size, in, e);
    return boot_file_load(f, 0, ram, *at, f->size, e);
}

static int load_files(struct ram *ram, const struct linux_boot *in, struct boot_file *kf,
                      struct boot_file *mf, struct linux_entry *out, struct error *e)
{
    struct image m;
    gpa_t module = 0;
    int rc = boot_file_open(kf, "kernel", e);
    if (!rc)
        rc = decode(kf, in, &m, e);
    if (!rc)
        rc = load_segments(ram, kf, &m, e);
    if (!rc && mf->path)
        rc = load_module(ram, in, mf, &m, &module, e);
    if (!rc)
        rc = write_strings(ram, in, e);
    if (rc)
        return rc;
    write_info(ram, in, module, mf->size);
    write_gdt(ram);
    ram_note_write(ram, INFO, TABLES_END - INFO);
    *out = (struct linux_entry){.rip = m.entry,
                                .rax = BOOTLOADER_MAGIC,
                                .rbx = INFO,
                                .rsp = STACK_TOP,
                                .gdt_base = GDT,
                                .gdt_limit = LINUX_DS + 7};
    return 0;
}

int multiboot_load(struct ram *ram, const struct linux_boot *in, struct linux_entry *out,
                   struct error *e)
{
    struct boot_file kernel = {in->kernel, -1, 0}, module = {in->initrd, -1, 0};
    int rc = linux_check_input(ram, in, e);
    if (!rc)
        rc = load_files(ram, in, &kernel, &module, out, e);
    boot_file_close(&kernel);
    boot_file_close(&module);
    return rc;
}

bool multiboot_probe(const char *path)
{
    struct boot_file f = {path, -1, 0};
    uint8_t head[SEARCH] = {0};
    bool found = false;
    if (!boot_file_open(&f, "kernel", NULL)) {
        size_t len = (size_t)min_u64(sizeof head, f.size);
        found = !boot_file_read(&f, 0, head, len, NULL) && find_header(head, len) >= 0 &&
                memcmp(head + 0x202, "HdrS", 4) != 0;
    }
    boot_file_close(&f);
    return found;
}
