"""disk_guest.py - a small Linux guest with a driver for every kind of disk controller."""

import os
import pathlib

from guest import ANSWER, BOOT
from packages import add_modules, busybox_initrd, copy_program, one, package
from tap import expect

PROMPT = "guest:# "
MIB = 1 << 20
SIZE = 24 * MIB
MODULES = ["virtio_pci", "virtio_blk", "virtio_scsi", "ata_piix", "ahci", "nvme", "sd_mod", "sr_mod"]
APPLETS = "insmod blockdev blkdiscard sync find sort cut tr cmp readlink basename tail mkdir reboot"
DEVICE = {"virtio": "vd", "ide": "sd", "ahci": "sd", "nvme": "nvme", "scsi": "sd"}
OWNER = {"virtio": "/virtio", "scsi": "/virtio", "ide": "00:01.1/ata", "ahci": "/ata", "nvme": "/nvme"}  # a part of the device's path in /sys
BUSES = list(DEVICE)


def modules(root):
    add_modules(root, MODULES, APPLETS)


def with_fio(root):
    modules(root)
    copy_program("fio", "usr/bin/fio", root)


def spec_of(folder, disks, fill, cpus, memory="384M"):
    kernel = one(package("linux-image-amd64", names="linux-image-6"), "boot/vmlinuz-*")
    return {"memory": memory, "cpus": cpus, "kernel": str(kernel), "cmdline": "console=ttyS0",
            "initrd": busybox_initrd(pathlib.Path(folder) / "initrd", fill=fill), "disks": disks}


def image(folder, name):
    path = pathlib.Path(folder) / name
    path.write_bytes(os.urandom(SIZE))
    return path


def log_in(g):
    g.boot(2 * BOOT, PROMPT)
    g.ask("/load", 2 * ANSWER)


def find(g, bus, kind=None):
    """The name of the first disk on a bus, once it is there: some are probed in the background."""
    for _ in range(30):
        for name in g.ask("ls /sys/block").split():
            path = g.ask(f"readlink -f /sys/block/{name}")
            if name.startswith(kind or DEVICE[bus]) and OWNER[bus] in path and \
                    (bus == "ide" or OWNER["ide"] not in path) and \
                    g.ask(f"cat /sys/block/{name}/size") == str(SIZE // 512):  # not the empty drive
                return name
        g.ask("sleep 1")
    expect(False, f"no disk on {bus}:", g.text[-1500:])


def quiet(g):
    said = g.ask("dmesg | grep -iE 'i/o error|exception emask|timed out|resetting|failed command|"
                 "bug:|oops|call trace'", code=None)
    expect(said == "", "the kernel is not content:\n", said)
