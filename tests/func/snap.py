#!/usr/bin/env python3
"""snap.py SOSIA - snapshots: of stopped VMs and of a running one, going back, removing,
differences; the tool is killed meanwhile.

SOSIA_TEST_LONG=1: killed more often.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

from guest import ANSWER, BOOT, LONG, SANITIZED, need
from kill_calls import kill_before
from tap import expect, expect_run, run_tests, sosia
from vms import Qmp, catalog, error, get, layers, make_demo, needed, nothing_left, ok, snapshots, wait_text

PROMPT = "sosia:.*# "
SIZE = 1 << 20
TIMES = 100 if LONG else 4 if SANITIZED else 8
SEED = int(os.environ.get("SOSIA_TEST_SEED", "0")) or random.randrange(1 << 30)


def put(prog, top, name, data):
    """Fills a disk, by an overlay's rules: what it rests on stays."""
    need("qemu-img")
    raw = top / "raw"
    raw.write_bytes(data)
    disk = top / "vms" / name / "disks/disk0.qcow2"
    info = subprocess.run(["qemu-img", "info", "--output=json", str(disk)], check=True,
                          capture_output=True)
    backing = json.loads(info.stdout).get("backing-filename")
    made = top / "vms" / name / "disks/.made.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(made)], check=True)
    if backing:
        subprocess.run(["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", backing, str(made)],
                       check=True)
    made.replace(disk)


def content(prog, top, name):
    """What a VM's disk reads as."""
    raw = top / "read"
    ok(prog, "disk", "convert", "--format", "raw", "--replace",
       str(top / "vms" / name / "disks/disk0.qcow2"), str(raw))
    return raw.read_bytes()


def check_images(top):
    """qemu-img finds nothing wrong with any layer."""
    need("qemu-img")
    for image in top.glob("vms/*/disks/*.qcow2"):
        run = subprocess.run(["qemu-img", "check", "-q", str(image)], capture_output=True,
                             text=True)
        expect(run.returncode == 0, image, run.stdout, run.stderr)


def fresh(prog, rng):
    """A VM with a disk of random bytes, which are returned."""
    ok(prog, "create", "web", "--memory", "32M", "--disk", "1M")
    return rng.randbytes(SIZE)


def stopped(folder, prog):
    """a stopped VM: taken, the middle one removed, back and forth; layers go when not needed"""
    rng = random.Random(1)
    with catalog(folder, prog) as top:
        fresh(prog, rng)
        data = [rng.randbytes(SIZE) for _ in range(4)]
        for n in range(3):
            put(prog, top, "web", data[n])
            expect(get(prog, "snap", "take", "web")["snapshot"] == f"s{n + 1}", "a name")
        put(prog, top, "web", data[3])
        ok(prog, "snap", "take", "web", "last")
        ok(prog, "snap", "take", "web", "same")
        expect(len(layers(top, "web")) == 4, "an untouched disk made a layer", layers(top, "web"))
        ok(prog, "snap", "rm", "web", "same")
        expect(snapshots(prog, "web") == ["last", "s1", "s2", "s3"], snapshots(prog, "web"))
        ok(prog, "snap", "rm", "web", "s2")
        rows = {s["name"]: s["parent"] for s in get(prog, "snap", "ls", "web")["snapshots"]}
        expect(rows == {"s1": None, "s3": "s1", "last": "s3"}, rows)
        expect(content(prog, top, "web") == data[3], "rm changed the disk")
        ok(prog, "set", "web", "memory=64M")
        ok(prog, "snap", "restore", "web", "s1")
        expect(content(prog, top, "web") == data[0], "s1")
        expect(get(prog, "info", "web")["memory"] == 32 << 20, "the spec")
        put(prog, top, "web", data[1])
        ok(prog, "snap", "take", "web", "branch")
        tree = ok(prog, "snap", "tree", "web").splitlines()
        expect(tree[0] == "s1 (stopped)" and tree[1].startswith("  branch (stopped)  <-")
               and tree[2] == "  s3 (stopped)" and tree[3] == "    last (stopped)", tree)
        for name, want in (("s3", 2), ("last", 3), ("branch", 1), ("s1", 0)):
            ok(prog, "snap", "restore", "web", name)
            expect(content(prog, top, "web") == data[want], name)
        check_images(top)
        ok(prog, "snap", "rm", "web", "branch", "last", "s3")
        expect(content(prog, top, "web") == data[0], "rm changed the disk")
        expect(len(layers(top, "web")) == 1, layers(top, "web"))
        ok(prog, "snap", "rm", "web", "s1")
        expect(content(prog, top, "web") == data[0] and len(layers(top, "web")) == 1, "the last")
        check_images(top)
        ok(prog, "start", "web")
        ok(prog, "stop", "-f", "web")


def differences(folder, prog):
    """diff: blocks and lines of the spec, between two and to what is now"""
    rng = random.Random(2)
    with catalog(folder, prog) as top:
        data = fresh(prog, rng)
        put(prog, top, "web", data)
        ok(prog, "snap", "take", "web", "a")
        changed = bytearray(data)
        changed[70000] ^= 1
        changed[900000] ^= 1
        put(prog, top, "web", changed)
        ok(prog, "set", "web", "cpus=3")
        for args in (["a"], ["a", "b"]):
            if "b" in args:
                ok(prog, "snap", "take", "web", "b")
            d = get(prog, "snap", "diff", "web", *args)
            expect(d["disks"] == [{"file": "disks/disk0.qcow2", "blocks": 2, "block-size": 65536,
                                   "bytes": 131072, "only-in": None}], d)
            expect(d["spec"]["added"] and "cpus: 3" in d["spec"]["added"][0], d)
        expect("2 blocks" in ok(prog, "snap", "diff", "web", "a", "b"), "as text")
        expect(get(prog, "snap", "diff", "web", "b", "b")["disks"][0]["blocks"] == 0, "none")


def refusals(folder, prog):
    """what cannot be: exit codes and messages; a missing layer; disks elsewhere"""
    with catalog(folder, prog) as top:
        ok(prog, "create", "web", "--memory", "32M", "--disk", "1M")
        error(prog, 2, "usage", "snap", "take")
        error(prog, 2, "usage", "snap", "tak", "web")
        error(prog, 2, "usage", "snap", "take", "web", "../x")
        error(prog, 2, "usage", "snap", "restore", "web")
        error(prog, 3, "not-found", "snap", "restore", "web", "s1")
        error(prog, 3, "not-found", "snap", "rm", "web", "s1")
        error(prog, 3, "not-found", "snap", "ls", "nobody")
        ok(prog, "snap", "take", "web")
        error(prog, 4, "state", "snap", "take", "web", "s1")
        ok(prog, "start", "web")
        error(prog, 4, "state", "snap", "restore", "web", "s1")
        error(prog, 4, "state", "snap", "diff", "web", "s1")
        expect(get(prog, "snap", "restore", "web", "s1", "-f")["state"] == "stopped", "-f")
        file = top / "vms/web/snapshots/s1/snapshot.json"
        good = file.read_text()
        for bad in ("", "[]", "{}", good.replace("layer-", "../../layer-"),
                    good.replace("1,", "9,", 1)):
            file.write_text(bad)
            expect(sosia(prog, "snap", "restore", "web", "s1").code in (6, 8), bad)
            expect("damaged" in ok(prog, "snap", "ls", "web"), bad)
        file.write_text(good)
        layer = top / "vms/web/disks" / layers(top, "web")[0]
        layer.rename(top / "away")
        error(prog, 8, "integrity", "snap", "restore", "web", "s1")
        (top / "away").rename(layer)
        ok(prog, "snap", "restore", "web", "s1")
        shutil.copy(layer, top / "own.qcow2")
        ok(prog, "create", "b", "--memory", "32M", "--disk", str(top / "own.qcow2"))
        error(prog, 4, "state", "snap", "take", "b")
        ok(prog, "start", "b")
        pid = get(prog, "info", "b")["pid"]
        error(prog, 4, "state", "snap", "take", "b")
        expect(get(prog, "info", "b")["pid"] == pid, "it was disturbed for nothing")
        ok(prog, "start", "web")
        ok(prog, "set", "web", "memory=64M")
        os.utime(top / "vms/web/vm.yaml", (time.time() + 9, time.time() + 9))
        expect("restart" in error(prog, 4, "state", "snap", "take", "web", "late"), "another spec")
        expect(get(prog, "info", "web")["state"] == "running", "suspended for nothing")


def replaced(folder, prog):
    """layers that a take sweeps, behind a killed verb and a disk put in place, are not missed later"""
    with catalog(folder, prog) as top:
        ok(prog, "create", "web", "--memory", "32M", "--disk", "1M")
        ok(prog, "snap", "take", "web", "one")
        disk, taken = top / "vms/web/disks/disk0.qcow2", top / "vms/web/snapshots"
        old = layers(top, "web")
        ok(prog, "disk", "create", str(top / "own.qcow2"), "1M")
        (top / "own.qcow2").replace(disk)
        (taken / "one").rename(taken / ".gone-12345678")
        ok(prog, "snap", "take", "web", "two")
        expect(not set(old) & set(layers(top, "web")), "not swept")
        ok(prog, "snap", "take", "web", "three")
        ok(prog, "start", "web")


def clones(folder, prog):
    """linked clones keep what they rest on when the snapshots go"""
    rng = random.Random(3)
    with catalog(folder, prog) as top:
        data = fresh(prog, rng)
        put(prog, top, "web", data)
        ok(prog, "snap", "take", "web", "a")
        ok(prog, "clone", "web", "c", "--linked")
        put(prog, top, "web", rng.randbytes(SIZE))
        ok(prog, "snap", "take", "web", "b")
        ok(prog, "start", "web")
        ok(prog, "clone", "web@a", "d", "--linked")
        ok(prog, "stop", "-f", "web")
        error(prog, 2, "usage", "clone", "web@a", "f")
        error(prog, 3, "not-found", "clone", "web@x", "f", "--linked")
        expect(content(prog, top, "d") == data, "the clone of a snapshot")
        uuids = {v["uuid"] for v in get(prog, "ls")["vms"]}
        expect(len(uuids) == 3, uuids)
        ok(prog, "snap", "rm", "web", "a", "b")
        expect(content(prog, top, "c") == data, "the clone has changed")
        ok(prog, "rm", "web", "--purge")
        expect(content(prog, top, "c") == data, "the clone has changed")
        expect(content(prog, top, "d") == data, "the clone of a snapshot has changed")
        ok(prog, "start", "d")
        ok(prog, "stop", "-f", "d")
        check_images(top)


def typed(prog, name, text):
    expect_run(sosia(prog, "console", name, stdin=text + "\x01x"), 0)


def running(folder, prog):
    """a running VM: it goes on; restored, it is where it was, memory and disk"""
    with catalog(folder, prog) as top:
        make_demo(prog, "web", "--disk", "16M")
        ok(prog, "start", "web")
        wait_text(prog, "web", PROMPT, BOOT)
        typed(prog, "web", "n=1; while :; do echo $n | dd of=/dev/vda conv=fsync,sync; "
              "n=$((n + 1)); sleep 0.05; done 2>/tmp/log & sleep 1; tail -1 /tmp/log\r")
        typed(prog, "web", "x=$((6 * 7))\r")
        wait_text(prog, "web", "records out", ANSWER)
        pid = get(prog, "info", "web")["pid"]
        expect(get(prog, "snap", "take", "web", "one")["state"] == "running", "it does not go on")
        expect(get(prog, "info", "web")["pid"] == pid, "it goes on as another process")
        raw = top / "layer.raw"
        layer = top / "vms/web/disks" / layers(top, "web")[0]
        ok(prog, "disk", "convert", "--format", "raw", str(layer), str(raw))
        with open(raw, "rb") as f:
            expect(int(f.read(512).split(b"\n")[0]) > 0, "the guest's writes are not in the layer")
        typed(prog, "web", "echo a${x}b; x=0\r")
        wait_text(prog, "web", "a42b", ANSWER)
        ok(prog, "pause", "web")
        error(prog, 4, "state", "snap", "take", "web")
        ok(prog, "resume", "web")
        expect(get(prog, "snap", "restore", "web", "one", "-f")["state"] == "running", "restore")
        typed(prog, "web", "echo c${x}d\r")
        wait_text(prog, "web", "c42d", ANSWER)
        ok(prog, "snap", "rm", "web", "one")
        ok(prog, "suspend", "web")
        ok(prog, "snap", "take", "web", "two")
        error(prog, 4, "state", "snap", "restore", "web", "two")
        expect(get(prog, "snap", "restore", "web", "two", "-f")["state"] == "suspended", "two")
        ok(prog, "start", "web")
        typed(prog, "web", "echo e${x}f\r")
        wait_text(prog, "web", "e42f", ANSWER)
        ok(prog, "stop", "-f", "web")
        check_images(top)


def begins_with(prog, image, text):
    raw = image.with_suffix(".raw")
    ok(prog, "disk", "convert", "--format", "raw", str(image), str(raw))
    with open(raw, "rb") as f:
        expect(f.read(512).split(b"\n")[0] == text, image)


def one_disk(folder, prog):
    """blockdev-snapshot-sync: from one instant on the overlay that a client has made is the disk"""
    with catalog(folder, prog) as top:
        make_demo(prog, "web", "--disk", "16M")
        ok(prog, "start", "web")
        wait_text(prog, "web", PROMPT, BOOT)
        write = "echo {} | dd of=/dev/vda conv=fsync,sync 2>/dev/null; echo {}'ly'\r"
        typed(prog, "web", write.format("first", "first"))
        wait_text(prog, "web", "firstly", ANSWER)
        over = top / "vms/web/disks/over.qcow2"
        ok(prog, "disk", "create", str(over), "16M", "--backing", "disk0.qcow2", "--backing-format", "qcow2")
        with Qmp(top, "web") as q, open(over, "r+b") as f:
            def ask(files, **args):
                message = {"execute": "blockdev-snapshot-sync", "arguments": args}
                socket.send_fds(q.socket, [json.dumps(message).encode() + b"\n"], files)
                return q.answer()
            fd = f.fileno()
            for files, args in (([], {"device": "disk0"}), ([fd, fd], {"device": "disk0"}), ([fd], {}),
                                ([fd], {"device": "disk1"}),
                                ([fd], {"device": "disk0", "format": "raw"}),
                                ([fd], {"device": "disk0", "mode": "absolute-paths"})):
                expect("error" in ask(files, **args), files, args)
            done = ask([fd], device="disk0", mode="existing", format="qcow2", **{"snapshot-file": "over"})
            expect(done == {"return": {}}, done)
        typed(prog, "web", write.format("second", "second"))
        wait_text(prog, "web", "secondly", ANSWER)
        ok(prog, "stop", "-f", "web")
        begins_with(prog, top / "vms/web/disks/disk0.qcow2", b"first")
        begins_with(prog, over, b"second")


def kill_amid(prog, rng, took, *args):
    """Runs a verb and kills it at a random point; `took`: seconds, or None to let it end."""
    start = time.monotonic()
    with subprocess.Popen([prog, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        if took:
            time.sleep(rng.uniform(0, took * 1.1))
            p.send_signal(signal.SIGKILL)
        p.wait()
    return time.monotonic() - start


def killed(folder, prog):
    """take, restore, rm: killed at any point: disks as they were, nothing left over"""
    rng = random.Random(SEED)
    with catalog(folder, prog) as top:
        fresh(prog, rng)
        data = {}
        took = took_rm = took_back = None
        for n in range(TIMES):
            now = rng.randbytes(SIZE)
            put(prog, top, "web", now)
            used = kill_amid(prog, rng, took, "snap", "take", "web", f"k{n}")
            took = took or used
            where = f"round {n} seed {SEED}"
            expect(content(prog, top, "web") == now, where, "the disk has changed")
            if f"k{n}" in snapshots(prog, "web"):
                data[f"k{n}"] = now
            expect(set(snapshots(prog, "web")) == set(data), where, snapshots(prog, "web"))
            back = rng.choice(sorted(data))
            used = kill_amid(prog, rng, took_back, "snap", "restore", "web", back)
            took_back = took_back or used
            if sosia(prog, "clone", "web", f"c{n}", "--full").code:
                ok(prog, "snap", "restore", "web", back)
                now = data[back]
            expect(content(prog, top, "web") in (now, data[back]), where, "neither nor")
            if len(data) > 2:
                gone = rng.choice(sorted(data))
                used = kill_amid(prog, rng, took_rm, "snap", "rm", "web", gone)
                took_rm = took_rm or used
                if gone not in snapshots(prog, "web"):
                    del data[gone]
        for name, want in data.items():
            ok(prog, "snap", "restore", "web", name)
            expect(content(prog, top, "web") == want, name)
        check_images(top)
        nothing_left(prog, top, "web", "seed", SEED)


def fill(top, byte):
    """All of the disk is this byte; by an overlay's rules."""
    need("qemu-io")
    run = subprocess.run(["qemu-io", "-c", f"write -q -P {byte} 0 {SIZE}",
                          str(top / "vms/web/disks/disk0.qcow2")], capture_output=True, text=True)
    expect(run.returncode == 0 and not run.stdout, run.stdout, run.stderr)


def each_instant(folder, prog):
    """take, restore, rm: killed before each call that changes a file: the next verb clears up"""
    verbs = {"take": ["new"], "restore": ["a"], "rm": ["b"]}
    step = 1 if LONG else 16 if SANITIZED else 4
    with catalog(folder, prog) as top:
        for verb, args in verbs.items():
            n, code = SEED % step + 1, None
            while code is None:
                ok(prog, "create", "web", "--memory", "32M", "--disk", "1M")
                where = f"snap {verb} killed before call {n}:"
                for byte, name in ((1, "a"), (2, "b")):
                    fill(top, byte)
                    ok(prog, "snap", "take", "web", name)
                fill(top, 3)
                code = kill_before(n, prog, "snap", verb, "web", *args)
                expect(not code, where, "exit", code)
                expect(content(prog, top, "web")[0] in ((1, 3) if verb == "restore" else (3,)), where)
                follows = ("take", "restore", "rm")[n // step % 3]
                if sosia(prog, "snap", follows, "web", "c" if follows == "take" else "a").code:
                    expect(verb == "restore", where, "then", follows)
                    ok(prog, "snap", "restore", "web", "a")
                hidden = list((top / "vms/web/snapshots").glob(".*"))
                expect(not hidden, where, "not cleared up:", hidden)
                nothing_left(prog, top, "web", where)
                ok(prog, "rm", "web", "--purge")
                n += step


def killed_running(folder, prog):
    """take of a running VM: killed at any point: the same process goes on, or from what was taken"""
    rng = random.Random(5)
    with catalog(folder, prog) as top:
        ok(prog, "create", "web", "--memory", "32M", "--disk", "1M")
        ok(prog, "start", "web")
        pid = get(prog, "info", "web")["pid"]
        took = kill_amid(prog, rng, None, "snap", "take", "web", "first")
        for n in range(TIMES):
            kill_amid(prog, rng, took, "snap", "take", "web", f"k{n}")
            expect(get(prog, "info", "web")["pid"] == pid, "it was disturbed")
        for name in snapshots(prog, "web"):
            expect(get(prog, "snap", "restore", "-f", "web", name)["state"] == "running", name)
        ok(prog, "stop", "-f", "web")
        check_images(top)


TESTS = [stopped, differences, refusals, replaced, clones, running, one_disk, killed, each_instant, killed_running]
run_tests([t for t in TESTS if len(sys.argv) < 3 or t.__name__ in sys.argv[2:]], sys.argv[1])
