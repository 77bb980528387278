#!/usr/bin/env python3
"""ipxe.py SOSIA - iPXE's CD-ROM, started by SeaBIOS: to its prompt and a few commands."""

import sys

from guest import BOOT, Guest
from packages import one, package
from tap import run_tests


def prompt(folder, prog):
    """iPXE: from the CD-ROM to its prompt"""
    iso = one(package("ipxe", "all"), "usr/lib/ipxe/ipxe.iso")
    with Guest(prog, folder, {"memory": "128M", "boot": "cdrom", "cdrom": str(iso)}) as g:
        g.expect(r"iPXE initialising devices", BOOT)
        g.expect(r"Press Ctrl-B", BOOT)
        g.send("\x02")
        g.expect(r"iPXE> ", BOOT)
        g.type("echo six-${buildarch}")
        g.expect(r"six-i386")
        g.expect(r"iPXE> ")
        g.type("cpuid --ext 29 && echo long-mode")
        g.expect(r"\nlong-mode")
        g.expect(r"iPXE> ")
        g.send("\x01x")
        g.end(0)


run_tests([prompt], sys.argv[1])
