#!/usr/bin/env python3
"""nbd.py DRIVER - remote disks by NBD: qemu-nbd serves, and says afterwards what it holds."""

import random
import sys

from driver import MIB, SEED, call, lose_server, make_empty, read_file
from nbd_server import Server
from tap import expect, run_tests

SIZE = 24 * MIB


def writes(folder, driver):
    """reads, writes, zeroes, trims, flushes; the block status is the map"""
    rng = random.Random(SEED)
    raw, out = f"{folder}/raw", f"{folder}/out"
    wanted = bytearray(SIZE)
    wanted[MIB:2 * MIB] = rng.randbytes(MIB)
    with open(raw, "wb") as f:
        f.truncate(SIZE)
        f.seek(MIB)
        f.write(wanted[MIB:2 * MIB])
    lines = []
    for _ in range(60):
        at, n = rng.randrange(SIZE // 512) * 512, rng.choice([512, 4096, 65536, 3 * MIB])
        n, byte = min(n, SIZE - at), rng.randrange(1, 256)
        what = rng.choice(["write", "fua", "zero", "unmap", "write"])
        wanted[at:at + n] = bytes([byte if what in ("write", "fua") else 0]) * n
        lines += [f"{what} {at} {n} {byte}"] + ["flush 0 0 0"] * (rng.random() < 0.2)
    wanted[20 * MIB:22 * MIB] = bytes(2 * MIB)
    lines += [f"unmap {20 * MIB} {2 * MIB} 0", f"discard {20 * MIB} {MIB} 0"]
    with Server(folder, raw, "--discard=unmap") as s:
        call(driver, "read", s.uri, out, "auto")
        expect(read_file(out) == read_file(raw), "reads wrong")
        call(driver, "write", s.uri, "raw", stdin="\n".join(lines))
        call(driver, "read", s.uri, out, "raw")
        expect(read_file(out) == wanted, "reads wrong after writes; seed", SEED)
        total = 0
        zero = []
        for line in call(driver, "map", s.uri, "raw").stdout.splitlines():
            kind, at, n = line.split()
            expect(int(at) == total, "a gap in the map at", at)
            total += int(n)
            if kind == "zero":
                zero.append((int(at), int(n)))
                expect(not any(wanted[int(at):total]), "no zeroes at", at)
        expect(total == SIZE, "the map ends at", total)
        expect(any(a <= 20 * MIB < a + n for a, n in zero), "trimmed bytes are data", zero)
    expect(read_file(raw) == wanted, "the server holds something else; seed", SEED)


def asynchronous(folder, driver):
    """many requests in flight, as devices send them"""
    raw = f"{folder}/raw"
    make_empty(raw, SIZE)
    with Server(folder, raw) as s:
        call(driver, "async", s.uri, "raw")
    wanted = b"".join(bytes([i % 251]) * 65536 for i in range(SIZE // 65536))
    expect(read_file(raw) == wanted, "the server holds something else")


def qcow2_inside(folder, driver):
    """an image format in a remote disk; files that it names are refused"""
    image, out = f"{folder}/image", f"{folder}/out"
    call("qemu-img", "create", "-q", "-f", "qcow2", image, "10M")
    call("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 64k", image)
    with Server(folder, image, "-r") as s:
        call(driver, "read", s.uri, out, "auto")
        expect(read_file(out) == bytes(MIB) + b"\5" * 65536 + bytes(9 * MIB - 65536), "reads wrong")
        seen = call(driver, "write", s.uri, "auto", code=1).stderr
        expect("readonly: true" in seen, "a read-only export:", seen)
    call("qemu-img", "create", "-q", "-f", "qcow2", "-b", "image", "-F", "qcow2", f"{folder}/top")
    with Server(folder, f"{folder}/top", "-r") as s:
        seen = call(driver, "read", s.uri, out, "auto", code=1).stderr
        expect("names" in seen, "a remote image that names a file:", seen)


def failures(folder, driver):
    """no server, no such export, a server that is killed: errors, at once"""
    raw, out = f"{folder}/raw", f"{folder}/out"
    seen = call(driver, "read", f"nbd+unix:///disk?socket={folder}/none", out, "raw", code=1).stderr
    expect("cannot connect" in seen, seen)
    make_empty(raw, SIZE)
    with Server(folder, raw) as s:
        seen = call(driver, "read", s.uri.replace("disk?", "other?"), out, "raw", code=1).stderr
        expect("cannot connect" in seen, seen)
        lose_server(driver, s.uri, raw, s.process, "connection is lost")


run_tests([writes, asynchronous, qcow2_inside, failures], sys.argv[1])
