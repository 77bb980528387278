#!/usr/bin/env python3
"""xen.py SOSIA - the Xen hypervisor, loaded by GRUB's multiboot, with a Debian domain 0: a
paravirtual guest within the guest, in ring 3."""

import pathlib
import shutil
import subprocess
import sys

from guest import BOOT, LONG, Guest, need
from packages import busybox_initrd, one, package
from tap import Skip, expect, run_tests

DOM0 = 600  # seconds until domain 0 has its shell
PROMPT = "guest:# "


def xen_disk(folder):
    need("mke2fs")
    tree, image = folder / "tree", folder / "disk.img"
    tree.mkdir()
    shutil.copy(one(package("xen-hypervisor-4.17-amd64"), "boot/xen-*.gz"), tree / "xen.gz")
    shutil.copy(one(package("linux-image-amd64", names="linux-image-6"), "boot/vmlinuz-*"),
                tree / "vmlinuz")
    busybox_initrd(tree / "initrd")
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext2", "-d", tree, image, "64M"], check=True,
                   stdout=subprocess.DEVNULL)
    return str(image)


def dom0(folder, prog):
    """Xen with a Debian kernel as domain 0"""
    if not LONG:
        raise Skip("make check-long runs it")
    iso = one(package("grub-rescue-pc"), "usr/lib/grub-rescue/grub-rescue-cdrom.iso")
    spec = {"memory": "768M", "boot": "cdrom", "cdrom": str(iso),
            "disks": [{"file": xen_disk(pathlib.Path(folder)), "bus": "ide"}]}
    with Guest(prog, folder, spec) as g:
        g.expect("executed automatically", BOOT)
        g.send("c")
        g.expect("grub> ")
        for line in ("multiboot (hd0)/xen.gz xen com1=115200,8n1 console=com1 dom0_mem=384M",
                     "module (hd0)/vmlinuz linux console=hvc0", "module (hd0)/initrd"):
            g.type(line)
            g.expect("grub> ", BOOT)
        g.type("boot")
        g.expect(r"Xen version 4\.17", BOOT)
        g.expect(PROMPT, DOM0)
        expect(g.ask("cat /sys/hypervisor/type /sys/hypervisor/guest_type").split()
               == ["xen", "PV"], g.text[-500:])
        g.send("poweroff -f\r")
        g.end(0)


run_tests([dom0], sys.argv[1])
