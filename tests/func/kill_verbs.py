#!/usr/bin/env python3
"""kill_verbs.py SOSIA - the tool is killed at random points of every verb: the catalog can be read
afterwards, each VM is as it was or as it was to be, no lock is left, and the next verb works.

SOSIA_TEST_LONG=1: 500 times each.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

from guest import LONG, SANITIZED
from tap import expect, run_tests
from vms import catalog, get, ok

TIMES = 500 if LONG else 3 if SANITIZED else 8
SEED = int(os.environ.get("SOSIA_TEST_SEED", "0")) or random.randrange(1 << 30)


def content(folder, prog, disk):
    """What a disk reads as."""
    raw = pathlib.Path(folder) / "raw"
    ok(prog, "disk", "convert", "--format", "raw", "--replace", str(disk), str(raw))
    return raw.read_bytes()


def seen(prog):
    """Name: UUID; every VM must be whole."""
    vms = get(prog, "ls")["vms"]
    expect(all(v["problem"] is None for v in vms), vms)
    return {v["name"]: v["uuid"] for v in vms}


def no_locks(top):
    """Nobody holds a lock: /proc/locks names inodes."""
    locks = pathlib.Path("/proc/locks").read_text()
    for lock in top.rglob("lock"):
        expect(f":{lock.stat().st_ino} " not in locks, lock, locks)


def killing(verb, prepare, possible, after=lambda *args: None):
    """A test: `prepare` gives the arguments of a verb for round n, `possible` all catalogs (name: UUID,
    None: any) that may be found afterwards, given the one before."""
    def test(folder, prog):
        rng = random.Random(f"{SEED} {verb}")
        with catalog(folder, prog) as top:
            ok(prog, "create", "base", "--memory", "32M", "--disk", "1M")
            first = rng.randbytes(1 << 20)
            (top / "raw").write_bytes(first)
            ok(prog, "disk", "convert", "--replace", "--source-format", "raw", str(top / "raw"),
               str(top / "vms/base/disks/disk0.qcow2"))
            took = 0.05
            for n in range(TIMES):
                args = prepare(prog, n)
                before = seen(prog)
                start = time.monotonic()
                with subprocess.Popen([prog, verb, *args], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL) as p:
                    if n > 0:  # the first is measured
                        time.sleep(rng.uniform(0, took * 1.1))
                        p.send_signal(signal.SIGKILL)
                    p.wait()
                    took = time.monotonic() - start if n == 0 else took
                where = f"{verb} round {n} seed {SEED}:"
                now = seen(prog)
                expect(any(set(now) == set(p) and all(u in (None, now[k]) for k, u in p.items())
                           for p in possible(before, n)), where, before, now)
                after(prog, n)
                no_locks(top)
                disk = top / "vms/base/disks/disk0.qcow2"
                if verb in ("clone",) or n == TIMES - 1:
                    expect(content(folder, prog, disk) == first, where, "the disk has changed")
                for path in (top / "vms").glob(".new-*"):  # the next create sweeps, when they are old
                    os.utime(path, (0, 0))
            ok(prog, "create", "last")
            left = [p for p in (top / "vms").iterdir() if p.name.startswith(".")]
            expect(not left, "left behind:", left)
    test.__doc__ = f"{verb}: killed {TIMES - 1} times"
    return test


def with_new(name):
    return lambda before, n: [before, {**before, name(n): None}]


def set_value(prog, n):
    return ["base", f"cpus={n % 32 + 1}", f"memory={n % 32 + 1}M"]


def both_or_none(prog, n):
    spec = ok(prog, "spec", "base")
    expect(spec.startswith("# The VM"), spec)
    cpus, memory = re.search(r"^cpus: (\d+)", spec, re.M), re.search(r"^memory: (\d+)M", spec, re.M)
    expect(cpus[1] == memory[1], spec)


def renamed(before, n):
    old = "base" if "base" in before else "other"
    new = "other" if old == "base" else "base"
    return [before, {**{k: v for k, v in before.items() if k != old}, new: before[old]}]


def prepare_rename(prog, n):
    with contextlib.suppress(AssertionError):
        ok(prog, "rename", "other", "base")
    return ["base", "other"]


def back_to_base(prog, n):
    if "other" in ok(prog, "ls", "-q").split():
        ok(prog, "rename", "other", "base")


def without(name):
    return lambda before, n: [before, {k: v for k, v in before.items() if k != name}]


def prepare_rm(prog, n):
    if "doomed" not in ok(prog, "ls", "-q").split():
        ok(prog, "create", "doomed")
    return ["doomed"]


def prepare_purge(prog, n):
    return [*prepare_rm(prog, n), "--purge"]


def prepare_recover(prog, n):
    if "lost" in ok(prog, "ls", "-q").split():
        ok(prog, "rm", "lost")
    elif not [t for t in get(prog, "recover")["trash"] if t.startswith("lost")]:
        ok(prog, "create", "lost")
        ok(prog, "rm", "lost")
    return ["lost"]


def prepare_start(prog, n):
    return ["base"]


def end_vm(prog, n):
    """It runs or it does not; if it is starting, it will."""
    state = get(prog, "info", "base")["state"]
    end = time.monotonic() + 60
    while state == "starting" and time.monotonic() < end:
        time.sleep(0.02)
        state = get(prog, "info", "base")["state"]
    expect(state in ("stopped", "running", "crashed"), state)
    if state == "running":
        ok(prog, "stop", "-f", "base")


def prepare_stop(prog, n):
    ok(prog, "start", "base")
    return ["base", "-f"]


def same(before, n):
    return [before]


def ends_soon(prog, n):
    """The VM has been told to end, or not."""
    deadline = time.monotonic() + 1
    while get(prog, "info", "base")["pid"] and time.monotonic() < deadline:
        time.sleep(0.05)
    end_vm(prog, n)


def note_state(prog, n):
    state = json.loads(ok(prog, "info", "base", "--json"))
    expect(state["problem"] is None, state)


TESTS = [
    killing("create", lambda prog, n: [f"c{n}", "--disk", "1M"], with_new(lambda n: f"c{n}")),
    killing("set", set_value, same, both_or_none),
    killing("rename", prepare_rename, renamed, back_to_base),
    killing("rm", prepare_rm, without("doomed")),
    killing("rm", prepare_purge, without("doomed")),
    killing("recover", prepare_recover, with_new(lambda n: "lost")),
    killing("clone", lambda prog, n: ["base", f"k{n}", "--linked"], with_new(lambda n: f"k{n}"),
            note_state),
    killing("clone", lambda prog, n: ["base", f"f{n}", "--full"], with_new(lambda n: f"f{n}")),
    killing("start", prepare_start, same, end_vm),
    killing("stop", prepare_stop, same, ends_soon),
]
run_tests(TESTS, sys.argv[1])
