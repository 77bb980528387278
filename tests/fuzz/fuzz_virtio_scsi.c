/* fuzz_virtio_scsi.c - the SCSI host with hostile rings and commands: a disk and a CD-ROM drive. */
#include "fuzz_virtio.h"
#include "virtio/virtio_scsi.h"

static struct fuzz f;
static struct virtio_scsi d;

/* Besides what every virtio device gets: a command, or a task management function, in one piece. */
static void extra(struct fuzz *fz, uint8_t what)
{
    if ((what & 0xc6) != 0xc6) {
        vf_extra(fz, what);
        return;
    }
    uint8_t *p = fz->ram.host + VF_BUFFERS + 16 * fuzz_u8(&fz->in);
    uint8_t *lun = what & 8 ? p + 8 : p;
    const uint8_t *in;
    memset(p, 0, 64);
    if (what & 8)
        store_le32(p + 4, fuzz_u8(&fz->in) & 7);
    lun[0] = 1;
    lun[1] = what >> 4 & 1;
    lun[2] = 0x40;
    if (!(what & 8)) {
        size_t n = fuzz_take(&fz->in, &in, 16);
        memcpy(p + 19, in, n);
    }
    uint8_t *desc = fz->ram.host + VF_DESC(what & 8 ? 0 : 2) + 32 * (fuzz_u8(&fz->in) & 3);
    store_le64(desc, (uint64_t)(p - fz->ram.host));
    store_le32(desc + 8, (what & 8 ? 24 : 51) + (what & 1 ? fuzz_u16(&fz->in) : 0));
    store_le16(desc + 12, 1);
    store_le16(desc + 14, (uint16_t)((desc - fz->ram.host) / 16 % VF_SIZE + 1));
    store_le64(desc + 16, VF_BUFFERS + 0x2000 + fuzz_u16(&fz->in));
    store_le32(desc + 24, (what & 8 ? 1 : 108) + (what & 1 ? 0 : fuzz_u16(&fz->in)));
    store_le16(desc + 28, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vf_begin(&f, data, size);
    f.extra = extra;
    uint8_t kind = fuzz_u8(&f.in);
    FUZZ_REQUIRE(!virtio_scsi_init(&d, &f.mem, 2, NULL));
    virtio_scsi_add_disk(&d, 0, fuzz_disk(&f, kind & 1), "FUZZ", "1", kind & 2 ? 4096 : 512);
    virtio_scsi_add_cdrom(&d, 1, fuzz_disk(&f, true), "FUZZ", "2");
    vf_run(&f, &d.v);
    virtio_pci_fini(&vf.fn);
    virtio_scsi_fini(&d);
    fuzz_end(&f);
    return 0;
}
