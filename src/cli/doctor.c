/*
 * doctor.c - `sosia doctor`: what this host can do, and the one command that mends what it cannot.
 *
 * Each check tries the thing itself, as a VM would.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/size.h"
#include "cli/vms.h"
#include "engine/engine.h"
#include "machine/firmware.h"

enum verdict { FINE, LESS, MISSING }; /* LESS: VMs run, but slower or with less */
static const char *const verdict_words[] = {"ok", "could be better", "missing"};

struct finding {
    enum verdict verdict;
    char detail[256];
    const char *fix; /* a command, or NULL */
};

static void note(struct finding *f, enum verdict v, const char *fix, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void note(struct finding *f, enum verdict v, const char *fix, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->detail, sizeof f->detail, fmt, ap);
    va_end(ap);
    f->verdict = v;
    f->fix = fix;
}

static void check_engine(struct finding *f)
{
    char why[160] = "";
    const struct engine *engine = engine_auto(why, sizeof why);
    if (!engine)
        note(f, MISSING, NULL, "%.200s", why);
    else if (engine == engine_list[0])
        note(f, FINE, NULL, "%.200s", why);
    else
        note(f, LESS, NULL, "%.150s; is memory that is executable forbidden here?", why);
}

static void check_kvm(struct finding *f)
{
    if (access("/dev/kvm", R_OK | W_OK) == 0)
        note(f, FINE, NULL, "/dev/kvm is there (and not needed)");
    else
        note(f, FINE, NULL, "no /dev/kvm; it is not needed");
}

static void check_firmware(struct finding *f)
{
    struct error e = {0};
    char path[512];
    if (firmware_find("bios-256k.bin", path, sizeof path, &e) == 0 &&
        firmware_find("vgabios-stdvga.bin", path, sizeof path, &e) == 0)
        note(f, FINE, NULL, "SeaBIOS is there, for disks and CD-ROMs that boot");
    else
        note(f, MISSING, "sudo apt-get install seabios", "%.200s", e.msg);
}

static void check_io_uring(struct finding *f)
{
    struct io_uring ring;
    int rc = io_uring_queue_init(8, &ring, 0);
    if (rc == 0) {
        io_uring_queue_exit(&ring);
        note(f, FINE, NULL, "io_uring works");
    } else {
        note(f, LESS, "sudo sysctl kernel.io_uring_disabled=0",
             "no io_uring (%s): disks use threads", strerror(-rc));
    }
}

/* The word in brackets. */
static bool chosen(const char *path, const char *word)
{
    char line[256] = "", want[32];
    CLEANUP_FCLOSE FILE *f = fopen(path, "re");
    snprintf(want, sizeof want, "[%s]", word);
    return f && fgets(line, sizeof line, f) && strstr(line, want);
}

static void check_huge_pages(struct finding *f)
{
    if (chosen("/sys/kernel/mm/transparent_hugepage/enabled", "never"))
        note(f, LESS, "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
             "large pages are switched off: memory of guests is slower");
    else
        note(f, FINE, NULL, "large pages can be had");
}

/* In a process of its own, which then has the namespaces. */
static bool can_unshare(int flags)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(unshare(flags) == 0 ? 0 : 1);
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

static void check_sandbox(struct finding *f)
{
    bool seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0;
    if (!seccomp)
        note(f, LESS, NULL,
             "no seccomp in this kernel: a VM's process keeps rights it does not need");
    else if (!can_unshare(CLONE_NEWUSER | CLONE_NEWNET))
        note(f, LESS,
             "sudo sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000",
             "seccomp, but no user namespaces: a VM's process sees the host's network");
    else
        note(f, FINE, NULL, "seccomp and user namespaces");
}

static void check_memory(struct finding *f)
{
    struct sysinfo s;
    char total[32], left[32];
    if (sysinfo(&s) < 0) {
        note(f, LESS, NULL, "how much there is is not known");
        return;
    }
    uint64_t unit = s.mem_unit, free_bytes = (s.freeram + s.bufferram) * unit;
    note(f, FINE, NULL, "%s, %s of it unused; %d CPUs",
         size_format(total, s.totalram * unit & ~(MIB - 1)),
         size_format(left, free_bytes & ~(MIB - 1)), get_nprocs());
}

static void check_catalog(struct finding *f)
{
    struct catalog c;
    struct error e = {0};
    struct statvfs st;
    char left[32];
    if (catalog_open(&c, false, &e)) {
        note(f, MISSING, NULL, "%.200s", e.msg);
        return;
    }
    bool there = c.home_fd >= 0;
    if (there && (faccessat(c.home_fd, ".", W_OK, AT_EACCESS) < 0))
        note(f, MISSING, NULL, "%.150s: %s; set SOSIA_HOME to a folder of yours", c.home,
             strerror(errno));
    else if (there && fstatvfs(c.home_fd, &st) == 0 && st.f_bavail * st.f_frsize < GIB)
        note(f, LESS, NULL, "%.150s: only %s of space are left", c.home,
             size_format(left, st.f_bavail * st.f_frsize & ~(MIB - 1)));
    else
        note(f, FINE, NULL, "%.150s%s", c.home, there ? "" : " (will be made)");
    catalog_close(&c);
}

static const struct {
    const char *name;
    void (*check)(struct finding *f);
} checks[] = {
    {"engine", check_engine},   {"firmware", check_firmware}, {"disks", check_io_uring},
    {"memory", check_memory},   {"pages", check_huge_pages},  {"sandbox", check_sandbox},
    {"catalog", check_catalog}, {"kvm", check_kvm},
};

int cli_doctor(const struct cli_args *a, struct error *e)
{
    json_t *list = json_array();
    bool missing = false;
    fflush(NULL); /* a check forks */
    for (unsigned i = 0; i < ARRAY_LEN(checks); i++) {
        struct finding f = {0};
        checks[i].check(&f);
        missing |= f.verdict == MISSING;
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:s?}", "check", checks[i].name,
                                              "verdict", verdict_words[f.verdict], "detail",
                                              cli_json_text(f.detail), "fix", f.fix));
        if (cli_has(a, CLI_JSON))
            continue;
        printf("%-9s %s: %s\n", checks[i].name, verdict_words[f.verdict], f.detail);
        if (f.fix)
            printf("          to mend it: %s\n", f.fix);
    }
    int rc = cli_has(a, CLI_JSON) ? cli_print_json(json_pack("{s:O}", "checks", list), e) : 0;
    json_decref(list);
    return rc ? rc : missing ? CLI_HOST : 0;
}
