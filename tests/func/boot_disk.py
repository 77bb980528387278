#!/usr/bin/env python3
"""boot_disk.py SOSIA - Debian from its disk, the way a PC starts: BIOS, GRUB, kernel, systemd,
login on the serial port. Long: each bus with 1, 2 and 4 vCPUs; else virtio with 2.
"""

import sys

from guest import LONG, SANITIZED, SLOW, Guest, debian_disk
from tap import Skip, case, expect, run_tests

LOGIN = 240 * SLOW  # seconds until the login prompt; it takes 20 where nothing else runs
STOP = 120 * SLOW  # seconds that systemd takes to shut down
DEVICE = {"ide": "/dev/sda1", "virtio": "/dev/vda1", "nvme": "/dev/nvme0n1p1",
          "scsi": "/dev/sda1"}
MATRIX = [(bus, cpus) for bus in DEVICE for cpus in (1, 2, 4)] if LONG else \
    [("virtio", 2)]


def log_in(g):
    g.expect(r"sosia-guest login: ", LOGIN)
    g.send("root\r")
    g.expect(r"root@sosia-guest:~# ", LOGIN)


def power_off(g):
    g.send("poweroff\r")
    g.end(0, timeout=STOP)


def debian(folder, prog, bus, cpus):
    if SANITIZED and not LONG:
        raise Skip("takes too long with sanitizers; make check-long runs it")
    with debian_disk() as disk:
        spec = {"memory": "512M", "cpus": cpus, "firmware": "seabios",
                "disks": [{"file": str(disk), "bus": bus}]}
        with Guest(prog, folder, spec) as g:
            log_in(g)
            expect(g.ask("nproc") == str(cpus), g.text[-300:])
            expect(g.ask("findmnt -no SOURCE /") ==
                   DEVICE[bus], g.text[-300:])
            failed = g.ask("systemctl --failed --plain --no-legend | cut -d' ' -f1")
            expect(failed == "", "units that failed:", failed)
            g.ask("echo kept >/root/file")
            power_off(g)
        with Guest(prog, folder, spec) as g:
            log_in(g)
            expect(g.ask("cat /root/file") == "kept", g.text[-300:])
            expect(g.ask("journalctl -b | grep -c 'recovery complete'", code=None) == "0",
                   "the file system was not left clean")
            power_off(g)


run_tests([case(f"Debian from a disk on {bus}, vCPUs: {cpus}; log in, power off, again", debian,
                bus, cpus) for bus, cpus in MATRIX], sys.argv[1])
