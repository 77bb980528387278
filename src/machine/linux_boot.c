/*
 * linux_boot.c - the Linux/x86 boot protocol. linux_boot.h names the documents.
 *
 * Decode, then do: decode_header() turns the file's header, of which nothing is believed, into a
 * checked `struct kernel`; place_kernel() and place_initrd() choose addresses and prove that all of
 * it fits; only then guest memory is written. Numbers from the file are at most 32 bits wide (but
 * for the preferred address, which is compared before use), so that sums of 64 bits do not
 * overflow.
 */
#include "machine/linux_boot.h"

#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "machine/boot_file.h"

/* Guest memory below 640 KiB that the loader fills. The kernel takes it over once it has copied
 * what it wants to keep. */
#define BOOT_PARAMS  0x10000u
#define GDT          0x11000u
#define PML4         0x12000u
#define PDPT         0x13000u
#define PAGE_DIRS    0x14000u /* four of them: 4 GiB in 2 MiB pages */
#define STACK_TOP    0x19000u
#define CMDLINE      0x20000u
#define CMDLINE_ROOM 0x10000u
#define KERNEL_LOW   (1 * MIB) /* where LOADED_HIGH kernels go unless they can be moved */

/* The setup header, by offset in the file and in boot_params ("The Real-Mode Kernel Header"). */
enum {
    H_SETUP_SECTS = 0x1f1,
    H_SYSSIZE = 0x1f4,
    H_BOOT_FLAG = 0x1fe,
    H_JUMP = 0x200,
    H_MAGIC = 0x202,
    H_VERSION = 0x206,
    H_LOADER = 0x210,
    H_LOADFLAGS = 0x211,
    H_CODE32 = 0x214,
    H_RAMDISK = 0x218,
    H_RAMDISK_SIZE = 0x21c,
    H_CMDLINE_PTR = 0x228,
    H_INITRD_MAX = 0x22c,
    H_ALIGNMENT = 0x230,
    H_RELOCATABLE = 0x234,
    H_XLOADFLAGS = 0x236,
    H_CMDLINE_SIZE = 0x238,
    H_SETUP_DATA = 0x250,
    H_PREF_ADDRESS = 0x258,
    H_INIT_SIZE = 0x260,
    H_END_2_06 = 0x23c, /* end of the header of the oldest version that is accepted */
    H_ROOM_END = 0x290, /* what follows in boot_params belongs to others */
};

/* boot_params ("zero page"). */
enum {
    Z_VIDEO_MODE = 0x06,
    Z_VIDEO_COLS = 0x07,
    Z_VIDEO_LINES = 0x0e,
    Z_VIDEO_IS_VGA = 0x0f,
    Z_VIDEO_POINTS = 0x10,
    Z_RSDP = 0x070,
    Z_E820_COUNT = 0x1e8,
    Z_E820 = 0x2d0,
    Z_E820_LEN = 20,
};

#define LOADED_HIGH   0x01u /* loadflags */
#define XLF_KERNEL_64 0x01u /* xloadflags */
#define ENTRY_64      0x200u
#define LOADER_OTHER  0xffu /* type_of_loader: no number is assigned to us */

#define V(major, minor) ((major) << 8 | (minor))

struct kernel {
    unsigned version;    /* V(2, 6) or newer */
    uint64_t setup_len;  /* real-mode part: where the protected-mode code begins in the file */
    uint64_t code_len;   /* protected-mode code, all of it in the file */
    unsigned header_end; /* the header is [0x1f1, header_end) */
    bool relocatable, entry64;
    uint64_t alignment;   /* power of two; relocatable kernels only */
    uint64_t pref;        /* preferred address; 0: none */
    uint64_t init_size;   /* memory it needs from its run-time start, at least code_len */
    uint64_t initrd_max;  /* highest address an initrd may use */
    uint64_t cmdline_max; /* longest command line, without its terminator */
    gpa_t load, run;      /* where it is loaded; where it will run */
};

/* ---- what a file is instead of a kernel ---- */

static const struct {
    uint16_t off, len;
    const char *magic;
    const char *what;
} others[] = {
    {0, 4,
     "\x7f"
     "ELF",
     "it is an ELF file, such as an uncompressed vmlinux; use the bzImage "
     "(arch/x86/boot/bzImage, or /boot/vmlinuz-*)"},
    {0, 2, "\x1f\x8b", "it is compressed with gzip; a bzImage unpacks itself and is given as is"},
    {0, 6,
     "\xfd"
     "7zXZ\0",
     "it is compressed with xz; a bzImage unpacks itself and is given as is"},
    {0, 4, "\x28\xb5\x2f\xfd",
     "it is compressed with zstd; a bzImage unpacks itself and is given "
     "as is"},
    {0, 3, "BZh", "it is compressed with bzip2; a bzImage unpacks itself and is given as is"},
    {0, 4, "\x02\x21\x4c\x18",
     "it is compressed with lz4; a bzImage unpacks itself and is given as "
     "is"},
    {0x38, 4, "ARM\x64", "it is a kernel for ARM; one for x86 is needed"},
    {0x38, 4, "RSC\x05", "it is a kernel for RISC-V; one for x86 is needed"},
    {0, 2, "MZ", "it is a PE/EFI program without the Linux boot header"},
    {0, 6, "070701", "it is a cpio archive, such as an initrd; was it swapped with the kernel?"},
    {0, 2, "#!", "it is a script"},
};

static int not_a_kernel(const struct boot_file *f, const uint8_t *head, uint64_t len,
                        struct error *e)
{
    const char *what = "a bzImage is needed, such as /boot/vmlinuz-* of a distribution";
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (range_within(others[i].off, others[i].len, len) &&
            !memcmp(head + others[i].off, others[i].magic, others[i].len)) {
            what = others[i].what;
            break;
        }
    }
    return error_set(e, ERR_FORMAT, "%s: not a Linux kernel: no 'HdrS' at offset 0x202; %s",
                     f->path, what);
}

/* ---- the header ---- */

static int damaged(const struct boot_file *f, const char *why, struct error *e)
{
    return error_set(e, ERR_FORMAT, "%s: damaged Linux kernel: %s; get a fresh copy", f->path, why);
}

/* How much of the header there is, and what its size fields say against the size of the file. */
static int decode_sizes(const struct boot_file *f, const uint8_t *h, struct kernel *k,
                        struct error *e)
{
    unsigned sects = h[H_SETUP_SECTS] ? h[H_SETUP_SECTS] : 4;
    k->setup_len = (sects + 1) * 512u;
    k->code_len = load_le32(h + H_SYSSIZE) * 16ull;
    /* The end is where the jump at 0x200 leads; newer headers are longer. */
    k->header_end = H_MAGIC + h[H_JUMP + 1];
    if (h[H_JUMP] != 0xeb || k->header_end < H_END_2_06)
        return damaged(f, "its header is shorter than its version says", e);
    if (k->header_end > H_ROOM_END)
        k->header_end = H_ROOM_END;
    if (k->code_len == 0)
        return damaged(f, "its size field is 0", e);
    if (k->setup_len >= f->size)
        return error_set(
            e, ERR_FORMAT,
            "%s: truncated: the header promises %llu bytes of setup code, the file has "
            "%llu bytes; get a fresh copy",
            f->path, (unsigned long long)k->setup_len, (unsigned long long)f->size);
    uint64_t have = f->size - k->setup_len;
    if (have + 15 < k->code_len) /* the size is rounded up to 16 */
        return error_set(e, ERR_FORMAT,
                         "%s: truncated: the header promises %llu bytes, the file has %llu; get a "
                         "fresh copy",
                         f->path, (unsigned long long)(k->setup_len + k->code_len),
                         (unsigned long long)f->size);
    k->code_len = min_u64(k->code_len, have);
    return 0;
}

static int decode_placement(const struct boot_file *f, const uint8_t *h, struct kernel *k,
                            struct error *e)
{
    k->initrd_max = load_le32(h + H_INITRD_MAX);
    k->cmdline_max = load_le32(h + H_CMDLINE_SIZE);
    k->relocatable = h[H_RELOCATABLE];
    k->alignment = load_le32(h + H_ALIGNMENT);
    k->init_size = k->code_len;
    if (k->version >= V(2, 10)) {
        if (k->header_end < H_INIT_SIZE + 4)
            return damaged(f, "its header is shorter than its version says", e);
        k->pref = load_le64(h + H_PREF_ADDRESS);
        k->init_size = max_u64(load_le32(h + H_INIT_SIZE), k->code_len);
    }
    if (k->version >= V(2, 12))
        k->entry64 = load_le16(h + H_XLOADFLAGS) & XLF_KERNEL_64;
    if (k->relocatable && (!k->alignment || (k->alignment & (k->alignment - 1))))
        return damaged(f, "its alignment is not a power of two", e);
    if (k->entry64 && k->code_len <= ENTRY_64)
        return damaged(f, "it is too short for its 64-bit entry point", e);
    if (!(h[H_LOADFLAGS] & LOADED_HIGH))
        return error_set(e, ERR_FORMAT,
                         "%s: a zImage, which loads below 640 KiB; only bzImage kernels are "
                         "supported: build it with 'make bzImage'",
                         f->path);
    return 0;
}

/* `h` is the first H_ROOM_END bytes of the file, zero-filled if it is shorter. */
static int decode_header(const struct boot_file *f, const uint8_t *h, struct kernel *k,
                         struct error *e)
{
    *k = (struct kernel){0};
    if (memcmp(h + H_MAGIC, "HdrS", 4) != 0)
        return not_a_kernel(f, h, min_u64(f->size, H_ROOM_END), e);
    if (f->size < H_END_2_06)
        return error_set(e, ERR_FORMAT,
                         "%s: truncated: %llu bytes do not even hold the header; get a fresh copy",
                         f->path, (unsigned long long)f->size);
    if (load_le16(h + H_BOOT_FLAG) != 0xaa55)
        return damaged(f, "no boot signature 55 AA at offset 0x1fe", e);
    k->version = load_le16(h + H_VERSION);
    if (k->version < V(2, 6))
        return error_set(e, ERR_FORMAT,
                         "%s: boot protocol %u.%02u is too old; 2.06 (Linux 2.6.22) or newer is "
                         "needed",
                         f->path, k->version >> 8, k->version & 0xff);
    int rc = decode_sizes(f, h, k, e);
    return rc ? rc : decode_placement(f, h, k, e);
}

/* ---- placement ---- */

static int too_big(const struct boot_file *f, const char *what, uint64_t need,
                   const struct linux_boot *in, struct error *e)
{
    return error_set(e, ERR_NOMEM,
                     "%s: the %s does not fit: it needs the guest to have at least %llu MiB of "
                     "memory, and %llu MiB are there; raise 'memory'",
                     f->path, what, (unsigned long long)((need + MIB - 1) / MIB),
                     (unsigned long long)(in->low_top / MIB));
}

/* A kernel that can be moved is loaded where it prefers to run: it would move itself up to there
 * from any lower place, and needs init_size bytes from its run-time start. Others go to 1 MiB and
 * move themselves to the preferred address. */
static int place_kernel(const struct boot_file *f, const struct linux_boot *in, struct kernel *k,
                        struct error *e)
{
    k->load = k->run = KERNEL_LOW;
    if (k->relocatable) {
        if (k->pref >= KERNEL_LOW && k->pref % k->alignment == 0)
            k->load = k->pref;
        else
            k->load = (KERNEL_LOW + k->alignment - 1) & ~(k->alignment - 1);
        k->run = k->load;
    } else if (k->pref) {
        k->run = k->pref;
    }
    if (k->run < KERNEL_LOW || k->run >= 4 * GIB)
        return damaged(f, "its preferred address is not between 1 MiB and 4 GiB", e);
    if (!range_within(k->run, k->init_size, in->low_top))
        return too_big(f, "kernel", k->run + k->init_size, in, e);
    if (!range_within(k->load, k->code_len, in->low_top))
        return too_big(f, "kernel", k->load + k->code_len, in, e);
    return 0;
}

/* As high as kernel and memory allow, so that it is not in the way of the kernel's growth. */
static int place_initrd(const struct boot_file *f, const struct linux_boot *in,
                        const struct kernel *k, gpa_t *at, struct error *e)
{
    gpa_t floor = max_u64(k->run + k->init_size, k->load + k->code_len);
    gpa_t top = min_u64(k->initrd_max + 1, in->low_top);
    *at = top >= f->size ? (top - f->size) & ~(PAGE_SIZE - 1) : 0;
    if (*at >= floor)
        return 0;
    if (k->initrd_max + 1 < in->low_top)
        return error_set(
            e, ERR_LIMIT,
            "%s: the initrd of %llu MiB does not fit below 0x%llx, the highest address "
            "this kernel allows; use a smaller one",
            f->path, (unsigned long long)((f->size + MIB - 1) / MIB),
            (unsigned long long)k->initrd_max);
    return too_big(f, "initrd", floor + f->size, in, e);
}

int linux_check_input(const struct ram *ram, const struct linux_boot *in, struct error *e)
{
    if (in->ne820 > LINUX_MAX_E820)
        return error_set(e, ERR_LIMIT, "a memory map of %u entries; kernels take at most %d",
                         in->ne820, LINUX_MAX_E820);
    if (in->low_top > ram->ram_size || in->low_top > 4 * GIB || in->low_top < MIB)
        return error_set(e, ERR_LIMIT, "the guest has no memory to load a kernel into");
    return 0;
}

static int check_cmdline(const struct boot_file *f, const char *cmdline, const struct kernel *k,
                         struct error *e)
{
    uint64_t limit = min_u64(k->cmdline_max, CMDLINE_ROOM - 1);
    if (strlen(cmdline) <= limit)
        return 0;
    return error_set(e, ERR_LIMIT,
                     "the kernel command line has %llu characters; %s takes at most %llu",
                     (unsigned long long)strlen(cmdline), f->path, (unsigned long long)limit);
}

/* ---- what the kernel finds ---- */

/* "The 64-bit and 32-bit boot protocol": flat code at 0x10, flat data at 0x18, in a GDT. */
static void write_gdt(struct ram *ram, bool long_mode, struct linux_entry *out)
{
    uint8_t *gdt = ram->host + GDT;
    memset(gdt, 0, PAGE_SIZE);
    /* 4 GiB, page granular, present, ring 0; L for 64-bit code, D for 32-bit; accessed bits set */
    store_le64(gdt + LINUX_CS, long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull);
    store_le64(gdt + LINUX_DS, 0x00cf93000000ffffull);
    ram_note_write(ram, GDT, PAGE_SIZE);
    out->gdt_base = GDT;
    out->gdt_limit = LINUX_DS + 7;
}

/* Maps the first 4 GiB to themselves: kernel, boot_params and command line all lie there. */
static void write_page_tables(struct ram *ram, struct linux_entry *out)
{
    uint8_t *m = ram->host;
    memset(m + PML4, 0, 2 * PAGE_SIZE);
    store_le64(m + PML4, PDPT | 3); /* present, writable */
    for (unsigned i = 0; i < 4; i++)
        store_le64(m + PDPT + 8 * i, (PAGE_DIRS + i * PAGE_SIZE) | 3);
    for (uint64_t i = 0; i < 4 * 512; i++)
        store_le64(m + PAGE_DIRS + 8 * i, (i << 21) | 0x83); /* and 2 MiB */
    ram_note_write(ram, PML4, 6 * PAGE_SIZE);
    out->cr3 = PML4;
}

static void write_screen(uint8_t *z) /* VGA text mode 3, as a BIOS leaves it */
{
    z[Z_VIDEO_MODE] = 3;
    z[Z_VIDEO_COLS] = 80;
    z[Z_VIDEO_LINES] = 25;
    z[Z_VIDEO_IS_VGA] = 1;
    store_le16(z + Z_VIDEO_POINTS, 16);
}

static void write_boot_params(struct ram *ram, const struct linux_boot *in, const struct kernel *k,
                              const uint8_t *h, gpa_t initrd, uint64_t initrd_len)
{
    uint8_t *z = ram->host + BOOT_PARAMS;
    memset(z, 0, PAGE_SIZE);
    memcpy(z + H_SETUP_SECTS, h + H_SETUP_SECTS, k->header_end - H_SETUP_SECTS);
    write_screen(z);
    store_le64(z + Z_RSDP, in->rsdp);
    z[H_LOADER] = LOADER_OTHER;
    store_le32(z + H_CODE32, (uint32_t)k->load);
    store_le32(z + H_RAMDISK, (uint32_t)initrd);
    store_le32(z + H_RAMDISK_SIZE, (uint32_t)initrd_len);
    store_le32(z + H_CMDLINE_PTR, CMDLINE);
    store_le64(z + H_SETUP_DATA, 0); /* a list of the loader's; we have none */
    z[Z_E820_COUNT] = (uint8_t)in->ne820;
    for (unsigned i = 0; i < in->ne820; i++) {
        uint8_t *entry = z + Z_E820 + i * Z_E820_LEN;
        store_le64(entry, in->e820[i].addr);
        store_le64(entry + 8, in->e820[i].size);
        store_le32(entry + 16, in->e820[i].type);
    }
    ram_note_write(ram, BOOT_PARAMS, PAGE_SIZE);
}

static void write_cmdline(struct ram *ram, const char *cmdline)
{
    size_t len = strlen(cmdline) + 1; /* within CMDLINE_ROOM: check_cmdline() */
    memcpy(ram->host + CMDLINE, cmdline, len);
    ram_note_write(ram, CMDLINE, len);
}

/* ---- all together ---- */

static int load_files(struct ram *ram, const struct linux_boot *in, struct boot_file *kf,
                      struct boot_file *rf, struct linux_entry *out, struct error *e)
{
    uint8_t h[H_ROOM_END] = {0};
    struct kernel k;
    const char *cmdline = in->cmdline ? in->cmdline : "";
    gpa_t initrd = 0;
    int rc = boot_file_open(kf, "kernel", e);
    if (!rc)
        rc = boot_file_read(kf, 0, h, min_u64(sizeof h, kf->size), e);
    if (!rc)
        rc = decode_header(kf, h, &k, e);
    if (!rc)
        rc = check_cmdline(kf, cmdline, &k, e);
    if (!rc)
        rc = place_kernel(kf, in, &k, e);
    if (!rc && rf->path) {
        rc = boot_file_open(rf, "initrd", e);
        if (!rc)
            rc = place_initrd(rf, in, &k, &initrd, e);
    }
    if (!rc)
        rc = boot_file_load(kf, k.setup_len, ram, k.load, k.code_len, e);
    if (!rc && rf->path)
        rc = boot_file_load(rf, 0, ram, initrd, rf->size, e);
    if (rc)
        return rc;

    *out = (struct linux_entry){.long_mode = k.entry64,
                                .rip = k.load + (k.entry64 ? ENTRY_64 : 0),
                                .rsi = BOOT_PARAMS,
                                .rsp = STACK_TOP};
    write_boot_params(ram, in, &k, h, initrd, rf->size);
    write_cmdline(ram, cmdline);
    write_gdt(ram, k.entry64, out);
    if (k.entry64)
        write_page_tables(ram, out);
    return 0;
}

int linux_load(struct ram *ram, const struct linux_boot *in, struct linux_entry *out,
               struct error *e)
{
    struct boot_file kernel = {in->kernel, -1, 0}, initrd = {in->initrd, -1, 0};
    int rc = linux_check_input(ram, in, e);
    if (!rc)
        rc = load_files(ram, in, &kernel, &initrd, out, e);
    boot_file_close(&kernel);
    boot_file_close(&initrd);
    return rc;
}
