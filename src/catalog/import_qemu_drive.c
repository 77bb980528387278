/* import_qemu_drive.c - QEMU's drives and the devices that show them; see import_qemu.h. */
#define _GNU_SOURCE
#include "catalog/import_qemu.h"

#include <stdio.h>
#include <string.h>

#include "base/url.h"

#define MAX_NODES 8 /* -blockdev: nodes on the way to the file */

struct qemu_drive *qemu_add_drive(struct qemu *q, const char *from)
{
    if (q->ndrive == QEMU_DRIVES) {
        import_drop(q->m, from, "more than %u drives", QEMU_DRIVES);
        return NULL;
    }
    struct qemu_drive *d = &q->drive[q->ndrive++];
    *d = (struct qemu_drive){.from = from, .interface = "ide", .index = -1};
    return d;
}

static const char *either(const char *a, const char *b)
{
    return a ? a : b;
}

void qemu_take_drive(struct qemu *q, const char *option, char *arg)
{
    struct qemu_drive *d = qemu_add_drive(q, option);
    struct props p;
    if (!d)
        return;
    props_split(arg, NULL, &p);
    const char *file = props_get(&p, "file"), *name = props_get(&p, "file.filename");
    const char *media = props_get(&p, "media"), *index = props_get(&p, "index");
    d->file = either(file, name);
    d->id = props_get(&p, "id");
    const char *format = props_get(&p, "format"), *driver = props_get(&p, "driver");
    d->format = either(format, driver);
    d->interface = either(props_get(&p, "if"), "ide");
    d->cdrom = media && strcmp(media, "cdrom") == 0;
    bool readonly = props_on(&p, "readonly"), read_only = props_on(&p, "read-only");
    d->readonly = readonly || read_only;
    d->overlay = props_on(&p, "snapshot");
    if (index && index[0] >= '0' && index[0] <= '9' && !index[1])
        d->index = index[0] - '0';
    else if (index)
        import_drop(q->m, option, "index=%s is no place of a drive", index);
    qemu_drop_rest(q, option, &p);
}

/* The argument as a list of properties; NULL: told. libvirt writes JSON. */
static char *plain_argument(struct qemu *q, const char *option, char *arg)
{
    if (arg[0] != '{')
        return arg;
    char *text = q->nowned < ARRAY_LEN(q->owned) ? props_from_json(arg) : NULL;
    if (text)
        q->owned[q->nowned++] = text;
    else
        import_drop(q->m, option, "%s: not JSON that could be read", arg);
    return text;
}

void qemu_take_blockdev(struct qemu *q, const char *option, char *arg)
{
    struct props p;
    arg = plain_argument(q, option, arg);
    if (!arg)
        return;
    struct qemu_drive *d = qemu_add_drive(q, option);
    if (!d)
        return;
    props_split(arg, "driver", &p);
    const char *inner = props_get(&p, "file.filename"), *own = props_get(&p, "filename");
    d->file = either(inner, own);
    d->below = props_get(&p, "file");
    d->id = props_get(&p, "node-name");
    d->format = props_get(&p, "driver");
    d->interface = "none";
    d->readonly = props_on(&p, "read-only");
    const char *kind = props_get(&p, "file.driver");
    if (kind && strcmp(kind, "file") != 0 && strcmp(kind, "host_device") != 0) {
        import_drop(q->m, option, "file.driver=%s: not a file on this host", kind);
        d->file = NULL;
    }
    qemu_drop_rest(q, option, &p);
}

/* ---- devices ---- */

static const struct {
    const char *begins;
    enum spec_bus bus;
    bool cdrom, floppy;
} drivers[] = {
    {"virtio-blk", SPEC_BUS_VIRTIO, false, false}, {"ide-hd", SPEC_BUS_IDE, false, false},
    {"ide-drive", SPEC_BUS_IDE, false, false},     {"ide-cd", SPEC_BUS_IDE, true, false},
    {"scsi-hd", SPEC_BUS_SCSI, false, false},      {"scsi-disk", SPEC_BUS_SCSI, false, false},
    {"scsi-cd", SPEC_BUS_SCSI, true, false},       {"nvme", SPEC_BUS_NVME, false, false},
    {"floppy", SPEC_BUS_IDE, false, true},
};

static const struct {
    const char *begins, *why;
} others[] = {
    {"e1000", "a VM has no network card"},
    {"virtio-net", "a VM has no network card"},
    {"rtl8139", "a VM has no network card"},
    {"vmxnet", "a VM has no network card"},
    {"usb", "there is no USB"},
    {"qemu-xhci", "there is no USB"},
    {"nec-usb", "there is no USB"},
    {"piix3-usb", "there is no USB"},
    {"ich9-usb", "there is no USB"},
    {"VGA", "`sosia console` and `sosia screen` show the VM"},
    {"qxl", "`sosia console` and `sosia screen` show the VM"},
    {"virtio-vga", "`sosia console` and `sosia screen` show the VM"},
    {"virtio-gpu", "`sosia console` and `sosia screen` show the VM"},
    {"intel-hda", "there is no sound card"},
    {"AC97", "there is no sound card"},
    {"hda-", "there is no sound card"},
};

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* A controller is made with the first disk on it; its name tells what bus=NAME.0 means. */
static bool take_controller(struct qemu *q, const char *option, const char *driver, struct props *p)
{
    static const char *const kinds[] = {"ahci", "ich9-ahci", "virtio-scsi", "piix3-ide",
                                        "lsi",  "megasas",   "pvscsi",      "mptsas"};
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (!begins(driver, kinds[i]))
            continue;
        const char *id = props_get(p, "id");
        if (id && q->ncontroller < QEMU_DRIVES) {
            q->controller[q->ncontroller].id = id;
            q->controller[q->ncontroller++].kind = kinds[i];
        }
        if (i < 4)
            import_took(q->m, option, "%s: there with its first disk", driver);
        else
            import_drop(q->m, option, "%s: SCSI disks are on virtio-scsi", driver);
        return true;
    }
    return false;
}

/* IDE drives are on AHCI if the controller that they name is one, or q35's own. */
static bool on_ahci(const struct qemu *q, const char *bus)
{
    size_t n = bus ? strcspn(bus, ".") : 0;
    for (unsigned i = 0; n && i < q->ncontroller; i++)
        if (strlen(q->controller[i].id) == n && memcmp(q->controller[i].id, bus, n) == 0)
            return strstr(q->controller[i].kind, "ahci") != NULL;
    return q->q35;
}

void qemu_take_device(struct qemu *q, const char *option, char *arg)
{
    struct props p;
    arg = plain_argument(q, option, arg);
    if (!arg)
        return;
    props_split(arg, "driver", &p);
    const char *driver = either(props_get(&p, "driver"), ""), *why = "there is no such device";
    if (take_controller(q, option, driver, &p))
        return;
    const char *drive = props_get(&p, "drive"), *bus = props_get(&p, "bus");
    for (unsigned i = 0; drive && i < ARRAY_LEN(drivers); i++) {
        if (!begins(driver, drivers[i].begins))
            continue;
        if (q->ndevice == QEMU_DRIVES) {
            import_drop(q->m, option, "more than %u devices", QEMU_DRIVES);
            return;
        }
        struct qemu_device *d = &q->device[q->ndevice++];
        *d = (struct qemu_device){driver, drive, drivers[i].bus, drivers[i].cdrom,
                                  drivers[i].floppy};
        if (d->bus == SPEC_BUS_IDE && !d->floppy && on_ahci(q, bus))
            d->bus = SPEC_BUS_AHCI;
        props_get(&p, "id");
        qemu_drop_rest(q, driver, &p);
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(others); i++)
        if (begins(driver, others[i].begins))
            why = others[i].why;
    import_drop(q->m, option, "%s: %s", driver, why);
}

/* ---- from drives to disks ---- */

static struct qemu_drive *find_drive(struct qemu *q, const char *id)
{
    for (unsigned i = 0; id && i < q->ndrive; i++)
        if (q->drive[i].id && strcmp(q->drive[i].id, id) == 0)
            return &q->drive[i];
    return NULL;
}

/* The file's name, or NULL: told why. "file:" goes, names of other protocols are no files. */
static const char *file_of(struct qemu *q, struct qemu_drive *d)
{
    const char *file = d->file;
    struct qemu_drive *node = d;
    for (unsigned n = 0; !file && node && node->below && n < MAX_NODES; n++) {
        node = find_drive(q, node->below);
        if (node) {
            node->used = true;
            file = node->file;
        }
    }
    if (!file || !file[0]) {
        import_drop(q->m, d->from, "no image in it");
        return NULL;
    }
    if (begins(file, "file:"))
        file += 5;
    size_t word = strcspn(file, ":/");
    if (file[word] == ':' && word > 1 && !url_is_remote(file)) {
        import_drop(q->m, d->from, "%s: not a file, and no protocol that is known", file);
        return NULL;
    }
    return file;
}

/* False: told that the format cannot be read. */
static bool format_of(struct qemu *q, const struct qemu_drive *d, const char **format)
{
    static const char *const known[] = {"raw", "qcow2", "vmdk", "vdi"};
    *format = NULL;
    if (!d->format)
        return true;
    for (unsigned i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(d->format, known[i]) == 0)
            *format = known[i];
    if (strcmp(d->format, "file") == 0 || strcmp(d->format, "host_device") == 0)
        *format = "raw"; /* the bare file */
    if (!*format)
        import_drop(q->m, d->from, "format %s cannot be read; convert the image to qcow2",
                    d->format);
    return *format;
}

static void make_disk(struct qemu *q, struct qemu_drive *d, enum spec_bus bus, bool cdrom)
{
    struct import_disk disk = {
        .bus = bus, .cdrom = cdrom, .readonly = d->readonly, .overlay = d->overlay || q->snapshot};
    d->used = true;
    disk.file = file_of(q, d);
    if (disk.file && format_of(q, d, &disk.format))
        import_disk(q->m, d->from, &disk);
}

static void make_floppy(struct qemu *q, struct qemu_drive *d)
{
    d->used = true;
    const char *file = file_of(q, d);
    if (file && d->index <= 0)
        import_path(q->m, d->from, "floppy", file, &q->m->spec.floppy);
    else if (file)
        import_drop(q->m, d->from, "there is one floppy drive");
}

/* What -drive attaches by itself. */
static void make_by_interface(struct qemu *q, struct qemu_drive *d)
{
    const char *what = d->interface;
    if (strcmp(what, "ide") == 0)
        make_disk(q, d, q->q35 ? SPEC_BUS_AHCI : SPEC_BUS_IDE, d->cdrom);
    else if (strcmp(what, "virtio") == 0)
        make_disk(q, d, SPEC_BUS_VIRTIO, d->cdrom);
    else if (strcmp(what, "scsi") == 0)
        make_disk(q, d, SPEC_BUS_SCSI, d->cdrom);
    else if (strcmp(what, "floppy") == 0)
        make_floppy(q, d);
    else if (strcmp(what, "pflash") == 0)
        import_drop(q->m, d->from,
                    "if=pflash: there is SeaBIOS only; a guest installed for UEFI does not start");
    else if (strcmp(what, "none") == 0)
        import_drop(q->m, d->from, "no device shows it to the guest");
    else
        import_drop(q->m, d->from, "if=%s: there is no such device", what);
    d->used = true;
}

void qemu_finish_drives(struct qemu *q)
{
    /* Drives with a place of their own come in that order (-hdb before -hda means nothing). */
    for (int index = 0; index < 10; index++)
        for (unsigned i = 0; i < q->ndrive; i++)
            if (q->drive[i].index == index && strcmp(q->drive[i].interface, "none") != 0)
                make_by_interface(q, &q->drive[i]);
    for (unsigned i = 0; i < q->ndrive; i++)
        if (!q->drive[i].used && strcmp(q->drive[i].interface, "none") != 0)
            make_by_interface(q, &q->drive[i]);
    for (unsigned i = 0; i < q->ndevice; i++) {
        const struct qemu_device *dev = &q->device[i];
        struct qemu_drive *d = find_drive(q, dev->drive);
        if (!d)
            import_drop(q->m, dev->driver, "there is no drive %s", dev->drive);
        else if (d->used)
            import_drop(q->m, dev->driver, "the drive %s is another device's", dev->drive);
        else if (dev->floppy)
            make_floppy(q, d);
        else
            make_disk(q, d, dev->bus, dev->cdrom || d->cdrom);
    }
    for (unsigned i = 0; i < q->ndrive; i++)
        if (!q->drive[i].used)
            make_by_interface(q, &q->drive[i]);
}
