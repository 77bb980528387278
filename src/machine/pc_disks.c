/*
 * pc_disks.c - which slot, port and unit each disk of the spec gets, and the boot order.
 *
 * PCI slots are given out in the spec's order: one for each virtio and NVMe disk, one for the AHCI
 * controller and one for the SCSI host when their first disk comes. IDE disks fill the places of
 * the two channels in order, but for the secondary master, which is always the CD-ROM drive.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "machine/pc_board.h"

#define CD_PLACE 2 /* secondary master */

#define MODEL_DISK  "SOSIA HARDDISK"
#define MODEL_CDROM "SOSIA CD-ROM"

/* Places given out so far. */
struct taken {
    unsigned slot, ide, ahci, scsi;
};

/* The serial number as the guest sees it: stable from start to start. */
static void serial_of(const struct pc *p, unsigned n, char buf[SPEC_MAX_SERIAL + 1])
{
    const char *given = p->spec->disk[n].serial;
    if (given)
        snprintf(buf, SPEC_MAX_SERIAL + 1, "%s", given);
    else
        snprintf(buf, SPEC_MAX_SERIAL + 1, "SOSIA%05u", n);
}

static uint32_t block_size(const struct pc *p, unsigned n)
{
    return p->spec->disk[n].block_size == SPEC_BLOCK_4096 ? 4096 : 512;
}

static bool is_cdrom(const struct pc *p, unsigned n)
{
    return p->spec->disk[n].media == SPEC_MEDIA_CDROM;
}

static unsigned queues(const struct pc *p, unsigned max)
{
    return (unsigned)min_u64(p->spec->cpus, max);
}

/* ---- one disk on each kind of bus ---- */

static int add_virtio(struct pc *p, unsigned n, struct taken *t, const char *serial,
                      struct error *e)
{
    unsigned slot = p->place[n].slot = t->slot++;
    log_info("disk %u: %s: virtio, PCI slot %u", n, p->spec->disk[n].file, slot);
    struct pc_virtio_disk *d = &p->vdisk[n];
    const struct virtio_blk_config cfg = {
        .blk = p->cfg.disk[n],
        .serial = serial,
        .queues = queues(p, VIRTIO_BLK_MAX_QUEUES),
        .block_size = block_size(p, n),
        .timers = p->tq,
    };
    int rc = virtio_blk_init(&d->dev, &p->mem, &cfg, e);
    if (rc)
        return rc;
    rc = virtio_pci_init(&d->fn, &p->pci, PCI_DEVFN(slot, 0), &d->dev.v, e);
    if (rc)
        virtio_blk_fini(&d->dev);
    else
        d->present = true;
    return rc;
}

static int add_ide(struct pc *p, unsigned n, struct taken *t, const char *serial, struct error *e)
{
    if (t->ide == CD_PLACE)
        t->ide++;
    if (t->ide >= PC_IDE_PLACES)
        return error_set(e, ERR_LIMIT,
                         "too many IDE disks: there is room for %d besides the CD-ROM drive; "
                         "use `bus: virtio` for the others",
                         PC_IDE_PLACES - 1);
    unsigned unit = p->place[n].unit = t->ide++;
    log_info("disk %u: %s: IDE, %s %s", n, p->spec->disk[n].file,
             unit / 2 ? "secondary" : "primary", unit % 2 ? "slave" : "master");
    struct ide_channel *ch = &p->ide.channel[unit / 2].ide;
    if (is_cdrom(p, n))
        ide_attach_cdrom(ch, unit % 2, p->cfg.disk[n], MODEL_CDROM, serial);
    else
        ide_attach_disk(ch, unit % 2, p->cfg.disk[n], MODEL_DISK, serial);
    return 0;
}

static int add_ahci(struct pc *p, unsigned n, struct taken *t, const char *serial, struct error *e)
{
    if (t->ahci == AHCI_PORTS)
        return error_set(e, ERR_LIMIT, "too many AHCI disks: there are %d ports", AHCI_PORTS);
    if (!p->ahci.pci.bus) {
        int rc = ahci_pci_init(&p->ahci, &p->pci, PCI_DEVFN(t->slot, 0), e);
        if (rc)
            return rc;
        t->slot++;
    }
    unsigned port = p->place[n].unit = t->ahci++;
    p->place[n].slot = p->ahci.pci.devfn >> 3;
    log_info("disk %u: %s: AHCI, PCI slot %u, port %u", n, p->spec->disk[n].file, p->place[n].slot,
             port);
    if (!is_cdrom(p, n))
        return ahci_attach_disk(&p->ahci.ahci, port, p->cfg.disk[n], MODEL_DISK, serial, e);
    ahci_attach_cdrom(&p->ahci.ahci, port, p->cfg.disk[n], MODEL_CDROM, serial);
    return 0;
}

static int add_nvme(struct pc *p, unsigned n, struct taken *t, const char *serial, struct error *e)
{
    unsigned slot = p->place[n].slot = t->slot++;
    log_info("disk %u: %s: NVMe, PCI slot %u", n, p->spec->disk[n].file, slot);
    const struct nvme_config cfg = {
        .blk = p->cfg.disk[n],
        .serial = serial,
        .queues = queues(p, NVME_MAX_QUEUES - 1),
        .block_size = block_size(p, n),
    };
    return nvme_pci_init(&p->nvme[n], &p->pci, PCI_DEVFN(slot, 0), &cfg, e);
}

static int add_scsi(struct pc *p, unsigned n, struct taken *t, const char *serial, struct error *e)
{
    _Static_assert(VSCSI_TARGETS >= SPEC_MAX_DISKS, "a target for each disk");
    if (!p->scsi.pool) {
        int rc = virtio_scsi_init(&p->scsi, &p->mem, queues(p, VSCSI_MAX_QUEUES), e);
        if (!rc)
            rc = virtio_pci_init(&p->scsi_fn, &p->pci, PCI_DEVFN(t->slot, 0), &p->scsi.v, e);
        if (rc)
            return rc;
        t->slot++;
    }
    unsigned target = p->place[n].unit = t->scsi++;
    p->place[n].slot = p->scsi_fn.pci.devfn >> 3;
    log_info("disk %u: %s: SCSI, PCI slot %u, target %u", n, p->spec->disk[n].file,
             p->place[n].slot, target);
    if (is_cdrom(p, n))
        virtio_scsi_add_cdrom(&p->scsi, target, p->cfg.disk[n], MODEL_CDROM, serial);
    else
        virtio_scsi_add_disk(&p->scsi, target, p->cfg.disk[n], MODEL_DISK, serial,
                             block_size(p, n));
    return 0;
}

/* ---- all ---- */

int pc_disks_init(struct pc *p, struct error *e)
{
    static int (*const add[])(struct pc * p, unsigned n, struct taken *t, const char *serial,
                              struct error *e) = {[SPEC_BUS_IDE] = add_ide,
                                                  [SPEC_BUS_VIRTIO] = add_virtio,
                                                  [SPEC_BUS_AHCI] = add_ahci,
                                                  [SPEC_BUS_NVME] = add_nvme,
                                                  [SPEC_BUS_SCSI] = add_scsi};
    struct taken t = {.slot = PC_SLOT_DISK};
    for (unsigned n = 0; n < p->spec->ndisk; n++) {
        char serial[SPEC_MAX_SERIAL + 1];
        serial_of(p, n, serial);
        p->place[n].bus = p->spec->disk[n].bus;
        int rc = add[p->place[n].bus](p, n, &t, serial, e);
        if (rc)
            return rc;
    }
    if (p->spec->cdrom)
        log_info("CD-ROM: %s: IDE, secondary master", p->spec->cdrom);
    if (p->spec->floppy)
        log_info("floppy A: %s", p->spec->floppy);
    p->cd_place = (struct pc_disk_place){.bus = SPEC_BUS_IDE, .unit = CD_PLACE};
    ide_attach_cdrom(&p->ide.channel[CD_PLACE / 2].ide, CD_PLACE % 2, p->cfg.cdrom, MODEL_CDROM,
                     "SOSIACD");
    return 0;
}

void pc_disks_fini(struct pc *p)
{
    virtio_pci_fini(&p->scsi_fn);
    virtio_scsi_fini(&p->scsi);
    ahci_pci_fini(&p->ahci);
    for (unsigned n = 0; n < SPEC_MAX_DISKS; n++) {
        nvme_pci_fini(&p->nvme[n]);
        if (!p->vdisk[n].present)
            continue;
        virtio_pci_fini(&p->vdisk[n].fn);
        virtio_blk_fini(&p->vdisk[n].dev);
    }
}

/* ---- boot order ---- */

/* A disk as SeaBIOS names it: after the node names of Open Firmware. */
static void put_path(FILE *f, const struct pc_disk_place *at)
{
    switch (at->bus) {
    case SPEC_BUS_IDE:
        fprintf(f, "/pci@i0cf8/ide@%x,1/drive@%x/disk@%x\n", PC_SLOT_ISA, at->unit / 2,
                at->unit % 2);
        break;
    case SPEC_BUS_VIRTIO:
        fprintf(f, "/pci@i0cf8/scsi@%x/disk@0,0\n", at->slot);
        break;
    case SPEC_BUS_AHCI:
        fprintf(f, "/pci@i0cf8/sata@%x/drive@%x/disk@0\n", at->slot, at->unit);
        break;
    case SPEC_BUS_NVME:
        fprintf(f, "/pci@i0cf8/nvme@%x/namespace@1,0\n", at->slot);
        break;
    case SPEC_BUS_SCSI:
        fprintf(f, "/pci@i0cf8/scsi@%x/channel@0/disk@%x,0\n", at->slot, at->unit);
        break;
    }
}

static void put_disks(FILE *f, const struct pc *p, bool cdroms)
{
    for (unsigned n = 0; n < p->spec->ndisk; n++)
        if (is_cdrom(p, n) == cdroms)
            put_path(f, &p->place[n]);
}

char *pc_boot_order(const struct pc *p)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return NULL;
    for (unsigned k = 0; k < p->spec->nboot; k++) {
        switch (p->spec->boot[k]) {
        case SPEC_BOOT_DISK:
            put_disks(f, p, false);
            break;
        case SPEC_BOOT_CDROM:
            if (p->spec->cdrom)
                put_path(f, &p->cd_place);
            put_disks(f, p, true);
            if (!p->spec->cdrom) /* empty, and tried last */
                put_path(f, &p->cd_place);
            break;
        case SPEC_BOOT_FLOPPY:
            fprintf(f, "/pci@i0cf8/isa@%x/fdc@03f0/floppy@0\n", PC_SLOT_ISA);
            break;
        }
    }
    /* Devices that are not listed are not tried. */
    fprintf(f, "HALT");
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
