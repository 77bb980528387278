#!/usr/bin/env python3
"""disk_images.py SOSIA - a guest on an overlay that copies on read, with limits on a disk, and with a
raw disk that it tries to turn into an image of another format; QEMU's tools see the same contents.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import time

from guest import ANSWER, BOOT, Guest, need
from packages import add_modules, busybox_initrd, one, package, sample
from tap import expect, run_tests

PROMPT = "guest:# "
KIB, MIB = 1 << 10, 1 << 20
SIZE = 6 * MIB


def modules(root):
    add_modules(root, ["virtio_pci", "virtio_blk"], "insmod sync tail")


def qemu_img(*args):
    return subprocess.run(["qemu-img", *map(str, args)], check=True, capture_output=True).stdout


def md5(data):
    return hashlib.md5(data).hexdigest()


def images(folder, prog):
    """a guest on a qcow2 overlay, below limits, and with a disk that must stay raw"""
    sample()
    need("qemu-img")
    folder = pathlib.Path(folder)
    base, top, limited, raw = (folder / n for n in ("base", "top", "limited", "raw"))
    base.write_bytes(os.urandom(SIZE))
    raw.write_bytes(bytes(MIB))
    limited.write_bytes(bytes(2 * MIB))
    qemu_img("create", "-f", "qcow2", "-b", "base", "-F", "raw", top)
    kernel = one(package("linux-image-amd64", names="linux-image-6"), "boot/vmlinuz-*")
    disks = [{"file": str(top), "format": "qcow2", "copyonread": True},
             {"file": str(limited), "iops": 1000, "bandwidth": "1M"}, {"file": str(raw)}]
    spec = {"memory": "384M", "kernel": str(kernel), "cmdline": "console=ttyS0", "disks": disks,
            "initrd": busybox_initrd(folder / "initrd", fill=modules)}
    wanted = bytearray(base.read_bytes())
    with Guest(prog, folder, spec) as g:
        g.boot(2 * BOOT, PROMPT)
        g.ask("/load", 2 * ANSWER)
        expect(g.ask("md5sum </dev/vda", 4 * ANSWER).split()[0] == md5(wanted), "vda reads wrong")
        g.ask("dd if=/dev/vda of=/new bs=64k count=10 && "
              "dd if=/new of=/dev/vda bs=4k seek=777 conv=notrunc,fsync", 2 * ANSWER)
        wanted[777 * 4 * KIB:777 * 4 * KIB + 640 * KIB] = wanted[:640 * KIB]
        g.ask("echo 3 >/proc/sys/vm/drop_caches")
        expect(g.ask("md5sum </dev/vda", 4 * ANSWER).split()[0] == md5(wanted), "vda reads back")

        start = time.monotonic()
        g.ask("dd if=/dev/vdb of=/dev/null bs=64k", 2 * ANSWER)
        took = time.monotonic() - start
        expect(took > 1.5, f"2 MiB at 1 MiB per second in {took} s")

        # The beginning of another image, which this one would be on the next start.
        g.ask("printf 'QFI\\373\\0\\0\\0\\3' >/new && "
              "! dd if=/new of=/dev/vdc bs=512 conv=notrunc,fsync,sync 2>/dev/null")
        g.ask("! dd if=/new of=/dev/vdc bs=512 seek=1 conv=notrunc,fsync,sync 2>&1 | grep -i error")
        g.send("poweroff -f\r")
        g.end(0)
    expect(raw.read_bytes()[:4] == bytes(4), "the raw disk became a qcow2 image")
    expect(raw.read_bytes()[512:515] == b"QFI", "anywhere else it is data")
    qemu_img("check", top)
    qemu_img("rebase", "-u", "-b", "", top)  # all of it was copied
    qemu_img("convert", "-O", "raw", top, folder / "out")
    expect((folder / "out").read_bytes() == wanted, "the overlay lacks something")


def refusals(folder, prog):
    """disks that cannot be what the spec says: the message tells why"""
    need("qemu-img")
    folder = pathlib.Path(folder)
    (folder / "vm").mkdir()
    (folder / "out").write_bytes(bytes(MIB))
    top = folder / "vm" / "top"
    qemu_img("create", "-f", "qcow2", "-b", "../out", "-F", "raw", top)
    (folder / "vm" / "raw").write_bytes(bytes(MIB))
    for disk, says in (({"file": "top"}, "backing: anywhere"),
                       ({"file": "raw", "format": "qcow2"}, "raw"),
                       ({"file": "raw", "copyonread": True}, "no backing file")):
        disk["file"] = str(folder / "vm" / disk["file"])
        with Guest(prog, folder, {"memory": "64M", "disks": [disk]}) as g:
            g.end(1, says)


run_tests([images, refusals], sys.argv[1])
