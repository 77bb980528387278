/*
 * import_qemu.h - what the parts of QEMU's command line are until all of it is read: drives may be
 * named before or behind the devices that show them to the guest.
 */
#ifndef SOSIA_CATALOG_IMPORT_QEMU_H
#define SOSIA_CATALOG_IMPORT_QEMU_H

#include "catalog/import.h"
#include "catalog/import_words.h"

#define QEMU_DRIVES 64

/* -drive, -blockdev, -hda ...; the strings are the command line's. */
struct qemu_drive {
    const char *from;  /* for notes */
    const char *id;    /* or node-name; NULL */
    const char *file;  /* NULL: none said */
    const char *below; /* -blockdev: the node with the file; or NULL */
    const char *format;
    const char *interface; /* "ide", "none" ... */
    int index;             /* -1: none said */
    bool cdrom, readonly, overlay, used;
};

/* -device that shows a drive. */
struct qemu_device {
    const char *driver, *drive;
    enum spec_bus bus;
    bool cdrom, floppy;
};

struct qemu {
    struct import *m;
    struct qemu_drive drive[QEMU_DRIVES];
    unsigned ndrive;
    struct qemu_device device[QEMU_DRIVES];
    unsigned ndevice;
    struct {
        const char *id, *kind;
    } controller[QEMU_DRIVES];
    unsigned ncontroller;
    char *owned[2 * QEMU_DRIVES]; /* texts of arguments that were JSON */
    unsigned nowned;
    bool q35, snapshot, serial; /* serial: it is said where that leads */
};

/* Another one, or NULL: there are too many, which is told. */
struct qemu_drive *qemu_add_drive(struct qemu *q, const char *from);
void qemu_take_drive(struct qemu *q, const char *option, char *arg);
void qemu_take_blockdev(struct qemu *q, const char *option, char *arg);
void qemu_take_device(struct qemu *q, const char *option, char *arg);
/* When all is read: the drives become disks. */
void qemu_finish_drives(struct qemu *q);
/* Each property that nobody has asked for. */
void qemu_drop_rest(struct qemu *q, const char *of, const struct props *p);

#endif
