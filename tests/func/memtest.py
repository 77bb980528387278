#!/usr/bin/env python3
"""memtest.py SOSIA - memtest86+ over 64 MB: its screen is the serial port. With SOSIA_TEST_LONG=1 a
full pass (all ten tests, some six minutes), else a fifth of it."""

import re
import sys

from guest import LONG, SANITIZED, Guest
from packages import one, package, sample
from tap import expect, run_tests

PASS = 3600  # seconds for a full pass
FIRST = 600 if SANITIZED else 120  # seconds until a fifth of a pass is done


def memtest(folder, prog):
    sample()
    image = one(package("memtest86+"), "boot/memtest86+x64.bin")
    spec = {"memory": "64M", "kernel": str(image), "cmdline": "console=ttyS0,115200"}
    with Guest(prog, folder, spec) as g:
        g.expect(r"60MB of 6\d", FIRST)
        if LONG:
            g.expect(r"Pass:\s+1 ", PASS)
        else:
            g.expect(r"\[2;35H(\x1b\[0m)? *[2-9]\d%", FIRST)
        errors = set(re.findall(r"Errors:\s+(\d+)", g.text))
        expect(errors == {"0"}, "errors: ", errors, g.text[-2000:])
        g.send("\x01x")
        g.end(0)


memtest.__doc__ = f"memtest86+: {'a full pass' if LONG else 'a fifth of a pass'} without an error"
run_tests([memtest], sys.argv[1])
