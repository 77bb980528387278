#!/usr/bin/env python3
"""grub_rescue.py SOSIA - GRUB's rescue images: the menu, `ls`, and a kernel from a disk."""

import pathlib
import shutil
import subprocess
import sys

from guest import BOOT, LONG, Guest, demo, need
from packages import one, package, sample
from tap import run_tests

FLOPPY = 1440 * 1024
PROMPT = "grub> "
MOVES = "\x1b\\[\\d+;\\d+H"  # SeaBIOS places the cursor anew wherever it pauses, within words too


def kernel_disk(folder):
    """A disk without partitions, one ext2: the demo guest's kernel and initrd."""
    need("mke2fs")
    tree, image = folder / "tree", folder / "disk.img"
    tree.mkdir()
    shutil.copy(demo()["kernel"], tree / "vmlinuz")
    shutil.copy(demo()["initrd"], tree / "initrd")
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext2", "-d", tree, image, "64M"], check=True,
                   stdout=subprocess.DEVNULL)
    return str(image)


def to_kernel(folder, prog, drives, disk, listed):
    sample()
    with Guest(prog, folder, {"memory": "256M", "disks": [disk], **drives}, drop=MOVES) as g:
        g.expect("GNU/Linux", 2 * BOOT)
        g.expect("executed automatically", BOOT)
        g.send("c")
        g.expect(PROMPT)
        g.type("ls")
        g.expect(listed)
        g.expect(PROMPT)
        g.type("ls (hd0)/")
        g.expect("vmlinuz")
        g.expect(PROMPT)
        for line in ("linux (hd0)/vmlinuz console=ttyS0", "initrd (hd0)/initrd"):
            g.type(line)
            g.expect(PROMPT, BOOT)
        g.type("boot")
        g.boot()
        g.power_off()


def cdrom(folder, prog):
    """GRUB's rescue CD-ROM: menu, ls, a kernel from an IDE disk"""
    iso = one(package("grub-rescue-pc"), "usr/lib/grub-rescue/grub-rescue-cdrom.iso")
    disk = {"file": kernel_disk(pathlib.Path(folder)), "bus": "ide"}
    to_kernel(folder, prog, {"boot": "cdrom", "cdrom": str(iso)}, disk, r"\(hd0\) \(cd\)")


def floppy(folder, prog):
    """GRUB's rescue floppy: menu, ls, a kernel from an IDE disk"""
    image = one(package("grub-rescue-pc"), "usr/lib/grub-rescue/grub-rescue-floppy.img")
    copy = pathlib.Path(folder) / "floppy.img"
    shutil.copy(image, copy)
    with open(copy, "r+b") as f:
        f.truncate(FLOPPY)  # the package's file ends where GRUB does
    disk = {"file": kernel_disk(pathlib.Path(folder)), "bus": "ide"}
    to_kernel(folder, prog, {"boot": "floppy", "floppy": str(copy)}, disk, r"\(hd0\).*\(fd0\)")


run_tests([cdrom, floppy] if LONG else [cdrom], sys.argv[1])
