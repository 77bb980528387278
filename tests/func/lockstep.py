#!/usr/bin/env python3
"""lockstep.py SOSIA - Linux on the engine lockstep: from its entry to its end, what translations do
is what the interpreter does. A sample of the translations; long: all of them.
"""

import re
import sys

from guest import BOOT, LONG, SANITIZED, Guest, demo
from tap import expect, expect_run, run_tests, sosia, write

EVERY = 1 if LONG else 400 if SANITIZED else 40
LEAST = 100_000  # translations to be compared, whatever EVERY is
SLOW = 600 if LONG else 60  # seconds for a command
WORK = ("md5sum /bin/busybox", "gzip -9 -c /bin/busybox | gzip -d | sha256sum",
        "ls -lR /sys | wc -l", "i=0; while [ $i -lt 300 ]; do i=$((i + 1)); done; echo $i",
        "ps; mount; free; df; date; dmesg | sort | tail")


def linux(folder, prog):
    """Linux boots, works and powers off in lockstep"""
    spec = dict(demo(), engine="lockstep")
    with Guest(prog, folder, spec, "-v", env={"SOSIA_LOCKSTEP_EVERY": str(EVERY)}) as g:
        g.boot(BOOT * 10 if LONG else BOOT)
        for command in WORK:
            g.ask(command, SLOW, code=None)
        g.send("poweroff\r")
        g.end(0, "translations compared", timeout=SLOW)
        compared = int(re.search(r"lockstep: (\d+) translations compared", g.stderr())[1])
        expect(compared >= LEAST, f"only {compared} translations were compared")


def one_cpu(folder, prog):
    """two vCPUs are refused"""
    spec = write(folder, "vm.yaml", "engine: lockstep\ncpus: 2\nmemory: 16M\n")
    expect_run(sosia(prog, "run", spec), 1, out="", err="one vCPU only")


run_tests([linux, one_cpu], sys.argv[1])
