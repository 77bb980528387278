/*
 * fuzz_linux.c - the kernel loader. Input: size of the kernel file in units of 256 bytes (2 bytes),
 * length of what of it is given (2), size of the initrd (2), top of memory (1), length of the
 * command line (1); then command line, kernel and initrd. What is not given is zero.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "machine/linux_boot.h"

#define RAM_SIZE (32 * MIB)

static int file(char path[64], const uint8_t *data, size_t len, uint64_t size)
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    FUZZ_REQUIRE(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    FUZZ_REQUIRE(!ftruncate(fd, (off_t)(size > len ? size : len)));
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    struct ram ram;
    struct linux_entry out;
    struct error e = {0};
    char kernel[64], initrd[64], cmdline[256] = {0};
    const uint8_t *p;
    uint64_t kernel_size = fuzz_u16(&in) * 256ull;
    size_t given = fuzz_u16(&in), initrd_size = fuzz_u16(&in) * 256u;
    uint64_t low_top = (fuzz_u8(&in) % 33u) * MIB;
    size_t n = fuzz_u8(&in);
    memcpy(cmdline, in.p, n < in.left ? n : in.left);
    cmdline[255] = 0;
    fuzz_take(&in, &p, n);
    n = fuzz_take(&in, &p, given);
    int kfd = file(kernel, p, n, kernel_size), ifd = file(initrd, in.p, in.left, initrd_size);
    const struct e820_entry map[] = {{0, 0x9fc00, E820_RAM}, {MIB, RAM_SIZE - MIB, E820_RAM}};
    const struct linux_boot boot = {.kernel = kernel,
                                    .initrd = initrd_size ? initrd : NULL,
                                    .cmdline = cmdline,
                                    .e820 = map,
                                    .ne820 = ARRAY_LEN(map),
                                    .rsdp = 0xe0000,
                                    .low_top = low_top};
    FUZZ_REQUIRE(!ram_init(&ram, RAM_SIZE, NULL));
    if (linux_load(&ram, &boot, &out, &e) == 0)
        FUZZ_REQUIRE(out.rip < low_top && out.rsi < MIB);
    else
        FUZZ_REQUIRE(e.code && e.msg[0]);
    ram_fini(&ram);
    close(kfd);
    close(ifd);
    return 0;
}
