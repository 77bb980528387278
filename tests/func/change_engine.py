#!/usr/bin/env python3
"""change_engine.py SOSIA - a running VM goes on with another engine, again and again: while the demo
guest boots, computes checksums, compresses, and reads and writes a disk. Its results stay right and
nothing gets lost."""

import contextlib
import hashlib
import os
import pathlib
import re
import resource
import sys
import threading

from guest import ANSWER, BOOT, LONG, SANITIZED, SLOW, Guest, demo
from tap import case, expect, run_tests

MIB = 1 << 20
EVERY = 0.04 * SLOW  # seconds between two changes
ROUNDS = 10 if LONG else 1 if SANITIZED else 2
LINE = re.compile(r"^sosia: engine (\w+) \([^()]+\)$", re.M)
TROUBLE = "dmesg | grep -iE 'bug:|oops|call trace|soft lockup|rcu.*stall|segfault'"

COUNT = 200000
NUMBERS = "".join(f"{n}\n" for n in range(COUNT)).encode()
# What the guest computes from NUMBERS in /tmp/n, all at once, and what comes of it.
WORK = (("for i in 1 2 3; do sha256sum </tmp/n; done", hashlib.sha256(NUMBERS).hexdigest()),
        ("for i in 1 2 3 4 5; do md5sum </tmp/n; done", hashlib.md5(NUMBERS).hexdigest()),
        ("gzip -c </tmp/n | gunzip -c | sha512sum", hashlib.sha512(NUMBERS).hexdigest()),
        ("bzip2 -c </tmp/n | bunzip2 -c | sha1sum", hashlib.sha1(NUMBERS).hexdigest()),
        ("awk '{ s += $1 * $1 } END { printf \"%.0f\\n\", s }' </tmp/n",
         str(sum(n * n for n in range(COUNT)))))


@contextlib.contextmanager
def changing(g, least):
    """Presses Ctrl-A e all the time; each engine must have its turn so many times."""
    before, stop = len(LINE.findall(g.stderr())), threading.Event()

    def press():
        while not stop.wait(EVERY):
            g.send("\x01e")
    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    turns = LINE.findall(g.stderr())[before:]
    for engine in ("interp", "jit"):
        expect(turns.count(engine) >= least, f"{turns.count(engine)} times {engine}, not {least}")


def computes(g):
    g.ask(f"seq 0 {COUNT - 1} >/tmp/n", 2 * ANSWER)
    for _ in range(ROUNDS):
        jobs = " ".join(f"({command}) >/tmp/r{n} &" for n, (command, _) in enumerate(WORK))
        g.ask(f"{jobs} wait", 8 * ANSWER)
        for n, (command, right) in enumerate(WORK):
            got = set(line.split()[0] for line in g.ask(f"cat /tmp/r{n}").splitlines())
            expect(got == {right}, command, got, right)


def moves_data(g, source, target):
    g.ask("umount /data", code=None)
    digest = hashlib.md5(source.read_bytes()).hexdigest()
    for _ in range(ROUNDS):
        g.ask("echo 3 >/proc/sys/vm/drop_caches")
        expect(g.ask("md5sum </dev/vda", 2 * ANSWER).split()[0] == digest, "read wrong")
        g.ask("dd if=/dev/vda of=/dev/sda bs=64k conv=fsync", 4 * ANSWER)
        g.ask("echo 3 >/proc/sys/vm/drop_caches")
        expect(g.ask("md5sum </dev/sda", 4 * ANSWER).split()[0] == digest, "wrote wrong")
    lines = g.ask("seq 1 5000", 2 * ANSWER).split()
    expect(lines == [str(n) for n in range(1, 5001)], "lines got lost")
    expect(target.read_bytes() == source.read_bytes(), "the copy differs")


def random_file(folder, name, size):
    path = pathlib.Path(folder, name)
    path.write_bytes(os.urandom(size))
    return path


def works(folder, prog, cpus, engine):
    source, target = (random_file(folder, name, 8 * MIB) for name in ("source", "target"))
    disks = [{"file": str(target), "bus": "ide"}, {"file": str(source), "readonly": True}]
    with Guest(prog, folder, dict(demo(), cpus=cpus, engine=engine, disks=disks)) as g:
        with changing(g, 5):
            g.boot(4 * BOOT)
            expect(g.ask("nproc") == str(cpus), "nproc: ", g.text[-200:])
        with changing(g, 5 * ROUNDS):
            computes(g)
        with changing(g, 2 * ROUNDS):
            moves_data(g, source, target)
        found = g.ask(TROUBLE, code=None)
        expect(not found, found)
        said = LINE.sub("", g.stderr()).strip()
        expect(not said, "on standard error: ", said)
        g.send("poweroff\r")
        g.end(0, err="engine")


def idles(folder, prog):
    """an idle guest with halted vCPUs goes on, and is idle afterwards"""
    with Guest(prog, folder, dict(demo(), cpus=2)) as g:
        g.boot()
        with changing(g, 5):
            g.ask("sleep 3")
        expect(g.cpu_share(3) < 0.5, "it does nothing and is busy")
        g.send("poweroff\r")
        g.end(0, err="engine")


def stays(folder, prog):
    """without memory for the other engine it stays as it is, and says so"""
    with Guest(prog, folder, dict(demo(), cpus=2, engine="interp")) as g:
        g.boot()
        limit = resource.RLIMIT_AS
        was = resource.prlimit(g.process.pid, limit)
        resource.prlimit(g.process.pid, limit, (1, was[1]))
        g.send("\x01e")
        expect(g.ask("echo on") == "on")
        expect("sosia: the engine stays interp: " in g.stderr(), g.stderr())
        resource.prlimit(g.process.pid, limit, was)
        g.send("\x01e")
        expect(g.ask("echo on") == "on")
        expect(LINE.findall(g.stderr()) == ["jit"], g.stderr())
        g.send("poweroff\r")
        g.end(0, err="engine jit")


def tests():
    for cpus, engine in ((1, "jit"), (2, "interp"), (1, "interp"), (2, "jit"), (4, "jit")):
        yield case(f"boots, computes, reads and writes: {cpus} vCPU{'s' * (cpus > 1)}, "
                   f"{engine} first", works, cpus, engine)
    yield idles
    yield stays


ALL = list(tests())
run_tests(ALL if LONG else ALL[1:2] if SANITIZED else ALL[:2] + ALL[-2:], sys.argv[1])
