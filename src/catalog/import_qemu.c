/*
 * import_qemu.c - a command line of QEMU, as it is typed or stands in a script. Every option has
 * its place in one of two tables; of one that has none it is not known whether the next word is its
 * argument, so that word is dropped with it unless it is an option itself.
 */
#define _GNU_SOURCE
#include "catalog/import_qemu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/size.h"

#define DEFAULT_MEMORY (128 * MIB) /* qemu(1), -m */

typedef void take_fn(struct qemu *q, const char *option, char *arg);

void qemu_drop_rest(struct qemu *q, const char *of, const struct props *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        char from[80];
        snprintf(from, sizeof from, "%s %s=", of, p->prop[i].key);
        if (!p->prop[i].used)
            import_drop(q->m, from, "%s: a property that is not taken over", p->prop[i].value);
    }
    if (p->more)
        import_drop(q->m, of, "more than %u properties", PROPS_MAX);
}

static void take_memory(struct qemu *q, const char *option, char *arg)
{
    struct props p;
    char text[32];
    uint64_t n;
    props_split(arg, "size", &p);
    const char *size = props_get(&p, "size");
    size_t len = size ? strlen(size) : 0;
    if (len && len < sizeof text - 2) {
        strcpy(text, size);
        if (text[len - 1] >= '0' && text[len - 1] <= '9')
            strcpy(text + len, "M");
        else if (text[len - 1] >= 'a')
            text[len - 1] = (char)(text[len - 1] & ~32);
    }
    if (len && len < sizeof text - 2 && size_parse(text, &n))
        import_memory(q->m, option, n);
    else if (size)
        import_drop(q->m, option, "%s is no size", size);
    qemu_drop_rest(q, option, &p);
}

static void take_cpus(struct qemu *q, const char *option, char *arg)
{
    static const char *const parts[] = {"sockets", "dies", "clusters", "cores", "threads"};
    struct props p;
    uint64_t n, all = 1;
    props_split(arg, "cpus", &p);
    const char *cpus = props_get(&p, "cpus");
    if (cpus) {
        if (import_number(cpus, &n))
            import_cpus(q->m, option, n);
        else
            import_drop(q->m, option, "%s is no number", cpus);
        qemu_drop_rest(q, option, &p);
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        const char *part = props_get(&p, parts[i]);
        if (part && import_number(part, &n))
            all *= min_u64(n, 1000);
    }
    import_cpus(q->m, option, all);
    qemu_drop_rest(q, option, &p);
}

static void take_machine(struct qemu *q, const char *option, char *arg)
{
    struct props p;
    props_split(arg, "type", &p);
    const char *type = props_get(&p, "type");
    if (type && (strcmp(type, "pc") == 0 || strncmp(type, "pc-i440fx", 9) == 0)) {
        import_took(q->m, option, "%s: the machine is a PC of that kind", type);
    } else if (type) {
        q->q35 = strcmp(type, "q35") == 0 || strncmp(type, "pc-q35", 6) == 0;
        import_drop(q->m, option, "%s: the machine is a PC with an i440FX", type);
    }
    qemu_drop_rest(q, option, &p);
}

static void take_boot(struct qemu *q, const char *option, char *arg)
{
    struct spec *s = &q->m->spec;
    struct props p;
    props_split(arg, "order", &p);
    const char *order = props_get(&p, "order");
    unsigned seen = 0;
    s->nboot = 0;
    for (; order && *order; order++) {
        unsigned what = SPEC_BOOT_DISK;
        if (*order == 'd')
            what = SPEC_BOOT_CDROM;
        else if (*order == 'a')
            what = SPEC_BOOT_FLOPPY;
        else if (*order != 'c') {
            import_drop(q->m, option, "%c: booted from are disks, CD-ROMs and floppies", *order);
            continue;
        }
        if (!(seen & 1u << what))
            s->boot[s->nboot++] = (enum spec_boot)what;
        seen |= 1u << what;
    }
    if (s->nboot)
        import_took(q->m, option, "boot: the same order");
    qemu_drop_rest(q, option, &p);
}

static void take_name(struct qemu *q, const char *option, char *arg)
{
    struct props p;
    props_split(arg, "guest", &p);
    const char *name = props_get(&p, "guest");
    if (name)
        import_text(q->m, option, "name", name, 1000, &q->m->title);
    qemu_drop_rest(q, option, &p);
}

static void take_rtc(struct qemu *q, const char *option, char *arg)
{
    struct props p;
    props_split(arg, NULL, &p);
    const char *base = props_get(&p, "base");
    if (base && strcmp(base, "localtime") == 0)
        q->m->spec.clock = SPEC_CLOCK_LOCALTIME;
    if (base && (strcmp(base, "localtime") == 0 || strcmp(base, "utc") == 0))
        import_took(q->m, option, "clock: %s", base);
    else if (base)
        import_drop(q->m, option, "base=%s: the clock shows the time", base);
    qemu_drop_rest(q, option, &p);
}

static void take_localtime(struct qemu *q, const char *option, char *arg)
{
    q->m->spec.clock = SPEC_CLOCK_LOCALTIME;
    import_took(q->m, option, "clock: localtime");
}

static void take_nographic(struct qemu *q, const char *option, char *arg)
{
    if (!q->serial)
        q->m->spec.serial = SPEC_SERIAL_TERMINAL;
    import_took(q->m, option, "serial: terminal, unless -serial says something else");
}

static void take_serial(struct qemu *q, const char *option, char *arg)
{
    struct spec *s = &q->m->spec;
    if (q->serial) {
        import_drop(q->m, option, "%s: there is one serial port", arg);
        return;
    }
    q->serial = true;
    if (strcmp(arg, "stdio") == 0 || strcmp(arg, "mon:stdio") == 0) {
        s->serial = SPEC_SERIAL_TERMINAL;
        import_took(q->m, option, "serial: terminal");
    } else if (strcmp(arg, "none") == 0 || strcmp(arg, "null") == 0) {
        s->serial = SPEC_SERIAL_NONE;
        import_took(q->m, option, "serial: none");
    } else if (strncmp(arg, "file:", 5) == 0) {
        if (import_path(q->m, option, "serial: file", arg + 5, &s->serial_file))
            s->serial = SPEC_SERIAL_FILE;
    } else {
        import_drop(q->m, option, "%s: it leads to a terminal, a file, or nowhere", arg);
    }
}

static void take_kernel(struct qemu *q, const char *option, char *arg)
{
    import_path(q->m, option, "kernel", arg, &q->m->spec.kernel);
}

static void take_initrd(struct qemu *q, const char *option, char *arg)
{
    import_path(q->m, option, "initrd", arg, &q->m->spec.initrd);
}

static void take_append(struct qemu *q, const char *option, char *arg)
{
    import_text(q->m, option, "cmdline", arg, 2047, &q->m->spec.cmdline);
}

static void take_floppy(struct qemu *q, const char *option, char *arg)
{
    import_path(q->m, option, "floppy", arg, &q->m->spec.floppy);
}

static void take_hd(struct qemu *q, const char *option, char *arg)
{
    struct qemu_drive *d = qemu_add_drive(q, option);
    if (!d)
        return;
    d->file = arg;
    d->cdrom = strcmp(option, "-cdrom") == 0;
    d->index = d->cdrom ? 2 : strncmp(option, "-hd", 3) == 0 ? option[3] - 'a' : 0;
}

static void take_snapshot(struct qemu *q, const char *option, char *arg)
{
    q->snapshot = true;
    import_took(q->m, option, "disks are not written to: each gets an overlay, which is kept");
}

#define NO_NETWORK "a VM has no network card"
#define NO_DISPLAY "`sosia console` and `sosia screen` show the VM"
#define OWN_ENGINE "VMs run with Sosia's own engines"
#define OWN_CPU    "the processor is Sosia's own"
#define OWN_WAY    "a VM is looked after by Sosia's verbs"
#define OWN_BOARD  "the machine is Sosia's own"
#define NO_SUCH    "there is no such device"

static const struct option {
    const char *name;
    bool arg;
    take_fn *take;   /* or NULL: */
    const char *why; /* it is dropped */
} options[] = {
    {"m", true, take_memory, NULL},
    {"smp", true, take_cpus, NULL},
    {"machine", true, take_machine, NULL},
    {"M", true, take_machine, NULL},
    {"boot", true, take_boot, NULL},
    {"name", true, take_name, NULL},
    {"rtc", true, take_rtc, NULL},
    {"localtime", false, take_localtime, NULL},
    {"nographic", false, take_nographic, NULL},
    {"serial", true, take_serial, NULL},
    {"kernel", true, take_kernel, NULL},
    {"initrd", true, take_initrd, NULL},
    {"append", true, take_append, NULL},
    {"fda", true, take_floppy, NULL},
    {"hda", true, take_hd, NULL},
    {"hdb", true, take_hd, NULL},
    {"hdc", true, take_hd, NULL},
    {"hdd", true, take_hd, NULL},
    {"cdrom", true, take_hd, NULL},
    {"drive", true, qemu_take_drive, NULL},
    {"blockdev", true, qemu_take_blockdev, NULL},
    {"device", true, qemu_take_device, NULL},
    {"snapshot", false, take_snapshot, NULL},
    {"fdb", true, NULL, "there is one floppy drive"},
    {"bios", true, NULL, "there is SeaBIOS only, the host's"},
    {"pflash", true, NULL, "there is SeaBIOS only; a guest installed for UEFI does not start"},
    {"cpu", true, NULL, OWN_CPU},
    {"accel", true, NULL, OWN_ENGINE},
    {"enable-kvm", false, NULL, OWN_ENGINE},
    {"no-kvm", false, NULL, OWN_ENGINE},
    {"tcg", true, NULL, OWN_ENGINE},
    {"icount", true, NULL, OWN_ENGINE},
    {"singlestep", false, NULL, OWN_ENGINE},
    {"netdev", true, NULL, NO_NETWORK},
    {"nic", true, NULL, NO_NETWORK},
    {"net", true, NULL, NO_NETWORK},
    {"redir", true, NULL, NO_NETWORK},
    {"display", true, NULL, NO_DISPLAY},
    {"vga", true, NULL, NO_DISPLAY},
    {"vnc", true, NULL, NO_DISPLAY},
    {"spice", true, NULL, NO_DISPLAY},
    {"curses", false, NULL, NO_DISPLAY},
    {"sdl", false, NULL, NO_DISPLAY},
    {"full-screen", false, NULL, NO_DISPLAY},
    {"no-quit", false, NULL, NO_DISPLAY},
    {"k", true, NULL, NO_DISPLAY},
    {"monitor", true, NULL, OWN_WAY},
    {"mon", true, NULL, OWN_WAY},
    {"qmp", true, NULL, OWN_WAY},
    {"qmp-pretty", true, NULL, OWN_WAY},
    {"chardev", true, NULL, OWN_WAY},
    {"pidfile", true, NULL, OWN_WAY},
    {"daemonize", false, NULL, OWN_WAY},
    {"runas", true, NULL, OWN_WAY},
    {"chroot", true, NULL, OWN_WAY},
    {"sandbox", true, NULL, OWN_WAY},
    {"D", true, NULL, OWN_WAY},
    {"d", true, NULL, OWN_WAY},
    {"trace", true, NULL, OWN_WAY},
    {"gdb", true, NULL, OWN_WAY},
    {"s", false, NULL, OWN_WAY},
    {"S", false, NULL, OWN_WAY},
    {"loadvm", true, NULL, OWN_WAY},
    {"incoming", true, NULL, OWN_WAY},
    {"no-shutdown", false, NULL, OWN_WAY},
    {"no-reboot", false, NULL, OWN_WAY},
    {"action", true, NULL, OWN_WAY},
    {"msg", true, NULL, OWN_WAY},
    {"overcommit", true, NULL, OWN_WAY},
    {"mem-prealloc", false, NULL, OWN_WAY},
    {"mem-path", true, NULL, OWN_WAY},
    {"readconfig", true, NULL, "other files are not read"},
    {"uuid", true, NULL, "the VM gets a UUID of its own"},
    {"smbios", true, NULL, OWN_BOARD},
    {"acpitable", true, NULL, OWN_BOARD},
    {"no-acpi", false, NULL, OWN_BOARD},
    {"no-hpet", false, NULL, OWN_BOARD},
    {"no-fd-bootchk", false, NULL, OWN_BOARD},
    {"numa", true, NULL, OWN_BOARD},
    {"global", true, NULL, OWN_BOARD},
    {"set", true, NULL, OWN_BOARD},
    {"object", true, NULL, OWN_BOARD},
    {"fw_cfg", true, NULL, OWN_BOARD},
    {"option-rom", true, NULL, OWN_BOARD},
    {"dtb", true, NULL, OWN_BOARD},
    {"nodefaults", false, NULL, OWN_BOARD},
    {"no-user-config", false, NULL, OWN_BOARD},
    {"parallel", true, NULL, NO_SUCH},
    {"virtfs", true, NULL, NO_SUCH},
    {"fsdev", true, NULL, NO_SUCH},
    {"tpmdev", true, NULL, NO_SUCH},
    {"usb", false, NULL, "there is no USB"},
    {"usbdevice", true, NULL, "there is no USB"},
    {"audio", true, NULL, "there is no sound card"},
    {"audiodev", true, NULL, "there is no sound card"},
    {"soundhw", true, NULL, "there is no sound card"},
    {"watchdog", true, NULL, NO_SUCH},
    {"watchdog-action", true, NULL, NO_SUCH},
    {"balloon", true, NULL, NO_SUCH},
    {"mtdblock", true, NULL, NO_SUCH},
    {"sd", true, NULL, NO_SUCH},
};

static const struct option *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    return NULL;
}

/* An option at `i`; returns how many words it takes. */
static unsigned take_option(struct qemu *q, struct words *w, unsigned i)
{
    char *word = w->word[i];
    const struct option *o = find(word[1] == '-' ? word + 2 : word + 1);
    char *next = i + 1 < w->n ? w->word[i + 1] : NULL;
    if (word[1] == '-')
        word++;
    if (!o) {
        bool takes = next && next[0] != '-';
        if (takes)
            import_drop(q->m, word, "not known; dropped with the word behind it, %s", next);
        else
            import_drop(q->m, word, "not known");
        return takes ? 2 : 1;
    }
    if (o->arg && !next) {
        import_drop(q->m, word, "its argument is missing");
        return 1;
    }
    if (o->take)
        o->take(q, word, next);
    else
        import_drop(q->m, word, "%s%s%s", o->arg ? next : "", o->arg ? ": " : "", o->why);
    return o->arg ? 2 : 1;
}

/* Where the program's name is; the words' number: there is none. ERR_FORMAT: of another machine. */
static int find_program(const struct words *w, unsigned *at, struct error *e)
{
    for (*at = 0; *at < w->n; (*at)++) {
        const char *slash = strrchr(w->word[*at], '/');
        const char *name = slash ? slash + 1 : w->word[*at];
        if (strcmp(name, "qemu-system-x86_64") == 0 || strcmp(name, "qemu-system-i386") == 0 ||
            strcmp(name, "qemu-kvm") == 0 || strcmp(name, "kvm") == 0 || strcmp(name, "qemu") == 0)
            return 0;
        if (strncmp(name, "qemu-system-", 12) == 0)
            return error_set(e, ERR_FORMAT, "%.40s: VMs are PCs (qemu-system-x86_64, -i386)", name);
        if (name[0] == '-')
            break;
    }
    return error_set(e, ERR_FORMAT, "not a command line of QEMU: no qemu-system-x86_64 in it");
}

static int take_words(struct qemu *q, struct words *w, struct error *e)
{
    unsigned i;
    int rc = find_program(w, &i, e);
    if (rc)
        return rc;
    for (unsigned n = 0; n < i; n++)
        import_drop(q->m, w->word[n], "before the program");
    for (i++; i < w->n;) {
        char *word = w->word[i];
        if (word[0] == '-' && word[1]) {
            i += take_option(q, w, i);
        } else {
            take_hd(q, "-hda", word); /* what a file alone means */
            i++;
        }
    }
    if (w->ended_by)
        import_drop(q->m, "(the rest)", "behind the shell's \"%c\"", w->ended_by);
    if (w->expands)
        import_drop(q->m, "$", "what a shell would replace is left as it is written");
    return 0;
}

int import_qemu(struct import *m, const char *text, size_t len, struct error *e)
{
    CLEANUP_FREE char *copy = NULL;
    CLEANUP_FREE struct words *w = calloc(1, sizeof *w);
    CLEANUP_FREE struct qemu *q = calloc(1, sizeof *q);
    *m = (struct import){.remote = true};
    int rc = import_check_text(text, len, e);
    if (rc)
        return rc;
    copy = strndup(text, len);
    if (!w || !q || !copy)
        return error_set(e, ERR_NOMEM, "out of memory");
    q->m = m;
    rc = words_split(copy, w, e);
    if (!rc)
        rc = take_words(q, w, e);
    if (!rc)
        qemu_finish_drives(q);
    for (unsigned i = 0; i < q->nowned; i++)
        free(q->owned[i]);
    if (rc)
        return rc;
    if (!m->spec.memory)
        m->spec.memory = DEFAULT_MEMORY;
    if (!m->spec.kernel && (m->spec.initrd || m->spec.cmdline))
        import_drop(m, m->spec.initrd ? "-initrd" : "-append", "there is no -kernel");
    return m->nomem ? error_set(e, ERR_NOMEM, "out of memory") : 0;
}
