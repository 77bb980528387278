/*
 * pc_disks.c - which slot, channel and unit each disk of the spec gets, and the boot order.
 *
 * virtio disks take PCI slots in the spec's order. IDE disks fill the places of the two
 * channels in order, but for the secondary master, which is always the CD-ROM drive.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "machine/pc_board.h"

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

static int init_virtio(struct pc *p, unsigned n, struct error *e)
{
    unsigned slot = p->place[n].slot;
    char serial[SPEC_MAX_SERIAL + 1];
    serial_of(p, n, serial);
    log_info("disk %u: %s: virtio, PCI slot %u", n, p->spec->disk[n].file, slot);
    struct pc_virtio_disk *d = &p->vdisk[n];
    const struct virtio_blk_config cfg = {
        .blk = p->cfg.disk[n],
        .serial = serial,
        .queues = (unsigned)min_u64(p->spec->cpus, VIRTIO_BLK_MAX_QUEUES),
        .block_size = block_size(p, n),
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

void pc_disks_fini(struct pc *p)
{
    for (unsigned n = 0; n < SPEC_MAX_DISKS; n++) {
        if (!p->vdisk[n].present)
            continue;
        virtio_pci_fini(&p->vdisk[n].fn);
        virtio_blk_fini(&p->vdisk[n].dev);
    }
}

static void attach_ide(struct pc *p, unsigned n)
{
    const struct pc_disk_place *at = &p->place[n];
    char serial[SPEC_MAX_SERIAL + 1];
    serial_of(p, n, serial);
    log_info("disk %u: %s: IDE, %s %s", n, p->spec->disk[n].file,
             at->channel ? "secondary" : "primary", at->unit ? "slave" : "master");
    ide_attach_disk(&p->ide.channel[at->channel].ide, at->unit, p->cfg.disk[n], "SOSIA HARDDISK",
                    serial);
}

int pc_disks_init(struct pc *p, struct error *e)
{
    const unsigned cd = 2; /* secondary master */
    unsigned slot = PC_SLOT_DISK, ide = 0;
    for (unsigned n = 0; n < p->spec->ndisk; n++) {
        struct pc_disk_place *at = &p->place[n];
        at->virtio = p->spec->disk[n].bus == SPEC_BUS_VIRTIO;
        if (at->virtio) {
            at->slot = slot++;
            int rc = init_virtio(p, n, e);
            if (rc)
                return rc;
            continue;
        }
        if (ide == cd)
            ide++;
        if (ide >= PC_IDE_PLACES)
            return error_set(e, ERR_LIMIT,
                             "too many IDE disks: there is room for %d besides the CD-ROM drive; "
                             "use `bus: virtio` for the others",
                             PC_IDE_PLACES - 1);
        at->channel = ide / 2;
        at->unit = ide % 2;
        ide++;
        attach_ide(p, n);
    }
    if (p->spec->cdrom)
        log_info("CD-ROM: %s: IDE, secondary master", p->spec->cdrom);
    if (p->spec->floppy)
        log_info("floppy A: %s", p->spec->floppy);
    p->cd_place = (struct pc_disk_place){.channel = cd / 2, .unit = cd % 2};
    ide_attach_cdrom(&p->ide.channel[cd / 2].ide, cd % 2, p->cfg.cdrom, "SOSIA CD-ROM", "SOSIACD");
    return 0;
}

static void ide_path(FILE *f, const struct pc_disk_place *at)
{
    fprintf(f, "/pci@i0cf8/ide@%x,1/drive@%x/disk@%x\n", PC_SLOT_ISA, at->channel, at->unit);
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
            for (unsigned n = 0; n < p->spec->ndisk; n++)
                if (p->place[n].virtio)
                    fprintf(f, "/pci@i0cf8/scsi@%x/disk@0,0\n", p->place[n].slot);
                else
                    ide_path(f, &p->place[n]);
            break;
        case SPEC_BOOT_CDROM:
            ide_path(f, &p->cd_place);
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
