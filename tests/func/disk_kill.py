#!/usr/bin/env python3
"""disk_kill.py SOSIA - the VMM is killed while a guest writes to disks on every bus; what the guest
was told is durable is there when it starts again.

In the guest a fio for each disk writes part after part of it, with headers to verify by, and says so
on the serial port once the part is flushed. After kill -9 QEMU's tools check the images, and the guest
that starts next has fio verify all parts that were reported. SOSIA_TEST_SEED repeats the choices.
"""

import os
import pathlib
import random
import re
import subprocess
import sys
import time

from disk_guest import BUSES, SIZE, find, log_in, quiet, spec_of, with_fio
from guest import LONG, SLOW, Guest, need
from tap import Skip, case, expect, run_tests

SEED = int(os.environ.get("SOSIA_TEST_SEED", random.randrange(1 << 30)))
PART = 256 << 10
PARTS = SIZE // PART
VERIFY = 300 * SLOW  # seconds for fio to find all of it
WRITE = 15 * SLOW  # seconds at most that it writes
KILLS = 6

# parts write|verify DEVICE BUS FIRST END: one fio with a job for each part. What is written and
# what is verified have the same numbers.
SCRIPT = f"""#!/bin/sh
what="do_verify=0"
[ $1 = verify ] && what="verify_only=1"
exec >/job.$3
echo "[global]
filename=/dev/$2
size={PART}
rw=randwrite
bs=4k
ioengine=libaio
iodepth=16
direct=1
thread
verify=crc32c
verify_fatal=1
end_fsync=1
$what"
part=$4
while [ $part -lt $5 ]; do
    echo "[part$part]
offset=$((part * {PART}))
randseed=$((part + 7))
stonewall"
    part=$((part + 1))
    [ $1 = write ] && echo "exec_postrun=/say $3 $part"
done
exec fio --output=/log.$3 /job.$3
"""
SAY = """#!/bin/sh
echo "<flushed $1 $2>" >/dev/ttyS0
"""


def fill(root):
    with_fio(root)
    for name, text in (("parts", SCRIPT), ("say", SAY)):
        (root / name).write_text(text, encoding="utf-8")
        (root / name).chmod(0o755)


def options(rng):
    """Some kind of qcow2."""
    cluster = rng.choice([4096, 16384, 65536])
    chosen = [f"cluster_size={cluster}", f"lazy_refcounts={rng.choice(['on', 'off'])}"]
    if cluster > 4096:
        chosen.append(f"extended_l2={rng.choice(['on', 'off'])}")
    return ",".join(chosen)


def flushed(text):
    """The parts that the guest reported, of each bus."""
    done = {}
    for bus, part in re.findall(r"<flushed (\w+) (\d+)>", text):
        done[bus] = int(part)
    return done


def check(images, lazy):
    for bus, path in images.items():
        if not lazy[bus]:  # else the next start looks through it first
            run = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True,
                                 text=True, timeout=60)
            expect(run.returncode in (0, 3), bus, run.returncode, run.stdout, run.stderr)


def verify(g, done):
    """Finds what was flushed, on all buses at once; returns the names of the disks."""
    names = {bus: find(g, bus) for bus in BUSES}
    for bus, part in done.items():
        g.ask(f"(/parts verify {names[bus]} {bus} 0 {part} || cp /log.{bus} /bad.{bus}) & true")
    g.ask("wait", VERIFY)
    bad = g.ask("cat /bad.* 2>/dev/null", code=None)
    expect(bad == "", "what was flushed is not there:\n", bad)
    quiet(g)
    return names


def one_life(folder, prog, spec, rng, done):
    """Verifies `done`, writes on, is killed; returns what was flushed by then."""
    with Guest(prog, folder, spec) as g:
        log_in(g)
        names = verify(g, done)
        for bus in BUSES:
            if done.get(bus) != PARTS:
                g.ask(f"/parts write {names[bus]} {bus} {done.get(bus, 0)} {PARTS} & true")
        g.expect("<flushed", VERIFY)
        time.sleep(rng.random() * WRITE)
        g.process.kill()
        g.process.wait()
        g.reader.join()
        expect("I/O error" not in g.text, g.text[-2000:])
        return {**done, **flushed(g.text)}


def new_disks(folder, rng):
    """Paths of images by bus; which of them have lazy refcounts; the spec of the VM."""
    images, lazy, disks = {}, {}, []
    for bus in BUSES:
        images[bus], kind = str(pathlib.Path(folder) / bus), options(rng)
        lazy[bus] = "lazy_refcounts=on" in kind
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", kind, images[bus], str(SIZE)],
                       check=True)
        disks.append({"file": images[bus], "bus": bus, "format": "qcow2"})
    return images, lazy, spec_of(folder, disks, fill, 2, "1G")


def last_look(folder, prog, spec, done):
    with Guest(prog, folder, spec) as g:
        log_in(g)
        verify(g, done)
        g.send("poweroff -f\r")
        g.end(0)
    print(f"# SOSIA_TEST_SEED={SEED}: {done} of {PARTS} parts flushed")


def killed(folder, prog, times):
    """`times` kills, then a last look. Where everything has been written, it begins anew."""
    if not LONG:
        raise Skip("each start takes seconds; make check-long runs it")
    need("qemu-img")
    rng, done = random.Random(SEED), {}
    images, lazy, spec = new_disks(folder, rng)
    for _ in range(times):
        if all(done.get(bus) == PARTS for bus in BUSES):
            last_look(folder, prog, spec, done)
            images, lazy, spec = new_disks(folder, rng)
            done = {}
        done = one_life(folder, prog, spec, rng, done)
        check(images, lazy)
    last_look(folder, prog, spec, done)


if __name__ == "__main__":
    run_tests([case(f"killed {KILLS} times amid writes on every bus", killed, KILLS)], sys.argv[1])
