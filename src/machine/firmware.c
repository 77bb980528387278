/* firmware.c - see firmware.h. */
#include "machine/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define SYSTEM_MIN (64 * KIB)
#define SYSTEM_MAX (1 * MIB)
#define OPTION_MAX (128 * KIB)
#define OPTION_MIN 512u
#define ROM_UNIT   512u

static const char *const folders[] = {"/usr/share/seabios", "/usr/share/qemu"};

/* 1: there, 0: not there, or an error. */
static int look_in(const char *folder, const char *name, char *path, size_t cap, struct error *e)
{
    struct stat st;
    int n = snprintf(path, cap, "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= cap)
        return error_set(e, ERR_LIMIT, "%s/%s: path too long", folder, name);
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int firmware_find(const char *name, char *path, size_t cap, struct error *e)
{
    const char *own = getenv("SOSIA_FIRMWARE_DIR");
    int found = own && *own ? look_in(own, name, path, cap, e) : 0;
    for (size_t i = 0; i < ARRAY_LEN(folders) && !found; i++)
        found = look_in(folders[i], name, path, cap, e);
    if (found)
        return found < 0 ? found : 0;
    return error_set(e, ERR_HOST,
                     "firmware '%s' is not in %s%s%s or %s; install it with: apt install seabios "
                     "(or set SOSIA_FIRMWARE_DIR to the folder that holds it)",
                     name, own && *own ? own : "", own && *own ? ", " : "", folders[0], folders[1]);
}

static int read_exactly(int fd, uint8_t *buf, uint64_t len, const char *path, struct error *e)
{
    uint64_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, buf + done, len - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, ERR_IO, errno, "%s: cannot read", path);
        if (n == 0)
            return error_set(e, ERR_IO, "%s: became shorter while it was read", path);
        done += (uint64_t)n;
    }
    return 0;
}

/* Decides from size and first bytes what it is; *need is the room it takes. */
static int check_image(int fd, const char *path, uint64_t *size, uint64_t *need, struct error *e)
{
    struct stat st;
    uint8_t magic[2];
    if (fstat(fd, &st) < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot find its size", path);
    *size = *need = (uint64_t)st.st_size;
    if (*size >= OPTION_MIN) {
        int rc = read_exactly(fd, magic, sizeof magic, path, e);
        if (rc)
            return rc;
        if (magic[0] == 0x55 && magic[1] == 0xaa) {
            if (*size % ROM_UNIT || *size > OPTION_MAX)
                return error_set(e, ERR_FORMAT,
                                 "%s: an expansion ROM of %llu bytes; it must be a multiple of "
                                 "512, and at most 128 KiB",
                                 path, (unsigned long long)*size);
            for (*need = 2 * KIB; *need < *size;)
                *need *= 2;
            return 0;
        }
    }
    if (*size < SYSTEM_MIN || *size > SYSTEM_MAX || *size % SYSTEM_MIN)
        return error_set(e, ERR_FORMAT,
                         "%s: not a firmware image: %llu bytes; it must be 64 KiB to 1 MiB and a "
                         "multiple of 64 KiB",
                         path, (unsigned long long)*size);
    return 0;
}

int firmware_load(const char *name, struct ram *ram, uint64_t *roff, uint64_t *len, struct error *e)
{
    char path[4096];
    uint64_t size = 0, need = 0;
    int rc = firmware_find(name, path, sizeof path, e);
    if (rc)
        return rc;
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot open the firmware", path);
    rc = check_image(fd, path, &size, &need, e);
    if (!rc)
        rc = ram_rom_alloc(ram, need, roff, e);
    if (!rc)
        rc = read_exactly(fd, ram->host + *roff, size, path, e);
    if (!rc)
        log_info("firmware %s: %llu KiB", path, (unsigned long long)(size / KIB));
    *len = need;
    return rc;
}
