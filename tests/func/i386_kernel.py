#!/usr/bin/env python3
"""i386_kernel.py SOSIA - Debian's kernel for 32-bit PCs (linux-image-686, without PAE), and 32-bit
programs on it."""

import hashlib
import pathlib
import sys

from guest import BOOT, LONG, Guest
from packages import busybox_initrd, one, package, sample
from tap import case, expect, run_tests

PROMPT = "guest:# "


def boots(folder, prog, cpus):
    sample()
    kernel = one(package("linux-image-686", "i386", "linux-image-6"), "boot/vmlinuz-*")
    spec = {"memory": "256M", "cpus": cpus, "kernel": str(kernel), "cmdline": "console=ttyS0",
            "initrd": busybox_initrd(pathlib.Path(folder) / "initrd", "i386")}
    with Guest(prog, folder, spec) as g:
        g.boot(2 * BOOT, PROMPT)
        expect(g.ask("uname -m") == "i686", "uname: ", g.text[-200:])
        expect(g.ask("nproc") == str(cpus), "nproc: ", g.text[-200:])
        expect("pae" in g.ask("cat /proc/cpuinfo"), "no CPU flags")
        zeros, numbers = b"\0" * 2000000, b"".join(b"%d\n" % n for n in range(1, 30001))
        expect(hashlib.md5(zeros).hexdigest() in g.ask("head -c 2000000 /dev/zero | md5sum"),
               g.text[-200:])
        expect(hashlib.sha1(numbers).hexdigest() in g.ask("seq 30000 | gzip | gzip -d | sha1sum"),
               g.text[-200:])
        expect(g.ask("dmesg | grep -iE 'bug:|oops|call trace|soft lockup'", code=None) == "",
               g.text[-2000:])
        g.send("poweroff -f\r")
        g.end(0)


run_tests([case(f"boots, computes, powers off: {n} vCPU{'s' * (n > 1)}", boots, n)
           for n in ((1, 2) if LONG else (1,))], sys.argv[1])
