/*
 * fuzz_control.c - the control socket of a VM, and clients that send what they like: half messages,
 * many at once, nothing, and who read their answers, or do not, or leave. The VM has no threads:
 * its vCPUs count as parked all the time, so what is asked for is done at the loop's next turn.
 *
 * Input: operations. A u8: bits 0 and 1 say which client, bits 2 to 4 what it does:
 *     0 sends: u8 length, bytes        1 reads what has come     2 comes, or leaves
 *     3 sends no more                  4 sends a command: u8 which of control_commands, u8 length,
 *     the bytes of its arguments' object                         5 negotiates
 *     6 and 7: the loop turns twice
 * The loop turns once after each.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "fuzz.h"
#include "vmm/control_int.h"

#define CLIENTS 4
#define DISK    (64 * KIB)

struct rig {
    struct fuzz_in in;
    struct vm vm;
    struct spec spec;
    struct vmm_service service;
    struct sockaddr_un address;
    socklen_t address_len;
    int client[CLIENTS]; /* -1: away */
    int disk;
    char disk_path[32];
};

static int memory_file(off_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_REQUIRE(fd >= 0 && ftruncate(fd, size) == 0);
    return fd;
}

/* The kernel chooses the name: abstract, so nothing is left behind. */
static int listener(struct rig *r)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    r->address = (struct sockaddr_un){.sun_family = AF_UNIX};
    FUZZ_REQUIRE(fd >= 0);
    FUZZ_REQUIRE(bind(fd, (struct sockaddr *)&r->address, sizeof r->address.sun_family) == 0);
    r->address_len = sizeof r->address;
    FUZZ_REQUIRE(getsockname(fd, (struct sockaddr *)&r->address, &r->address_len) == 0);
    FUZZ_REQUIRE(listen(fd, 16) == 0);
    return fd;
}

static void begin(struct rig *r)
{
    struct error e = {0};
    log_set_level(LOG_ERROR);
    signal(SIGPIPE, SIG_IGN); /* as the VMM does: catalog/launch.c */
    memset(r, 0, sizeof *r);
    for (unsigned n = 0; n < CLIENTS; n++)
        r->client[n] = -1;
    r->disk = memory_file(DISK);
    snprintf(r->disk_path, sizeof r->disk_path, "/proc/self/fd/%d", r->disk);
    r->spec = (struct spec){.cpus = 2,
                            .memory = MIB,
                            .engine = SPEC_ENGINE_INTERP,
                            .firmware = SPEC_FIRMWARE_NONE,
                            .disk = {{.file = r->disk_path, .bus = SPEC_BUS_VIRTIO, .format = 1}},
                            .ndisk = 1};
    r->service = (struct vmm_service){.control = listener(r),
                                      .console_log = memory_file(0),
                                      .console_old = memory_file(0),
                                      .events = memory_file(0),
                                      .state = memory_file(0)};
    if (vm_create(&r->vm, &r->spec, &r->service, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        FUZZ_REQUIRE(false);
    }
    r->vm.parked = r->vm.nvcpu;
}

static void leave(struct rig *r, unsigned n)
{
    if (r->client[n] >= 0)
        close(r->client[n]);
    r->client[n] = -1;
}

static void end(struct rig *r)
{
    const int files[] = {r->service.console_log, r->service.console_old, r->service.events,
                         r->service.state, r->disk};
    vm_destroy(&r->vm);
    for (unsigned n = 0; n < CLIENTS; n++)
        leave(r, n);
    for (unsigned n = 0; n < ARRAY_LEN(files); n++)
        close(files[n]);
}

static void come(struct rig *r, unsigned n)
{
    r->client[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    FUZZ_REQUIRE(r->client[n] >= 0);
    if (connect(r->client[n], (struct sockaddr *)&r->address, r->address_len) < 0)
        leave(r, n); /* the queue is full */
}

static void say(struct rig *r, unsigned n, const void *p, size_t len)
{
    if (r->client[n] >= 0 && send(r->client[n], p, len, MSG_NOSIGNAL) < 0)
        leave(r, n); /* cut off, or it is full */
}

static void say_command(struct rig *r, unsigned n)
{
    char line[512];
    const uint8_t *args;
    unsigned count = 0;
    while (control_commands[count].name)
        count++;
    const char *name = control_commands[fuzz_u8(&r->in) % count].name;
    size_t len = fuzz_take(&r->in, &args, fuzz_u8(&r->in));
    int used = snprintf(line, sizeof line, "{\"execute\":\"%s\",\"arguments\":{%.*s}}\n", name,
                        (int)len, (const char *)args);
    say(r, n, line, (size_t)used);
}

static void read_some(struct rig *r, unsigned n)
{
    char text[4096];
    if (r->client[n] >= 0 && recv(r->client[n], text, sizeof text, 0) == 0)
        leave(r, n);
}

static void step(struct rig *r)
{
    uint8_t op = fuzz_u8(&r->in);
    unsigned n = op & 3, turns = 1;
    static const char hello[] = "{\"execute\":\"qmp_capabilities\"}";
    const uint8_t *p;
    size_t len;
    switch (op >> 2 & 7) {
    case 0:
        len = fuzz_take(&r->in, &p, fuzz_u8(&r->in));
        say(r, n, p, len);
        break;
    case 1:
        read_some(r, n);
        break;
    case 2:
        if (r->client[n] < 0)
            come(r, n);
        else
            leave(r, n);
        break;
    case 3:
        if (r->client[n] >= 0)
            shutdown(r->client[n], SHUT_WR);
        break;
    case 4:
        say_command(r, n);
        break;
    case 5:
        say(r, n, hello, sizeof hello - 1);
        break;
    default:
        turns = 2;
    }
    while (turns-- && !r->vm.quit)
        uv_run(&r->vm.loop, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    begin(&r);
    r.in = (struct fuzz_in){.p = data, .left = size};
    come(&r, 0);
    while (r.in.left && !r.vm.quit)
        step(&r);
    end(&r);
    return 0;
}
