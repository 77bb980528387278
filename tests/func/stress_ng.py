#!/usr/bin/env python3
"""stress_ng.py SOSIA [--seconds N] [--engine E] [--cpus N] - Debian's stress-ng in a guest: processor,
memory, fork, signal and pipe stressors check their own results, for 5 minutes or as long as asked
(an hour: 3600). The program's memory beyond the guest's may not grow. For long runs only: without
--seconds, only with SOSIA_TEST_LONG=1."""

import argparse
import os
import pathlib
import re
import statistics
import sys
import threading
import time

from guest import ANSWER, BOOT, LONG, Guest, demo
from packages import busybox_initrd, copy_program
from tap import Skip, case, expect, run_tests

SECONDS = 300
SAMPLE = 5  # seconds between two looks at the program's memory
# Caches of code fill up to their bounds (engine/jit/jit.c: 256 + 192 MiB), and nothing else may grow.
BEYOND_MIB, GROWTH_MIB = 500, 16
LONG_S = 1800  # they are full by then, or as full as this guest makes them
STRESSORS = ("--cpu 2 --cpu-method all --vm 1 --vm-bytes 48M --vm-method all --fork 1 --vfork 1 "
             "--signest 1 --sigq 1 --sigsegv 1 --sigfpe 1 --pipe 2 --switch 1 --futex 1 --mmap 1 "
             "--mmap-bytes 16M --matrix 1 --atomic 1")
TROUBLE = "dmesg | grep -iE 'bug:|oops|call trace|soft lockup|rcu.*stall|general protection|mce:'"


def beyond_mib(pid):
    """Resident memory of the process without the guest's RAM."""
    total, counts = 0, True
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = "guest-ram" not in line
        elif line.startswith("Rss:") and counts:
            total += int(line.split()[1])
    return total / 1024


class Watch(threading.Thread):
    """Samples the memory of the process until stopped."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.samples, self.over = pid, [], threading.Event()

    def run(self):
        while not self.over.wait(SAMPLE):
            self.samples.append(beyond_mib(self.pid))

    def stop(self):
        self.over.set()
        self.join()

    def check(self, seconds):
        part = len(self.samples) // 4
        expect(part > 0, "too short to tell")
        quarters = [statistics.median(self.samples[n * part:(n + 1) * part]) for n in range(4)]
        print("# MiB beyond the guest's RAM, by quarters:", *(f"{q:.1f}" for q in quarters))
        expect(max(self.samples) < BEYOND_MIB, "resident, beyond the guest's RAM:", quarters)
        expect(seconds < LONG_S or quarters[3] - quarters[1] < GROWTH_MIB, "it grows:", quarters)


def stress(folder, prog, args):
    seconds = args.seconds or (SECONDS if LONG else 0)
    if not seconds:
        raise Skip("long; make check-long runs it")
    initrd = busybox_initrd(pathlib.Path(folder, "initrd"),
                            fill=lambda root: copy_program("stress-ng", "usr/bin/stress-ng", root))
    spec = {"memory": "512M", "cpus": args.cpus, "engine": args.engine, "initrd": initrd,
            "kernel": demo()["kernel"], "cmdline": "console=ttyS0"}
    with Guest(prog, folder, spec) as g:
        g.boot(2 * BOOT, "guest:# ")
        g.ask("export PATH=$PATH:/usr/bin; cd /tmp; stress-ng --version")
        watch = Watch(g.process.pid)
        watch.start()
        start = time.monotonic()
        # Its own time limit ends it; a stressor that hangs is killed some time after that.
        said = g.ask(f"stress-ng --verify --timeout {seconds}s --metrics-brief --temp-path /tmp "
                     f"{STRESSORS} 2>&1", 2 * seconds + 20 * ANSWER, code=None)
        watch.stop()
        for line in said.splitlines():
            print("#", line)
        expect("successful run completed" in said, "stress-ng failed")
        expect(not re.search(r"fail:|error:", said), "stress-ng reports failures")
        expect(time.monotonic() - start > seconds, "it ended early")
        found = g.ask(TROUBLE, 4 * ANSWER, code=None)
        expect(not found, found)
        watch.check(seconds)
        g.send("poweroff -f\r")
        g.end(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sosia")
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--engine", default=os.environ.get("SOSIA_TEST_ENGINE", "jit"))
    parser.add_argument("--cpus", type=int, default=2)
    args = parser.parse_args()
    name = f"stress-ng verifies: {args.cpus} vCPUs, engine {args.engine}"
    run_tests([case(name, stress, args)], args.sosia)


main()
