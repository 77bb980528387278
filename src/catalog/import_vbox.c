/*
 * import_vbox.c - VirtualBox's .vbox: XML, read by expat. Drives name their media by UUID, and the
 * media registry says where those are. What a snapshot holds is skipped: it is the past.
 *
 * A document type is refused, and with it every entity but XML's own five. Depth and counts are
 * bounded; the text is bounded by its size.
 */
#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "catalog/import.h"

#define MAX_DEPTH  64
#define MAX_MEDIA  256
#define MAX_DRIVES 64
#define UUID_ROOM  40

struct medium {
    char uuid[UUID_ROOM];
    char format[16], type[16]; /* "VDI", "Immutable"; "": a CD-ROM's or a floppy's image */
    char *location;            /* owned */
    bool difference;           /* lies on another one: what a snapshot left to change */
};

struct drive {
    char from[64]; /* "SATA:0:0", for notes */
    char type[16]; /* "HardDisk", "DVD", "Floppy" */
    char uuid[UUID_ROOM];
    int bus; /* enum spec_bus; -1: none that there is */
    bool host;
};

struct vbox {
    struct import *m;
    XML_Parser parser;
    struct medium medium[MAX_MEDIA];
    unsigned nmedium;
    struct drive drive[MAX_DRIVES];
    unsigned ndrive;
    unsigned depth, skip; /* skip: the depth of an element whose inside is of no interest; or 0 */
    unsigned disks;       /* how many <HardDisk> are open */
    char controller[32];
    int bus;
    bool in_drive, machine;
    const char *wrong; /* why the reading ended */
};

static const char *attribute(const char **a, const char *name)
{
    for (; a[0]; a += 2)
        if (strcmp(a[0], name) == 0)
            return a[1];
    return "";
}

/* ---- elements ---- */

static void take_machine(struct vbox *v, const char **a)
{
    const char *name = attribute(a, "name");
    v->machine = true;
    if (name[0])
        import_text(v->m, "Machine name", "name", name, 1000, &v->m->title);
}

static void take_memory(struct vbox *v, const char **a)
{
    uint64_t n;
    const char *size = attribute(a, "RAMSize");
    if (import_number(size, &n))
        import_memory(v->m, "Memory", n > UINT64_MAX / MIB ? UINT64_MAX : n * MIB);
    else
        import_drop(v->m, "Memory", "RAMSize is not a number of MiB: %s", size);
}

static void take_cpu(struct vbox *v, const char **a)
{
    uint64_t n;
    const char *count = attribute(a, "count");
    if (import_number(count, &n))
        import_cpus(v->m, "CPU", n);
    else if (count[0])
        import_drop(v->m, "CPU", "count is not a number: %s", count);
    v->skip = v->depth;
}

static void take_firmware(struct vbox *v, const char **a)
{
    const char *type = attribute(a, "type");
    if (strncmp(type, "EFI", 3) == 0)
        import_drop(v->m, "Firmware",
                    "%s: there is SeaBIOS only; a guest installed for UEFI does not start", type);
    else
        import_took(v->m, "Firmware", "firmware: seabios");
    v->skip = v->depth;
}

static void take_rtc(struct vbox *v, const char **a)
{
    bool local = strcmp(attribute(a, "localOrUTC"), "local") == 0;
    if (local)
        v->m->spec.clock = SPEC_CLOCK_LOCALTIME;
    import_took(v->m, "RTC", "clock: %s", local ? "localtime" : "utc");
}

static void take_order(struct vbox *v, const char **a)
{
    static const char *const devices[] = {
        [SPEC_BOOT_DISK] = "HardDisk", [SPEC_BOOT_CDROM] = "DVD", [SPEC_BOOT_FLOPPY] = "Floppy"};
    struct spec *s = &v->m->spec;
    const char *device = attribute(a, "device");
    for (unsigned i = 0; i < ARRAY_LEN(devices); i++) {
        bool seen = false;
        for (unsigned n = 0; n < s->nboot; n++)
            seen |= s->boot[n] == i;
        if (seen || strcmp(device, devices[i]) != 0)
            continue;
        s->boot[s->nboot++] = (enum spec_boot)i;
        import_took(v->m, "Boot Order", "boot: %s", device);
        return;
    }
    if (strcmp(device, "None") != 0)
        import_drop(v->m, "Boot Order", "%s: booted from are disks, CD-ROMs and floppies", device);
}

static void add_medium(struct vbox *v, const char **a)
{
    if (v->nmedium == MAX_MEDIA) {
        import_drop_once(v->m, "MediaRegistry", "more than 256 media");
        return;
    }
    struct medium *it = &v->medium[v->nmedium];
    it->location = strdup(attribute(a, "location"));
    v->m->nomem |= !it->location;
    if (!it->location)
        return;
    snprintf(it->uuid, sizeof it->uuid, "%s", attribute(a, "uuid"));
    snprintf(it->format, sizeof it->format, "%s", attribute(a, "format"));
    snprintf(it->type, sizeof it->type, "%s", attribute(a, "type"));
    it->difference = v->disks > 0;
    v->nmedium++;
}

static void take_hard_disk(struct vbox *v, const char **a)
{
    add_medium(v, a);
    v->disks++;
}

/* In the registry it is a medium, in a drive it names one. */
static void take_image(struct vbox *v, const char **a)
{
    if (!v->in_drive)
        add_medium(v, a);
    else if (v->ndrive)
        snprintf(v->drive[v->ndrive - 1].uuid, UUID_ROOM, "%s", attribute(a, "uuid"));
}

static void take_host_drive(struct vbox *v, const char **a)
{
    if (v->in_drive && v->ndrive)
        v->drive[v->ndrive - 1].host = true;
}

static void take_controller(struct vbox *v, const char **a)
{
    static const struct {
        const char *type;
        enum spec_bus bus;
    } types[] = {
        {"PIIX3", SPEC_BUS_IDE},
        {"PIIX4", SPEC_BUS_IDE},
        {"ICH6", SPEC_BUS_IDE},
        {"AHCI", SPEC_BUS_AHCI},
        {"NVMe", SPEC_BUS_NVME},
        {"VirtioSCSI", SPEC_BUS_SCSI},
        {"I82078", SPEC_BUS_IDE},
        /* Few guests of VirtualBox have a driver for virtio-scsi. */
        {"LsiLogic", SPEC_BUS_AHCI},
        {"BusLogic", SPEC_BUS_AHCI},
        {"LsiLogicSas", SPEC_BUS_AHCI},
    };
    const char *type = attribute(a, "type");
    snprintf(v->controller, sizeof v->controller, "%s", attribute(a, "name"));
    v->bus = -1;
    for (unsigned i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(type, types[i].type) == 0)
            v->bus = (int)types[i].bus;
    if (v->bus < 0)
        import_drop(v->m, v->controller, "%s: there is no such controller", type);
}

static void take_drive(struct vbox *v, const char **a)
{
    v->in_drive = false;
    if (v->ndrive == MAX_DRIVES) {
        import_drop_once(v->m, "AttachedDevice", "more than 64 drives");
        v->skip = v->depth;
        return;
    }
    struct drive *d = &v->drive[v->ndrive++];
    *d = (struct drive){.bus = v->bus};
    snprintf(d->type, sizeof d->type, "%s", attribute(a, "type"));
    snprintf(d->from, sizeof d->from, "%s:%.5s:%.5s", v->controller, attribute(a, "port"),
             attribute(a, "device"));
    v->in_drive = true;
}

static const struct element {
    const char *name;
    void (*take)(struct vbox *v, const char **a); /* NULL: what is inside counts */
    const char *why;                              /* it is dropped, with what is inside */
} elements[] = {
    {"VirtualBox", NULL, NULL},
    {"Machine", take_machine, NULL},
    {"MediaRegistry", NULL, NULL},
    {"HardDisks", NULL, NULL},
    {"DVDImages", NULL, NULL},
    {"FloppyImages", NULL, NULL},
    {"HardDisk", take_hard_disk, NULL},
    {"Image", take_image, NULL},
    {"HostDrive", take_host_drive, NULL},
    {"Hardware", NULL, NULL},
    {"Memory", take_memory, NULL},
    {"CPU", take_cpu, NULL},
    {"Firmware", take_firmware, NULL},
    {"RTC", take_rtc, NULL},
    {"Boot", NULL, NULL},
    {"Order", take_order, NULL},
    {"StorageControllers", NULL, NULL},
    {"StorageController", take_controller, NULL},
    {"AttachedDevice", take_drive, NULL},
    {"Network", NULL, "a VM has no network card"},
    {"USB", NULL, "there is no USB"},
    {"USBController", NULL, "there is no USB"},
    {"AudioAdapter", NULL, "there is no sound card"},
    {"UART", NULL, "COM1 leads to the terminal, or to `sosia logs --serial`"},
    {"LPT", NULL, "there is no parallel port"},
    {"Display", NULL, "the graphics card is a plain VGA"},
    {"VideoCapture", NULL, "`sosia console` and `sosia screen` show the VM"},
    {"RemoteDisplay", NULL, "`sosia console` and `sosia screen` show the VM"},
    {"SharedFolders", NULL, "no folders are shared with the guest"},
    {"GuestProperties", NULL, "nothing is told to the guest"},
    {"Guest", NULL, "nothing is told to the guest"},
    {"Clipboard", NULL, "nothing is told to the guest"},
    {"DragAndDrop", NULL, "nothing is told to the guest"},
    {"ExtraData", NULL, "of VirtualBox, not of the VM"},
    {"Snapshot", NULL, "snapshots are not taken over"},
    {"Paravirt", NULL, "the machine is Sosia's own"},
    {"Chipset", NULL, "the machine is a PC with an i440FX"},
    {"BIOS", NULL, "the firmware's settings are the spec's"},
    {"HID", NULL, "keyboard and mouse are PS/2"},
    {"Groups", NULL, "there are no groups of VMs"},
    {"Description", NULL, "a VM has no description; a comment in the spec can be one"},
};

static void stop(struct vbox *v, const char *why)
{
    v->wrong = why;
    XML_StopParser(v->parser, XML_FALSE);
}

static void XMLCALL start(void *ctx, const char *name, const char **a)
{
    struct vbox *v = ctx;
    v->depth++;
    if (v->depth > MAX_DEPTH)
        stop(v, "elements in each other more than 64 deep");
    if (v->skip || v->depth > MAX_DEPTH)
        return;
    for (size_t i = 0; i < ARRAY_LEN(elements); i++) {
        const struct element *it = &elements[i];
        if (strcmp(name, it->name) != 0)
            continue;
        if (it->take) {
            it->take(v, a);
        } else if (it->why) {
            import_drop_once(v->m, name, it->why);
            v->skip = v->depth;
        }
        return;
    }
    import_drop_once(v->m, name, "not known");
    v->skip = v->depth;
}

static void XMLCALL end(void *ctx, const char *name)
{
    struct vbox *v = ctx;
    if (v->skip == v->depth)
        v->skip = 0;
    else if (!v->skip && strcmp(name, "AttachedDevice") == 0)
        v->in_drive = false;
    else if (!v->skip && strcmp(name, "HardDisk") == 0)
        v->disks--;
    v->depth--;
}

static void XMLCALL doctype(void *ctx, const char *name, const char *system, const char *public,
                            int internal)
{
    stop(ctx, "a document type, which no .vbox file has");
}

/* ---- drives ---- */

static const struct medium *find_medium(const struct vbox *v, const char *uuid)
{
    for (unsigned i = 0; uuid[0] && i < v->nmedium; i++)
        if (strcmp(v->medium[i].uuid, uuid) == 0)
            return &v->medium[i];
    return NULL;
}

static void make_disk(struct import *m, const struct drive *d, const struct medium *it)
{
    static const char *const formats[][2] = {{"VDI", "vdi"}, {"VMDK", "vmdk"}};
    struct import_disk disk = {.file = it->location, .bus = (enum spec_bus)d->bus};
    for (unsigned i = 0; i < ARRAY_LEN(formats); i++)
        if (strcmp(it->format, formats[i][0]) == 0)
            disk.format = formats[i][1];
    disk.readonly = strcmp(it->type, "Readonly") == 0;
    disk.overlay = strcmp(it->type, "Immutable") == 0 || strcmp(it->type, "MultiAttach") == 0;
    if (it->difference)
        import_drop(m, d->from, "%s rests on a snapshot; let VirtualBox clone the disk first",
                    it->location);
    else if (!disk.format)
        import_drop(m, d->from, "format %s cannot be read; let VirtualBox convert %s to VDI",
                    it->format, it->location);
    else
        import_disk(m, d->from, &disk);
}

static void make_drive(struct vbox *v, const struct drive *d)
{
    const struct medium *it = find_medium(v, d->uuid);
    if (d->host)
        import_drop(v->m, d->from, "a drive of the host; give the VM an image");
    else if (!d->uuid[0])
        import_drop(v->m, d->from, "no medium in it");
    else if (!it)
        import_drop(v->m, d->from, "its medium %s is not in the registry of this file", d->uuid);
    else if (d->bus < 0)
        import_drop(v->m, d->from, "there is no such controller: %s", it->location);
    else if (strcmp(d->type, "HardDisk") == 0)
        make_disk(v->m, d, it);
    else if (strcmp(d->type, "DVD") == 0)
        import_disk(v->m, d->from,
                    &(struct import_disk){
                        .file = it->location, .bus = (enum spec_bus)d->bus, .cdrom = true});
    else if (strcmp(d->type, "Floppy") == 0)
        import_drop_floppy(v->m, d->from, it->location);
    else
        import_drop(v->m, d->from, "there is no further drive of that kind: %s", it->location);
}

/* ---- all of it ---- */

static int parse(struct vbox *v, const char *text, size_t len, struct error *e)
{
    v->parser = XML_ParserCreate(NULL);
    if (!v->parser)
        return error_set(e, ERR_NOMEM, "out of memory");
    XML_SetUserData(v->parser, v);
    XML_SetElementHandler(v->parser, start, end);
    XML_SetStartDoctypeDeclHandler(v->parser, doctype);
    int rc = 0;
    if (XML_Parse(v->parser, text, (int)len, 1) != XML_STATUS_OK)
        rc = error_set(e, ERR_FORMAT, "line %lu: %s",
                       (unsigned long)XML_GetCurrentLineNumber(v->parser),
                       v->wrong ? v->wrong : XML_ErrorString(XML_GetErrorCode(v->parser)));
    XML_ParserFree(v->parser);
    return rc;
}

int import_vbox(struct import *m, const char *text, size_t len, struct error *e)
{
    CLEANUP_FREE struct vbox *v = calloc(1, sizeof *v);
    *m = (struct import){0};
    int rc = import_check_text(text, len, e);
    if (rc)
        return rc;
    if (!v)
        return error_set(e, ERR_NOMEM, "out of memory");
    v->m = m;
    v->bus = -1;
    rc = parse(v, text, len, e);
    if (!rc && !v->machine)
        rc = error_set(e, ERR_FORMAT, "not a .vbox file: there is no Machine in it");
    for (unsigned i = 0; !rc && i < v->ndrive; i++)
        make_drive(v, &v->drive[i]);
    for (unsigned i = 0; i < v->nmedium; i++)
        free(v->medium[i].location);
    if (!rc && m->nomem)
        rc = error_set(e, ERR_NOMEM, "out of memory");
    return rc;
}
