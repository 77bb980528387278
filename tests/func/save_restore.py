#!/usr/bin/env python3
"""save_restore.py SOSIA - a guest that computes, and writes and reads a disk on every bus, is saved at
random moments and restored, by this engine and that, again and again: all it does stays right,
nothing that it prints gets lost, and its clock is right. And states that cannot be restored."""

import json
import os
import pathlib
import random
import re
import shutil
import struct
import sys
import time
import zlib

from disk_guest import BUSES, PROMPT, find, image, log_in, modules, quiet, spec_of, with_fio
from guest import ANSWER, ENGINE, LONG, SANITIZED, SLOW, Guest
from packages import sample
from tap import case, expect, expect_run, run_tests, sosia, write

ROUNDS = 50 if LONG else 1 if SANITIZED else 2
SAVE = 60 * SLOW  # seconds for saving
AWAY = 3  # seconds between a save and the restore that looks at the clock
ENGINES = [ENGINE] if SANITIZED else ["jit", "interp"]

# One process for each disk writes what it knows, at changing places, and reads it back.
LOAD = ("(n=0; while :; do s=$((n % 9 * 40)); n=$((n + 1)); "
        "dd if=/new of=/dev/{0} bs=64k seek=$s conv=notrunc,fsync 2>/dev/null; "
        "blockdev --flushbufs /dev/{0}; "
        "dd if=/dev/{0} bs=64k skip=$s count=40 2>/dev/null | cmp - /new && echo ok || echo bad; "
        "done) >/log.{0} 2>&1 & true")
# Another one computes.
SUMS = "(while :; do md5sum </new; done) >/log.sums 2>&1 & true"


def start_load(g):
    g.ask("dd if=/dev/urandom of=/new bs=64k count=40", 2 * ANSWER)
    disks = [find(g, bus) for bus in BUSES]
    for disk in disks:
        g.ask(LOAD.format(disk))
    g.ask(SUMS)
    return disks


def results(g, disks):
    """How often each disk was found to be right; nothing may ever have been wrong."""
    counts = []
    for disk in disks:
        said = g.ask(f"sort /log.{disk} | uniq -c").split()
        expect(len(said) in (0, 2) and said[1:] in ([], ["ok"]), f"{disk}:", said)
        counts.append(int(said[0]) if said else 0)
    # The last line may be half written.
    sums = g.ask("head -n -1 /log.sums | sort -u").splitlines()
    expect(len(sums) <= 1, "different sums of the same file:", sums)
    return counts


def press_save(g):
    """Saves, and waits for the end of the program."""
    g.send("\x01z")
    g.end(0, err="sosia: saved to ", timeout=SAVE)


def clock_is_right(g):
    before = time.time()
    guest = int(g.ask("date +%s"))
    after = time.time()
    expect(before - 2 <= guest <= after + 1, f"the guest's clock is {guest - before:+.1f} s off")


def restored(folder, prog, spec, engine, state, *args):
    return Guest(prog, folder, dict(spec, engine=engine), "--state", str(state), *args)


def works_on(g, disks, before):
    """Every process goes on."""
    for _ in range(60):
        now = results(g, disks)
        if all(n > b for n, b in zip(now, before)):
            return now
        g.ask("sleep 1")
    expect(False, "disks stand still:", dict(zip(disks, zip(before, now))))


def every_bus(folder, prog, cpus, rounds):
    sample()
    folder = pathlib.Path(folder)
    images = {bus: image(folder, bus) for bus in BUSES}
    spec = spec_of(folder, [{"file": str(images[bus]), "bus": bus} for bus in BUSES], modules, cpus)
    state = folder / "states" / "now"
    rand = random.Random(os.environ.get("SOSIA_TEST_SEED", cpus))
    with Guest(prog, folder, dict(spec, engine=ENGINES[0]), "--save", str(state)) as g:
        log_in(g)
        disks = start_load(g)
        g.send("\x01z")  # there is no such folder yet: the VM goes on
        g.ask("sleep 1")
        expect(re.search("sosia: not saved: .*No such file", g.stderr()), g.stderr())
        counts = works_on(g, disks, results(g, disks))
        state.parent.mkdir()
        press_save(g)
    refuses(folder, prog, spec, state)
    several_times(folder, prog, spec, state, images, disks, counts)
    for n in range(rounds):
        engine = ENGINES[(n + 1) % len(ENGINES)]
        with restored(folder, prog, spec, engine, state, "--save", str(state)) as g:
            clock_is_right(g)
            counts = results(g, disks)
            time.sleep(rand.uniform(0, 1.5) * SLOW)
            press_save(g)
    with restored(folder, prog, spec, ENGINES[0], state) as g:
        counts = works_on(g, disks, counts)
        clock_is_right(g)
        quiet(g)
        g.send("poweroff -f\r")
        g.end(0)


def several_times(folder, prog, spec, state, images, disks, counts):
    """The same state again and again, each time with the disks as they were."""
    for path in images.values():
        shutil.copy(path, f"{path}.saved")
    time.sleep(AWAY)
    for engine in ENGINES if LONG else ENGINES[:1]:
        with restored(folder, prog, spec, engine, state) as g:
            clock_is_right(g)
            works_on(g, disks, counts)
            g.send("\x01z")
            g.ask("true")
            expect("start with --save FILE" in g.stderr(), g.stderr())
        for path in images.values():
            shutil.copy(f"{path}.saved", path)


def refuses(folder, prog, spec, state):
    """States that are damaged or of another machine; each with a reason."""
    data = state.read_bytes()
    path = write(folder, "vm.yaml", json.dumps(spec))
    bad = folder / "bad"
    rand = random.Random(1)

    def run(content, why, *args):
        bad.write_bytes(content)
        expect_run(sosia(prog, "run", path, "--state", str(bad), *args), 1, out="", err=why)
    for _ in range(3):
        run(data[:rand.randrange(20, len(data))], "the saved state is cut off")
        at = rand.randrange(20, len(data))
        run(data[:at] + bytes([data[at] ^ 1 << rand.randrange(8)]) + data[at + 1:],
            "the saved state is damaged")
    run(b"", "the saved state is cut off after 0 bytes")
    run(b"#!/bin/sh\n" * 10, "this is no saved state")
    run(data, "the saved state is of another machine", "--set", "memory=512M")
    run(data, "of another machine", "--set", f"cpus={3 - spec['cpus']}")
    run(data, "of another machine", "--set", "disks=[]")
    expect_run(sosia(prog, "run", path, "--state", str(folder / "none")), 1, out="",
               err="cannot open the saved state")


def sections(data):
    """Of docs/state.md: kind, offset of the payload, its length."""
    at = 20
    while at < len(data):
        kind, _, length, _, _ = struct.unpack_from("<IIQII", data, at)
        yield kind, at + 24, length
        at += 24 + length


def seal(data, at, length):
    """Makes the checksums right of a section with its payload there; returns that of the payload."""
    crc = zlib.crc32(data[at:at + length])
    struct.pack_into("<I", data, at - 8, crc)
    struct.pack_into("<I", data, at - 4, zlib.crc32(data[at - 24:at - 4]))
    return struct.pack("<I", crc)


def saved_earlier(path, seconds):
    """Changes a saved state to one that was saved so long before."""
    data, crcs = bytearray(path.read_bytes()), 0
    for kind, at, length in sections(data):
        if kind == 1 and data[at:at + 3] == b"\x02vm":
            field = data.index(b"\x08calendar\x07\x01\0\0\0", at) + 14
            calendar = struct.unpack_from("<q", data, field)[0]
            struct.pack_into("<q", data, field, calendar - seconds * 10 ** 9)
        if kind == 5:
            struct.pack_into("<I", data, at + 8, crcs)
        crcs = zlib.crc32(seal(data, at, length), crcs)
    path.write_bytes(data)


def is_ahead(g, seconds):
    """The guest's clock, which was right when it was saved, gets ahead by so much, in steps."""
    for _ in range(60):
        ahead = int(g.ask("date +%s")) - time.time()
        if ahead > seconds - 3:
            break
        time.sleep(1)
    expect(abs(ahead - seconds) < 5 * SLOW, f"the guest's clock is {ahead:+.1f} s ahead")
    quiet(g)
    found = g.ask("dmesg | grep -iE 'stall|unstable|lockup|hung'", code=None)
    expect(not found, found)


def prints(folder, prog):
    """what a guest prints while it is saved is neither lost nor doubled; it was away for hours"""
    sample()
    folder, state, count = pathlib.Path(folder), pathlib.Path(folder, "state"), 20000
    spec = spec_of(folder, [], modules, 1, "256M")
    with Guest(prog, folder, spec, "--save", str(state)) as g:
        g.boot(prompt=PROMPT)
        g.send(f"seq 1 {count}; echo all'' of them\r")
        g.expect("\r\n1000\r")
        press_save(g)
        before = g.text
    with restored(folder, prog, spec, ENGINE, state, "--save", str(state)) as g:
        g.expect("all of them", 4 * ANSWER)
        text = before + g.text
        press_save(g)
    away = 40 * 3600 if LONG else 2 * 3600
    saved_earlier(state, away)
    with restored(folder, prog, spec, ENGINE, state) as g:
        is_ahead(g, away)
    numbers = re.search(r"(?<=them\r\n).*(?=all of them)", text, re.S)[0].split()
    expect(numbers == [str(n) for n in range(1, count + 1)], "lines differ")


def fio(folder, prog, bus):
    """fio checks what it writes, and is saved and restored all the time."""
    folder, state = pathlib.Path(folder), pathlib.Path(folder, "state")
    spec = spec_of(folder, [{"file": str(image(folder, bus)), "bus": bus}], with_fio, 2, "1G")
    with Guest(prog, folder, dict(spec, engine="jit"), "--save", str(state)) as g:
        log_in(g)
        disk = find(g, bus)
        g.ask(f"(fio --name=check --filename=/dev/{disk} --direct=1 --ioengine=libaio --iodepth=32 "
              "--rw=randwrite --verify=crc32c --verify_fatal=1 --bsrange=512-128k --fsync=64 "
              "--size=24M --loops=1000 --time_based --runtime=600 --output=/log; echo $? >/code) "
              ">/dev/null 2>&1 & true")
        time.sleep(2)
        press_save(g)
    rand = random.Random(bus)
    for n in range(20):
        with restored(folder, prog, spec, ENGINES[n % 2], state, "--save", str(state)) as g:
            time.sleep(rand.uniform(0.5, 3))
            expect(g.ask("test ! -e /code || cat /log") == "", g.text[-3000:])
            press_save(g)
    with restored(folder, prog, spec, "jit", state) as g:
        g.ask("killall -INT fio; while ! test -e /code; do sleep 1; done; cat /log", 4 * ANSWER)
        expect("verify:" not in g.text and "err= 0" in g.text, g.text[-3000:])
        quiet(g)


def tests():
    yield case(f"a disk on each bus, 2 vCPUs, {ROUNDS} times", every_bus, 2, ROUNDS)
    if LONG:
        yield case(f"a disk on each bus, 1 vCPU, {ROUNDS} times", every_bus, 1, ROUNDS)
        for bus in BUSES:
            yield case(f"fio, saved and restored: {bus}", fio, bus)
    yield prints


run_tests(list(tests()), sys.argv[1])
