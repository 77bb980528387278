/*
 * import_vmx.c - VMware's .vmx: lines of KEY = "VALUE", in any order, keys in any case. In a value
 * "|22" stands for the character 0x22. A device is the keys that begin alike, "scsi0:1.", and is
 * there if its key "present" says so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <iconv.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "catalog/import.h"

#define MAX_KEYS    4096
#define CONTROLLERS 4
#define UNITS       64

struct entry {
    char *key, *value; /* in the copy of the text */
    bool used;
};

/* A place for a drive. */
struct slot {
    bool there, present, away; /* away: not connected when the VM starts */
    const char *file, *type, *mode;
};

static const struct {
    const char *name;
    enum spec_bus bus;
} buses[] = {
    /* Sosia's SCSI adapter is virtio-scsi, for which few guests of VMware have a driver. */
    {"scsi", SPEC_BUS_AHCI},
    {"sata", SPEC_BUS_AHCI},
    {"nvme", SPEC_BUS_NVME},
    {"ide", SPEC_BUS_IDE},
};

struct vmx {
    struct import *m;
    struct entry *entry;
    size_t n;
    struct slot slot[ARRAY_LEN(buses)][CONTROLLERS][UNITS];
};

/* ---- the text ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void decode_value(char *value)
{
    char *to = value;
    for (const char *s = value; *s; s++) {
        int high = *s == '|' ? hex_digit(s[1]) : -1;
        int low = high >= 0 ? hex_digit(s[2]) : -1;
        if (low >= 0 && (high || low)) { /* never a NUL */
            *to++ = (char)(high << 4 | low);
            s += 2;
        } else {
            *to++ = *s;
        }
    }
    *to = 0;
}

static char *trim(char *s)
{
    s += strspn(s, " \t\r");
    size_t n = strlen(s);
    while (n && strchr(" \t\r", s[n - 1]))
        s[--n] = 0;
    return s;
}

/* False: the line says nothing that could be understood. */
static bool take_line(struct vmx *v, char *line)
{
    line = trim(line);
    if (!line[0] || line[0] == '#')
        return true;
    char *equals = strchr(line, '=');
    if (!equals || equals == line)
        return false;
    *equals = 0;
    char *key = trim(line), *value = trim(equals + 1);
    size_t n = strlen(value);
    if (value[0] == '"') {
        if (n < 2 || value[n - 1] != '"')
            return false;
        value[n - 1] = 0;
        value++;
    }
    decode_value(value);
    v->entry[v->n++] = (struct entry){key, value, false};
    return true;
}

static int take_lines(struct vmx *v, char *text, struct error *e)
{
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (v->n == MAX_KEYS)
            return error_set(e, ERR_LIMIT, "more than %u keys", MAX_KEYS);
        CLEANUP_FREE char *whole = strndup(line, 70);
        v->m->nomem |= !whole;
        if (!take_line(v, line) && whole)
            import_drop(v->m, whole, "not of the form KEY = \"VALUE\"");
    }
    return 0;
}

static struct entry *find(struct vmx *v, const char *key)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcasecmp(v->entry[i].key, key) == 0) {
            v->entry[i].used = true;
            return &v->entry[i];
        }
    return NULL;
}

static const char *value_of(struct vmx *v, const char *key)
{
    const struct entry *found = find(v, key);
    return found ? found->value : NULL;
}

static bool is_true(const char *value)
{
    return value && strcasecmp(value, "true") == 0;
}

static bool is_false(const char *value)
{
    return value && strcasecmp(value, "false") == 0;
}

/* ---- encodings ---- */

/* What a text in another encoding than UTF-8 is in that; allocated. Only what VMware writes. */
static int to_utf8(const char *text, size_t len, const char *encoding, char **out, struct error *e)
{
    static const char *const known[][2] = {
        {"UTF-8", "UTF-8"}, {"windows-1252", "CP1252"}, {"windows-1251", "CP1251"},
        {"GBK", "GBK"},     {"Shift_JIS", "CP932"},     {"ISO-8859-1", "ISO-8859-1"},
    };
    const char *from = NULL;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcasecmp(known[i][0], encoding) == 0)
            from = known[i][1];
    if (!from)
        return error_set(e, ERR_FORMAT, ".encoding \"%.20s\" is not known; make the file UTF-8",
                         encoding);
    size_t room = 4 * len; /* the longest character of UTF-8 */
    char *to = malloc(room + 1);
    *out = to;
    if (!to)
        return error_set(e, ERR_NOMEM, "out of memory");
    iconv_t cd = iconv_open("UTF-8", from);
    if (cd == (iconv_t)-1)
        return error_errno(e, ERR_HOST, errno, "cannot convert from %s", from);
    CLEANUP_FREE char *copy = strndup(text, len);
    char *at = copy;
    size_t bad = copy ? iconv(cd, &at, &len, &to, &room) : (size_t)-1;
    iconv_close(cd);
    *to = 0;
    return bad == (size_t)-1 ? error_set(e, ERR_FORMAT, "not in its .encoding, %s", from) : 0;
}

static bool is_ascii(const char *s)
{
    while (*s && !(*s & 0x80))
        s++;
    return !*s;
}

/* The value of ".encoding", which is ASCII whatever it says. */
static int decode(const char *text, size_t len, char **out, struct error *e)
{
    char name[21] = "UTF-8";
    const char *at = strcasestr(text, ".encoding");
    if (at)
        sscanf(at + 9, " = \"%20[A-Za-z0-9_-]", name);
    if (!is_ascii(text) && strcasecmp(name, "UTF-8") != 0)
        return to_utf8(text, len, name, out, e);
    *out = strndup(text, len);
    return *out ? 0 : error_set(e, ERR_NOMEM, "out of memory");
}

/* ---- drives ---- */

/* "scsi0:1.fileName": its slot, and the rest of the key. */
static struct slot *slot_of(struct vmx *v, const char *key, const char **rest)
{
    for (size_t b = 0; b < ARRAY_LEN(buses); b++) {
        unsigned controller, unit;
        int n = 0;
        size_t len = strlen(buses[b].name);
        if (strncasecmp(key, buses[b].name, len) != 0)
            continue;
        if (sscanf(key + len, "%1u:%2u.%n", &controller, &unit, &n) < 2 || !n ||
            controller >= CONTROLLERS || unit >= UNITS)
            return NULL;
        *rest = key + len + n;
        return &v->slot[b][controller][unit];
    }
    return NULL;
}

static void sort_drives(struct vmx *v)
{
    for (size_t i = 0; i < v->n; i++) {
        struct entry *it = &v->entry[i];
        const char *rest;
        struct slot *s = slot_of(v, it->key, &rest);
        if (!s)
            continue;
        s->there = it->used = true;
        if (strcasecmp(rest, "present") == 0)
            s->present = is_true(it->value);
        else if (strcasecmp(rest, "fileName") == 0)
            s->file = it->value;
        else if (strcasecmp(rest, "deviceType") == 0)
            s->type = it->value;
        else if (strcasecmp(rest, "mode") == 0)
            s->mode = it->value;
        else if (strcasecmp(rest, "startConnected") == 0)
            s->away = is_false(it->value);
    }
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcasecmp(s + n - m, end) == 0;
}

static void take_drive(struct import *m, const char *from, const struct slot *s, enum spec_bus bus)
{
    const char *type = s->type ? s->type : "";
    const char *mode = s->mode ? s->mode : "";
    struct import_disk d = {.file = s->file, .bus = bus};
    if (!s->present)
        import_drop(m, from, "not present");
    else if (strcasecmp(type, "cdrom-raw") == 0 || strcasecmp(type, "atapi-cdrom") == 0)
        import_drop(m, from, "a CD-ROM drive of the host; give the VM an image: cdrom=FILE.iso");
    else if (!s->file || !s->file[0] || strcasecmp(s->file, "auto detect") == 0)
        import_drop(m, from, "no image in it");
    else if (s->away)
        import_drop(m, from, "not connected at start: %s", s->file);
    else if (strncasecmp(type, "cdrom", 5) == 0 || ends_with(s->file, ".iso")) {
        d.cdrom = true;
        import_disk(m, from, &d);
    } else if (!ends_with(s->file, ".vmdk"))
        import_drop(m, from, "not a vmdk image: %s", s->file);
    else {
        d.format = "vmdk";
        if (strcasestr(mode, "nonpersistent") || strcasecmp(mode, "undoable") == 0)
            import_drop(m, from, "mode %s: what the guest writes is kept", mode);
        import_disk(m, from, &d);
    }
}

static void take_drives(struct vmx *v)
{
    char from[32];
    for (size_t b = 0; b < ARRAY_LEN(buses); b++)
        for (unsigned c = 0; c < CONTROLLERS; c++)
            for (unsigned u = 0; u < UNITS; u++) {
                const struct slot *s = &v->slot[b][c][u];
                snprintf(from, sizeof from, "%s%u:%u", buses[b].name, c, u);
                if (s->there)
                    take_drive(v->m, from, s, buses[b].bus);
            }
}

static void take_floppy(struct vmx *v)
{
    const char *file = value_of(v, "floppy0.fileName");
    const char *type = value_of(v, "floppy0.fileType");
    bool absent = is_false(value_of(v, "floppy0.present"));
    bool away = is_false(value_of(v, "floppy0.startConnected"));
    if (!file || absent)
        return;
    if (!type || strcasecmp(type, "file") != 0)
        import_drop(v->m, "floppy0", "a drive of the host; give the VM an image: floppy=FILE");
    else if (away)
        import_drop(v->m, "floppy0", "not connected at start: %s", file);
    else
        import_drop_floppy(v->m, "floppy0", file);
}

/* ---- the rest ---- */

static void take_board(struct vmx *v)
{
    struct import *m = v->m;
    const char *memory = value_of(v, "memsize"), *cpus = value_of(v, "numvcpus");
    const char *title = value_of(v, "displayName"), *firmware = value_of(v, "firmware");
    uint64_t n;
    if (title)
        import_text(m, "displayName", "name", title, 1000, &m->title);
    if (memory && import_number(memory, &n))
        import_memory(m, "memsize", n > UINT64_MAX / MIB ? UINT64_MAX : n * MIB);
    else if (memory)
        import_drop(m, "memsize", "not a number of MiB: %s", memory);
    if (cpus && import_number(cpus, &n))
        import_cpus(m, "numvcpus", n);
    else if (cpus)
        import_drop(m, "numvcpus", "not a number: %s", cpus);
    if (firmware && strcasecmp(firmware, "bios") == 0)
        import_took(m, "firmware", "firmware: seabios");
    else if (firmware)
        import_drop(m, "firmware",
                    "%s: there is SeaBIOS only; a guest installed for UEFI does not start",
                    firmware);
    if (is_true(value_of(v, "rtc.startInLocaltime")) || is_true(value_of(v, "rtc.localtime"))) {
        m->spec.clock = SPEC_CLOCK_LOCALTIME;
        import_took(m, "rtc", "clock: localtime");
    }
}

/* Why what begins so is left behind; the first that fits. */
static const struct {
    const char *begins, *why;
} reasons[] = {
    {"ethernet", "a VM has no network card"},
    {"vmnet", "a VM has no network card"},
    {"serial", "COM1 leads to the terminal, or to `sosia logs --serial`; others are not there"},
    {"parallel", "there is no parallel port"},
    {"usb", "there is no USB"},
    {"ehci", "there is no USB"},
    {"sound", "there is no sound card"},
    {"svga", "the graphics card is a plain VGA"},
    {"mks", "the graphics card is a plain VGA"},
    {"vmotion", "nothing is moved between hosts"},
    {"RemoteDisplay", "`sosia console` and `sosia screen` show the VM"},
    {"sharedFolder", "no folders are shared with the guest"},
    {"hgfs", "no folders are shared with the guest"},
    {"isolation", "there are no tools in the guest to keep from anything"},
    {"tools", "there are no tools in the guest"},
    {"vmci", "there are no tools in the guest"},
    {"guestOS", "the machine is the same for every guest"},
    {"guestInfo", "nothing is told to the guest"},
    {"uuid", "the VM gets a UUID of its own"},
    {"vc.uuid", "the VM gets a UUID of its own"},
    {"nvram", "the firmware's settings are the spec's"},
    {"bios", "the firmware's settings are the spec's"},
    {"uefi", "there is SeaBIOS only"},
    {"cpuid", "the processor is Sosia's own"},
    {"vhv", "the processor has no virtualization of its own"},
    {"hypervisor", "the processor is Sosia's own"},
    {"sched", "what VMs may take of the host is not shared out"},
    {"mem.hotadd", "memory stays what it was at start"},
    {"vcpu.hotadd", "CPUs stay what they were at start"},
    {"floppy", "there is one floppy drive, floppy0"},
    {"snapshot", "VMware's snapshots are not taken over; the disk is as this file names it"},
    {"checkpoint", "a suspended state is not taken over"},
    {"scsi", "the controller is Sosia's own"},
    {"sata", "the controller is Sosia's own"},
    {"nvme", "the controller is Sosia's own"},
    {"ide", "the controller is Sosia's own"},
    {"pciBridge", "the PCI bus is Sosia's own"},
    {"config.version", "of the file, not of the VM"},
    {"virtualHW", "the machine is Sosia's own"},
    {".encoding", "of the file, not of the VM"},
};

static void drop_rest(struct vmx *v)
{
    for (size_t i = 0; i < v->n; i++) {
        struct entry *it = &v->entry[i];
        const char *why = "not known";
        size_t n = it->key[0] ? strcspn(it->key + 1, ".") + 1 : 0;
        char group[80];
        if (it->used)
            continue;
        for (size_t r = 0; r < ARRAY_LEN(reasons); r++)
            if (strncasecmp(it->key, reasons[r].begins, strlen(reasons[r].begins)) == 0) {
                why = reasons[r].why;
                break;
            }
        snprintf(group, sizeof group, "%.*s%s", (int)min_u64(n, 70), it->key,
                 it->key[n] ? ".*" : "");
        import_drop_once(v->m, group, why);
    }
}

int import_vmx(struct import *m, const char *text, size_t len, struct error *e)
{
    CLEANUP_FREE char *copy = NULL;
    CLEANUP_FREE struct entry *entry = calloc(MAX_KEYS, sizeof *entry);
    CLEANUP_FREE struct vmx *v = calloc(1, sizeof *v);
    *m = (struct import){0};
    if (!entry || !v)
        return error_set(e, ERR_NOMEM, "out of memory");
    v->m = m;
    v->entry = entry;
    int rc = import_check_text(text, len, e);
    if (!rc)
        rc = decode(text, len, &copy, e);
    if (!rc)
        rc = take_lines(v, copy, e);
    if (rc)
        return rc;
    if (!find(v, "config.version") && !find(v, "virtualHW.version") && !find(v, "displayName"))
        return error_set(e, ERR_FORMAT, "not a .vmx file: no config.version, no displayName");
    take_board(v);
    sort_drives(v);
    take_drives(v);
    take_floppy(v);
    drop_rest(v);
    return m->nomem ? error_set(e, ERR_NOMEM, "out of memory") : 0;
}
