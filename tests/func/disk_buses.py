#!/usr/bin/env python3
"""disk_buses.py SOSIA - Linux on every kind of disk controller: what it finds out about the disks,
reading, writing, discarding. Long: fio checks what it wrote, on each bus.
"""

import hashlib
import sys

from disk_guest import BUSES, MIB, find, image, log_in, modules, quiet, spec_of, with_fio
from guest import ANSWER, LONG, SLOW, Guest
from packages import sample
from tap import case, expect, run_tests

FIO = 600 * SLOW  # seconds for one run of it
CDROM = ["ide", "ahci", "scsi"]


def md5(data):
    return hashlib.md5(data).hexdigest()


def reads_and_writes(g, disk, path):
    """What the guest reads is the image, what it writes reaches it."""
    before = path.read_bytes()
    expect(g.ask(f"md5sum </dev/{disk}", 4 * ANSWER).split()[0] == md5(before),
           f"{disk} reads wrong")
    g.ask(f"dd if=/dev/urandom of=/new bs=64k count=40 && "
          f"dd if=/new of=/dev/{disk} bs=64k seek=17 conv=notrunc,fsync", 2 * ANSWER)
    new = g.ask("md5sum </new").split()[0]
    after = path.read_bytes()
    part = slice(17 * 65536, 57 * 65536)
    expect(md5(after[part]) == new, f"{disk}: what was written did not arrive")
    expect(after[:part.start] == before[:part.start] and after[part.stop:] == before[part.stop:],
           f"{disk}: something else was written too")
    g.ask("echo 3 >/proc/sys/vm/drop_caches")
    expect(g.ask(f"dd if=/dev/{disk} bs=64k skip=17 count=40 2>/dev/null | md5sum").split()[0]
           == new, f"{disk}: what was written reads back changed")


def discards(g, disk, path):
    """Discarded blocks read as zeroes here, since the image is a sparse file; so do zeroed ones."""
    before = path.read_bytes()
    g.ask(f"blkdiscard -o {4 * MIB} -l {2 * MIB} /dev/{disk}")
    after = path.read_bytes()
    part = slice(4 * MIB, 6 * MIB)
    expect(not any(after[part]), f"{disk}: the discard did not reach the image")
    expect(after[:part.start] == before[:part.start] and after[part.stop:] == before[part.stop:],
           f"{disk}: something else was discarded too")


def every_bus(folder, prog):
    """a disk on each bus: found, read, written, discarded; serial numbers, queues"""
    sample()
    images = {bus: image(folder, bus) for bus in BUSES}
    iso = image(folder, "ide.iso")
    disks = [{"file": str(images[bus]), "bus": bus, "serial": f"No-{bus}"} for bus in BUSES]
    disks += [{"file": str(iso), "bus": bus, "media": "cdrom"} for bus in CDROM]
    with Guest(prog, folder, spec_of(folder, disks, modules, 2)) as g:
        log_in(g)
        for bus in BUSES:
            disk = find(g, bus)
            reads_and_writes(g, disk, images[bus])
            discards(g, disk, images[bus])
        for bus in CDROM:
            cd = find(g, bus, "sr")
            expect(g.ask(f"md5sum </dev/{cd}", 4 * ANSWER).split()[0] == md5(iso.read_bytes()),
                   f"{cd} on {bus} reads wrong")
        disk = find(g, "ahci")
        expect(g.ask(f"cat /sys/block/{disk}/device/queue_depth") == "32", g.text[-200:])
        disk = find(g, "nvme")
        expect(g.ask(f"cat /sys/block/{disk}/device/serial").strip() == "No-nvme", g.text[-300:])
        expect(g.ask(f"ls /sys/block/{disk}/mq | grep -c .") == "2", "not a queue for each vCPU")
        disk = find(g, "virtio")
        expect(g.ask(f"cat /sys/block/{disk}/serial") == "No-virtio", g.text[-300:])
        expect(g.ask(f"ls /sys/block/{disk}/mq | grep -c .") == "2", "not a queue for each vCPU")
        expect(g.ask(f"cat /sys/block/{disk}/queue/physical_block_size") == "4096", "topology")
        g.ask(f"echo write through >/sys/block/{disk}/cache_type")
        g.ask(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 conv=fsync")
        quiet(g)
        g.send("poweroff -f\r")
        g.end(0)


def reset_amid_reads(folder, prog):
    """a reset while every disk is read; afterwards all are there and read right"""
    images = {bus: image(folder, bus) for bus in BUSES}
    disks = [{"file": str(images[bus]), "bus": bus} for bus in BUSES]
    with Guest(prog, folder, spec_of(folder, disks, modules, 2)) as g:
        log_in(g)
        names = [find(g, bus) for bus in BUSES]
        for name in names:
            g.ask(f"(while :; do dd if=/dev/{name} of=/dev/null bs=64k iflag=direct; done)"
                  ">/dev/null 2>&1 & true")
        g.send("reboot -f\r")
        g.expect("reboot: Restarting")
        log_in(g)
        for bus in BUSES:
            read = g.ask(f"md5sum </dev/{find(g, bus)}", 4 * ANSWER).split()[0]
            expect(read == md5(images[bus].read_bytes()), f"{bus} reads wrong")
        quiet(g)
        g.send("poweroff -f\r")
        g.end(0)


def fio(folder, prog, bus):
    """Random writes of several sizes and depths, each checked by fio; twice."""
    path = image(folder, bus)
    disks = [{"file": str(path), "bus": bus}]
    with Guest(prog, folder, spec_of(folder, disks, with_fio, 2, "1G")) as g:
        log_in(g)
        disk = find(g, bus)
        for more in ("--bsrange=512-128k --bs_unaligned=0", "--bs=4k --trim_backlog=8",
                     "--rw=write --bs=1M"):
            g.ask(f"fio --name=check --filename=/dev/{disk} --direct=1 --ioengine=libaio "
                  f"--iodepth=32 --rw=randwrite --verify=crc32c --verify_fatal=1 --fsync=64 "
                  f"--size=24M --output=/log {more}; r=$?; tail -n 40 /log; test $r = 0", FIO)
        quiet(g)
        g.send("poweroff -f\r")
        g.end(0)


if __name__ == "__main__":
    run_tests([every_bus] + [reset_amid_reads] * LONG +
              [case(f"fio finds what it wrote: {bus}", fio, bus) for bus in BUSES if LONG], sys.argv[1])
