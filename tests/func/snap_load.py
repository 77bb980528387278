#!/usr/bin/env python3
"""snap_load.py SOSIA - snapshots of a guest that works: compilers run, and fio checks what it writes.
It is taken at random moments, its consoles stay, and each snapshot goes on by every engine: nothing
that the guest checks is wrong, and its clock is right. The same for suspend.

Short: a small guest, which compiles in memory, twice. SOSIA_TEST_LONG=1: Debian from its disk with gcc, 50
times (SOSIA_TEST_SNAPS); SOSIA_TEST_SEED chooses the moments.
"""

import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

from disk_guest import APPLETS, MODULES, PROMPT, spec_of
from guest import LONG, SANITIZED, SLOW, debian_disk
from packages import add_modules, copy_program, sample
from tap import expect, run_tests
from vms import Qmp, catalog, get, ok, wait_text

SNAPS = int(os.environ.get("SOSIA_TEST_SNAPS", "50" if LONG else "2"))
BATCH = 5  # snapshots that there are at a time
ENGINES = ["jit", "interp"]
ANSWER = 240 * SLOW  # seconds for a small command in a guest that works, with the slowest engine
PAUSE_NS = 900e6  # three times what is promised: a host that tests may have other work

FIO = ("fio --name=v --filename=/dev/{disk} --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite "
       "--bs=16k --size=24M --verify=crc32c --verify_fatal=1 --verify_backlog=32 --loops=100000 "
       "--output=/fio.log; echo $? >/fio.code")
COMPILE = ("{cc} -c /w/a.c -o /w/ref.o && n=0; while {cc} -c /w/a.c -o /w/new.o && "
           "cmp /w/new.o /w/ref.o; do n=$((n+1)); echo $n >/w/n; mv /w/n /w/count; done; "
           "echo bad >/w/bad")
SOURCE = ("mkdir -p /w; i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo \"int f$i(int x, int y) {{ "
          "int s = $i; while (x-- > 0) s = s * y + (s >> 3) ^ x; return s; }}\"; done >/w/a.c")


class Vm:
    """A VM of the catalog and the shell on its console."""

    def __init__(self, prog, name):
        self.prog, self.name, self.asked = prog, name, 0

    def type(self, text):
        """Waits until the guest has taken it."""
        with self.qmp() as q:
            for at in range(0, len(text), 64):
                q.call("x-sosia-console-input", data=text[at:at + 64])

    def ask(self, command, code=0):
        """What a command says; lines of the terminal may be broken anywhere before it."""
        self.asked += 1
        mark = f"{self.asked}.{time.monotonic_ns()}"
        self.type(f"echo '<''b{mark}>'; {command}; echo '<''e{mark} '$?'>'\r")
        wait_text(self.prog, self.name, f"<e{mark} [0-9]+>", ANSWER)
        log = ok(self.prog, "logs", self.name, "--serial").replace("\r", "")
        m = re.search(f"<b{mark}>\n(.*?)<e{mark} ([0-9]+)>", log, re.S)
        expect(m, log[-2000:])
        expect(code is None or int(m[2]) == code, command, m[2], m[1])
        return m[1].strip()

    def qmp(self):
        q = Qmp(pathlib.Path(os.environ["SOSIA_HOME"]), self.name)
        q.socket.settimeout(ANSWER)
        return q

    def info(self):
        with self.qmp() as q:
            return q.call("x-sosia-info")


def small_guest(folder, prog):
    """Debian's kernel and a few of its programs, all in memory but one disk."""
    def fill(root):
        add_modules(root, MODULES, APPLETS)
        copy_program("fio", "usr/bin/fio", root)
        copy_program("tcc", "usr/bin/tcc", root)
    spec = spec_of(folder, [], fill, 1)
    ok(prog, "create", "web", "--memory", "768M", "--kernel", spec["kernel"], "--initrd",
       spec["initrd"], "--cmdline", spec["cmdline"], "--disk", "32M", "--set", "engine=jit")
    ok(prog, "start", "web")
    vm = Vm(prog, "web")
    wait_text(prog, "web", PROMPT, ANSWER)
    vm.ask("/load")
    return vm, "vda", "tcc", 2000


def debian(folder, prog):
    with debian_disk("debian-dev", "2G", "gcc,libc6-dev,fio") as disk:
        ok(prog, "create", "web", "--memory", "512M", "--disk", "1M", "--disk", "32M", "--cpus", "2",
           "--set", "engine=jit")
        own = pathlib.Path(os.environ["SOSIA_HOME"]) / "vms/web/disks/disk0.qcow2"
        subprocess.run([prog, "disk", "convert", "--source-format", "raw", "--replace", str(disk),
                        str(own)], check=True, capture_output=True)
    ok(prog, "start", "web")
    vm = Vm(prog, "web")
    wait_text(prog, "web", "sosia-guest login: ", ANSWER)
    vm.type("root\r")
    wait_text(prog, "web", "root@sosia-guest:~# ", ANSWER)
    return vm, "vdb", "gcc -O1", 300


def begin(folder, prog):
    """A guest at work."""
    vm, disk, cc, functions = (debian if LONG else small_guest)(folder, prog)
    # What the kernel says is looked for in its log; between the answers it would be one of them.
    vm.ask("dmesg -n 1; stty cols 500; " + SOURCE.format(n=functions))
    vm.ask(f"({COMPILE.format(cc=cc)}) >/w/log 2>&1 & true")
    vm.ask(f"({FIO.format(disk=disk)}) >/dev/null 2>&1 & true")
    works_on(vm, disk)
    return vm, disk


def progress(vm, disk):
    """How often it has compiled, and written; nothing may be wrong."""
    said = vm.ask("cat /w/bad /fio.code 2>/dev/null; dmesg | grep -iE 'i/o error|bug:|oops|call "
                  "trace|ext4-fs error'; cat /w/count 2>/dev/null || echo 0; "
                  f"set -- $(cat /sys/block/{disk}/stat); echo $1 $5; date +%s")
    now = time.time()
    lines = said.split("\n")
    if len(lines) != 3:
        expect(False, "the guest found something wrong:", said,
               vm.ask("cat /w/log; tail -30 /fio.log", code=None))
    reads, writes = map(int, lines[1].split())
    expect(abs(now - int(lines[2])) <= 3 * SLOW + 2, "the clock is off by", int(lines[2]) - now)
    return int(lines[0]), reads, writes


def works_on(vm, disk, compiles=True):
    """It compiles, writes, and reads back what it has written."""
    before = progress(vm, disk)
    for _ in range(60):
        time.sleep(0.5)
        now = progress(vm, disk)
        if all(n > b for n, b in list(zip(now, before))[not compiles:]):
            return
    expect(False, "it stands still:", before, now)


def take(vm, rng, names, pauses):
    """Some snapshots at random moments; consoles stay, and so does the process."""
    pid = vm.info()["pid"]
    with subprocess.Popen([vm.prog, "console", vm.name], stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL) as console:
        try:
            for name in names:
                time.sleep(rng.uniform(0.2, 3))
                took = get(vm.prog, "snap", "take", vm.name, name)
                pauses.append(took["pause-ns"])
                expect(vm.info()["pid"] == pid, "another process")
            expect(console.poll() is None, "the console has gone")
        finally:
            console.kill()


def go_back(vm, top, name, engine, disk):
    """The engine is the spec's that the snapshot has."""
    spec = top / "vms" / vm.name / "snapshots" / name / "vm.yaml"
    text = re.sub("engine: *[a-z]+", f"engine: {engine}", spec.read_text())
    spec.write_text(text)
    expect(get(vm.prog, "snap", "restore", vm.name, name, "-f")["state"] == "running", name)
    with_engine(vm, engine, disk)


def with_engine(vm, engine, disk):
    expect(vm.info()["engine"] == engine, "another engine")
    # The interpreter may take a minute to compile what takes a second.
    works_on(vm, disk, compiles=engine == "jit")


def snapshots(folder, prog):
    """snapshots of a guest that works go on, by every engine"""
    sample()
    rng = random.Random(int(os.environ.get("SOSIA_TEST_SEED", "1")))
    pauses = []
    with catalog(folder, prog) as top:
        vm, disk = begin(folder, prog)
        for first in range(0, SNAPS, BATCH):
            if first:
                ok(prog, "engine", vm.name, "jit")  # of the snapshot it went back to it was the last
            names = [f"n{n}" for n in range(first, min(first + BATCH, SNAPS))]
            take(vm, rng, names, pauses)
            works_on(vm, disk)
            for n, name in enumerate(names):
                for engine in ENGINES if LONG else [ENGINES[n % len(ENGINES)]]:
                    go_back(vm, top, name, engine, disk)
            print(f"# {first + len(names)} snapshots; the guest stood still for "
                  f"{min(pauses) / 1e6:.0f} to {max(pauses) / 1e6:.0f} ms, half of them for less than "
                  f"{statistics.median(pauses) / 1e6:.0f}", flush=True)
            ok(prog, "snap", "rm", vm.name, *names)
        expect(not LONG or SANITIZED or statistics.median(pauses) < PAUSE_NS, pauses)
        ok(prog, "stop", "-f", "web")
        for image in (top / "vms/web/disks").glob("disk*.qcow2"):
            ok(prog, "disk", "check", str(image))


def suspends(folder, prog):
    """a guest that works is suspended, and goes on, by every engine"""
    sample()
    rng = random.Random(int(os.environ.get("SOSIA_TEST_SEED", "1")))
    with catalog(folder, prog):
        vm, disk = begin(folder, prog)
        for n in range(SNAPS):
            engine = ENGINES[(n + 1) % len(ENGINES)]
            time.sleep(rng.uniform(0.2, 3))
            ok(prog, "suspend", vm.name)
            ok(prog, "set", vm.name, f"engine={engine}")
            ok(prog, "start", vm.name)
            with_engine(vm, engine, disk)
        ok(prog, "stop", "-f", "web")


TESTS = [snapshots, suspends]
run_tests([t for t in TESTS if len(sys.argv) < 3 or t.__name__ in sys.argv[2:]], sys.argv[1])
