#!/usr/bin/env python3
"""iscsi.py DRIVER - a logical unit of an iSCSI target: tgtd serves a file, which says afterwards what it
holds.
"""

import random
import sys

from driver import MIB, SEED, call, lose_server, make_empty, read_file
from iscsi_target import Target
from tap import expect, run_tests

SIZE = 16 * MIB


def writes(folder, driver):
    """reads, writes of odd sizes too, zeroes, trims, flushes; as devices send them"""
    rng = random.Random(SEED)
    raw, out = f"{folder}/raw", f"{folder}/out"
    wanted = bytearray(rng.randbytes(SIZE))
    with open(raw, "wb") as f:
        f.write(wanted)
    lines = []
    for _ in range(40):
        at, n = rng.randrange(SIZE // 512) * 512, rng.choice([512, 4096, 65536, MIB])
        if rng.random() < 0.2:
            at, n = at + rng.randrange(400), rng.randrange(1, 3000)
        n, byte = min(n, SIZE - at), rng.randrange(1, 256)
        what = rng.choice(["write", "fua", "zero", "unmap", "write"])
        wanted[at:at + n] = bytes([byte if what in ("write", "fua") else 0]) * n
        lines += [f"{what} {at} {n} {byte}"] + ["flush 0 0 0"] * (rng.random() < 0.2)
    with Target(folder, raw) as t:
        call(driver, "read", t.url, out, "raw")
        expect(read_file(raw) == read_file(out), "reads wrong")
        call(driver, "write", t.url, "raw", stdin="\n".join(lines))
        call(driver, "read", t.url, out, "raw")
        expect(read_file(raw) == wanted, "the target holds something else; seed", SEED)
        expect(read_file(out) == wanted, "reads wrong after writes; seed", SEED)
        call(driver, "write", t.url, "raw", stdin=f"discard 0 {MIB} 0")
        call(driver, "async", t.url, "raw")
    expect(read_file(raw) == b"".join(bytes([i % 251]) * 65536 for i in range(SIZE // 65536)), "async")


def failures(folder, driver):
    """no such target, a target that is killed: errors"""
    raw, out = f"{folder}/raw", f"{folder}/out"
    make_empty(raw, SIZE)
    seen = call(driver, "read", "iscsi://127.0.0.1", out, "raw", code=1).stderr
    expect("an iSCSI URL is" in seen, seen)
    with Target(folder, raw) as t:
        seen = call(driver, "read", f"{t.portal}/iqn.2026-01.test:other/1", out, "raw", code=1).stderr
        expect("cannot log in" in seen, seen)
        lose_server(driver, t.url, raw, t.process, "session is lost")


run_tests([writes, failures], sys.argv[1])
