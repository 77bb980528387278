/* test_firmware.c - finding firmware images and checking their sizes. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/firmware.h"

static char dir[64], image[96];
static struct ram ram;
static struct error err;

static int setup(void **state)
{
    strcpy(dir, "/tmp/sosia-fw-XXXXXX");
    if (!mkdtemp(dir) || ram_init(&ram, MIB, NULL))
        return -1;
    snprintf(image, sizeof image, "%s/test.bin", dir);
    return setenv("SOSIA_FIRMWARE_DIR", dir, 1);
}

static int teardown(void **state)
{
    ram_fini(&ram);
    unlink(image);
    unsetenv("SOSIA_FIRMWARE_DIR");
    return rmdir(dir);
}

static void make(off_t len, uint8_t first, uint8_t second)
{
    const uint8_t head[2] = {first, second};
    int fd = open(image, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, len), 0);
    if (len >= 2)
        assert_int_equal(pwrite(fd, head, 2, 0), 2);
    close(fd);
}

static int load(uint64_t *roff, uint64_t *len)
{
    err = (struct error){0};
    return firmware_load("test.bin", &ram, roff, len, &err);
}

static void system_images(void **state)
{
    uint64_t roff = 0, len = 0;
    make(256 * KIB, 0x12, 0x34);
    assert_int_equal(load(&roff, &len), 0);
    assert_int_equal(len, 256 * KIB);
    assert_int_equal(roff, MIB); /* the ROM area follows RAM */
    assert_int_equal(ram.host[roff], 0x12);
    make(MIB, 0, 0);
    assert_int_equal(load(&roff, &len), 0);
    assert_int_equal(roff, MIB + 256 * KIB);
    assert_int_equal(load(&roff, &len), ERR_LIMIT); /* the area is full */
}

static void system_image_sizes(void **state)
{
    uint64_t roff, len;
    static const off_t bad[] = {0,     1,         511,     512,         65535,
                                65537, 96 * 1024, MIB + 1, MIB + 65536, 1ll << 40};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        make(bad[i], 0, 0);
        assert_int_equal(load(&roff, &len), ERR_FORMAT);
        assert_non_null(strstr(err.msg, image));
    }
    assert_int_equal(ram.rom_used, 0);
}

static void expansion_roms(void **state)
{
    uint64_t roff, len;
    make(39936, 0x55, 0xaa);
    assert_int_equal(load(&roff, &len), 0);
    assert_int_equal(len, 65536);
    assert_int_equal(ram.rom_used, 65536);
    make(512, 0x55, 0xaa);
    assert_int_equal(load(&roff, &len), 0);
    assert_int_equal(len, 2048);
    make(513, 0x55, 0xaa);
    assert_int_equal(load(&roff, &len), ERR_FORMAT);
    make(128 * 1024 + 512, 0x55, 0xaa);
    assert_int_equal(load(&roff, &len), ERR_FORMAT);
}

static void absent(void **state)
{
    char path[256];
    assert_int_equal(firmware_find("no-such.bin", path, sizeof path, &err), ERR_HOST);
    assert_non_null(strstr(err.msg, "apt install seabios"));
    assert_non_null(strstr(err.msg, dir));
    make(65536, 0, 0);
    assert_int_equal(firmware_find("test.bin", path, sizeof path, &err), 0);
    assert_string_equal(path, image);
    assert_int_equal(firmware_find("test.bin", path, 10, &err), ERR_LIMIT);
    unsetenv("SOSIA_FIRMWARE_DIR");
    assert_int_equal(firmware_find("test.bin", path, sizeof path, &err), ERR_HOST);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(system_images), T(system_image_sizes), T(expansion_roms),
                                       T(absent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
