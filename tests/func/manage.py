#!/usr/bin/env python3
"""manage.py SOSIA - VMs of a catalog that run: start, stop, pause, console, logs, wait, clones, and what
is seen of a VM whose process dies."""

import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import time

from guest import ANSWER, BOOT, LONG, SANITIZED
from tap import expect, expect_run, run_tests, sosia
from vms import Qmp, catalog, error, get, make_demo, ok, wait_text

PROMPT = "sosia:.*# "


def typed(prog, name, text):
    """Sends text to the console, which is left with Ctrl-A x."""
    r = sosia(prog, "console", name, stdin=text + "\x01x")
    expect_run(r, 0)
    return r.out


def life(folder, prog):
    """start, console, pause, reset, logs; the guest powers off: stopped"""
    with catalog(folder, prog) as top:
        make_demo(prog, "web")
        error(prog, 4, "state", "stop", "web")
        error(prog, 4, "state", "pause", "web")
        expect(get(prog, "start", "web")["state"] == "running", "start")
        error(prog, 4, "state", "start", "web")
        for args in (["rename", "web", "b"], ["rm", "web"], ["clone", "web", "b"]):
            error(prog, 4, "state", *args)
        info = get(prog, "info", "web")
        stat_line = pathlib.Path(f"/proc/{info['pid']}/stat").read_text().rsplit(")", 1)[1].split()
        expect(int(stat_line[3]) == info["pid"], "it is in our session")
        for thread in pathlib.Path(f"/proc/{info['pid']}/task").iterdir():
            status = (thread / "status").read_text()
            expect(SANITIZED or ("Seccomp:\t2" in status and "NoNewPrivs:\t1" in status),
                   "a thread outside the sandbox", status)
        wait_text(prog, "web", PROMPT, BOOT)
        typed(prog, "web", "echo a$((6 * 7))b\r")
        wait_text(prog, "web", "a42b", ANSWER)
        expect("a42b" in ok(prog, "logs", "--serial", "web"), "logs --serial")
        expect(ok(prog, "logs", "web").startswith("sosia: web: a pc with"), ok(prog, "logs", "web"))
        expect(len(ok(prog, "logs", "-n", "2", "web").splitlines()) == 2, "logs -n")
        mode = stat.S_IMODE(os.stat(top / "vms/web/logs/serial.log").st_mode)
        expect(mode == 0o600, oct(mode))
        expect(get(prog, "pause", "web")["state"] == "paused", "pause")
        expect("paused" in error(prog, 4, "state", "stop", "web"), "stop while paused")
        expect(get(prog, "resume", "web")["state"] == "running", "resume")
        ok(prog, "engine", "web", "interp")
        error(prog, 4, "state", "engine", "web", "warp")
        follower = subprocess.Popen([prog, "events", "-f", "web"], stdout=subprocess.PIPE, text=True)
        typed(prog, "web", "poweroff\r")
        ok(prog, "wait", "web", "--timeout", str(ANSWER))
        seen = [json.loads(line)["event"] for line in follower.communicate(timeout=ANSWER)[0].splitlines()]
        expect(seen == ["STOP", "RESUME", "X_SOSIA_ENGINE", "SHUTDOWN"], seen)
        after = get(prog, "info", "web")
        expect((after["state"], after["pid"], after["reason"]) == ("stopped", None, "power-off"), after)
        ok(prog, "start", "web")
        ok(prog, "stop", "web", "--timeout", str(BOOT + 40))  # it does not hear the first press


def stops(folder, prog):
    """stop: a guest that does not listen: exit 7; -f pulls the plug; restart"""
    with catalog(folder, prog):
        ok(prog, "create", "web", "--memory", "32M")
        ok(prog, "start", "web")
        expect("stop -f" in error(prog, 7, "timeout", "stop", "web", "--timeout", "0.3"), "timeout")
        error(prog, 7, "timeout", "wait", "web", "--timeout", "0.2")
        error(prog, 7, "timeout", "wait", "web", "--for", "text:never", "--timeout", "0.2")
        error(prog, 2, "usage", "wait", "web", "--for", "text:(")
        error(prog, 2, "usage", "wait", "web", "--for", "xmas")
        ok(prog, "wait", "web", "--for", "running")
        before = get(prog, "info", "web")["pid"]
        expect(get(prog, "restart", "-f", "web")["state"] == "running", "restart")
        expect(get(prog, "info", "web")["pid"] != before, "the same process")
        ok(prog, "reset", "web")
        expect(get(prog, "stop", "-f", "web")["state"] == "stopped", "stop -f")
        error(prog, 4, "state", "wait", "web", "--for", "text:never")
        # One that hears nothing any more.
        ok(prog, "start", "web")
        os.kill(get(prog, "info", "web")["pid"], signal.SIGSTOP)
        run = subprocess.run([prog, "stop", "-f", "web"], timeout=60, capture_output=True, text=True)
        expect(run.returncode == 0, run)


def several(folder, prog):
    """several VMs at once: each has its turn, also behind one that fails"""
    with catalog(folder, prog):
        for name in ("one", "two", "three"):
            ok(prog, "create", name, "--memory", "32M")
        r = sosia(prog, "start", "one", "none", "two")
        expect(r.code == 3 and "none" in r.err and "two is running" in r.err, r.code, r.err)
        r = sosia(prog, "pause", "two", "three", "one", "--json")
        told = json.loads(r.out)["vms"]
        expect(r.code == 4 and [t["name"] for t in told] == ["two", "three", "one"], r.code, told)
        expect([t.get("state") for t in told] == ["paused", None, "paused"], told)
        expect(told[1]["error"]["code"] == "state", told)
        ok(prog, "resume", "one", "two")
        ok(prog, "reset", "one", "two")
        error(prog, 2, "usage", "start", "-c", "three", "one")
        told = get(prog, "restart", "-f", "one", "two")["vms"]
        expect([t["state"] for t in told] == ["running"] * 2, told)
        ok(prog, "suspend", "one", "two")
        ok(prog, "start", "one", "two", "three")
        ok(prog, "stop", "-f", "one", "two", "three")
        expect({vm["state"] for vm in get(prog, "ls")["vms"]} == {"stopped"}, get(prog, "ls"))


def crashes(folder, prog):
    """a VMM that dies is noticed, with the reason; it can be started again"""
    with catalog(folder, prog) as top:
        ok(prog, "create", "web", "--memory", "32M")
        for sig, word in ((signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"),
                          (signal.SIGKILL, "SIGKILL")):
            if SANITIZED and sig == signal.SIGSEGV:
                continue  # the sanitizer takes it
            ok(prog, "start", "web")
            pid = get(prog, "info", "web")["pid"]
            with Qmp(top, "web") as q:
                os.kill(pid, sig)
                expect(q.file.readline() == b"", "the connection stays")
            ok(prog, "wait", "web", "--timeout", "20")
            info = get(prog, "info", "web")
            expect(info["state"] == "crashed" and word in info["reason"], info)
            expect(re.search(r"^web +crashed", ok(prog, "ls"), re.M), "ls")
        run = json.loads((top / "vms/web/run.json").read_text())
        (top / "vms/web/run.json").write_text(json.dumps(dict(run, boot="another")))
        expect("host" in get(prog, "info", "web")["reason"], get(prog, "info", "web"))
        ok(prog, "start", "web")
        ok(prog, "stop", "-f", "web")
        expect(get(prog, "info", "web")["state"] == "stopped", "after a crash")


def in_front(folder, prog):
    """run: a VM of the catalog in this terminal is alive to the other verbs"""
    with catalog(folder, prog):
        ok(prog, "create", "web", "--memory", "32M")
        with subprocess.Popen([prog, "run", "web"], stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL) as p:
            ok(prog, "wait", "web", "--for", "running", "--timeout", "20")
            expect(get(prog, "info", "web")["pid"] == p.pid, "another process")
            error(prog, 4, "state", "start", "web")
            error(prog, 4, "state", "rm", "web")
            expect_run(sosia(prog, "run", "web"), 1, err="runs already")
            p.stdin.write(b"\x01x")
            p.stdin.close()
        expect(p.returncode == 0, p.returncode)
        expect(get(prog, "info", "web")["state"] == "stopped", get(prog, "info", "web"))


def suspends(folder, prog):
    """suspend: the guest goes on where it was, even if the tool or the VMM dies before it does"""
    with catalog(folder, prog) as top:
        make_demo(prog, "web", "--disk", "16M")
        error(prog, 4, "state", "suspend", "web")
        ok(prog, "start", "web")
        wait_text(prog, "web", PROMPT, BOOT)
        typed(prog, "web", "x=$((6 * 7))\r")
        expect(get(prog, "suspend", "web")["state"] == "suspended", "suspend")
        expect(get(prog, "info", "web")["pid"] is None, "it lives")
        error(prog, 4, "state", "clone", "web", "b", "--full")
        error(prog, 4, "state", "stop", "web")
        ok(prog, "rename", "web", "www")
        state = top / "vms/www/suspended.state"
        saved = state.read_bytes()
        state.write_bytes(saved[:len(saved) // 2])
        r = sosia(prog, "start", "www")
        expect(r.code == 1 and "suspended.state" in r.err, r.code, r.err)
        expect(get(prog, "info", "www")["state"] == "suspended", "a failure to go on lost the state")
        state.write_bytes(saved)
        ok(prog, "start", "www")
        typed(prog, "www", "echo a${x}b\r")
        wait_text(prog, "www", "a42b", ANSWER)
        ok(prog, "pause", "www")
        ok(prog, "suspend", "www")
        ok(prog, "start", "www")
        typed(prog, "www", "echo c${x}d\r")
        wait_text(prog, "www", "c42d", ANSWER)
        ok(prog, "suspend", "www")
        expect(get(prog, "stop", "-f", "www")["state"] == "stopped", "stop -f")
        expect(not state.exists(), "the state is left")
        ok(prog, "start", "www")
        ok(prog, "stop", "-f", "www")


def other_disk(folder, prog):
    """a suspended VM whose disk or machine was changed meanwhile does not go on, and says what to do"""
    with catalog(folder, prog) as top:
        web = top / "vms/web"
        disk = web / "disks/disk0.qcow2"
        ok(prog, "create", "web", "--memory", "32M", "--disk", "1M")
        ok(prog, "start", "web")
        ok(prog, "suspend", "web")
        whole = pathlib.Path(folder) / "backup"
        subprocess.run(["cp", "-a", str(web), str(whole)], check=True)

        def refused(code, word, part):
            told = error(prog, code, word, "start", "web")
            expect(part in told and "sosia stop -f web" in told, told)
            expect(get(prog, "info", "web")["state"] == "suspended", "the state is lost")

        def put_back():
            subprocess.run(["rm", "-r", str(web)], check=True)
            subprocess.run(["cp", "-a", str(whole), str(web)], check=True)

        with open(disk, "r+b") as f:
            f.write(b"QFI")
        refused(8, "integrity", "disks/disk0.qcow2")
        error(prog, 8, "integrity", "snap", "take", "web")
        put_back()
        state = (web / "suspended.state").read_bytes()
        (web / "suspended.state").write_bytes(state[:1000])
        expect(sosia(prog, "start", "web").code == 1, "half a state")
        (web / "suspended.state").write_bytes(state)
        disk.rename(top / "old")
        ok(prog, "disk", "create", str(disk), "1M")
        refused(8, "integrity", "disks/disk0.qcow2")
        (top / "old").rename(disk)
        expect("32M" in error(prog, 4, "state", "set", "web", "memory=64M"), "set")
        ok(prog, "set", "web", "engine=interp")
        spec = (web / "vm.yaml").read_text()
        for old, new, part in (("memory: 32M", "memory: 64M", '"memory: 32M"'),
                               ('"disks/disk0.qcow2"', "{file: disks/disk0.qcow2, bus: ide}", "bus: virtio")):
            (web / "vm.yaml").write_text(spec.replace(old, new))
            refused(4, "state", part)
        (web / "vm.yaml").write_text(spec)
        ok(prog, "snap", "take", "web", "s")  # an empty overlay
        ok(prog, "start", "web")
        expect(get(prog, "snap", "restore", "-f", "web", "s")["state"] == "suspended", "restore")
        ok(prog, "start", "web")
        ok(prog, "suspend", "web")
        (web / "vm.yaml").write_text(spec.replace("memory: 32M", "memory: 64M"))
        ok(prog, "stop", "-f", "web")
        ok(prog, "start", "web")


def cannot_start(folder, prog):
    """what keeps a VM from starting is told by start, with its exit code"""
    with catalog(folder, prog) as top:
        ok(prog, "create", "a", "--memory", "32M", "--disk", "1M")
        (top / "vms/a/disks/disk0.qcow2").rename(top / "d")
        error(prog, 2, "spec", "start", "a")
        (top / "vms/a/disks/disk0.qcow2").write_bytes(b"QFI\xfb" + b"\xff" * 600)
        r = sosia(prog, "start", "a")
        expect(r.code == 1 and "disk0.qcow2" in r.err, r.code, r.err)
        expect(get(prog, "info", "a")["state"] == "crashed", get(prog, "info", "a"))
        os.rename(top / "d", top / "vms/a/disks/disk0.qcow2")
        ok(prog, "create", "b", "--memory", "32M", "--disk", str(top / "vms/a/disks/disk0.qcow2"))
        ok(prog, "start", "a")
        r = sosia(prog, "start", "b")
        expect(r.code == 4 and "uses it" in r.err, r.code, r.err)
        (top / "vms/a/run.json").unlink()
        expect(get(prog, "info", "a")["state"] == "running", "without its record")
        ok(prog, "stop", "-f", "a")


def clones(folder, prog):
    """clones: linked ones share a layer and go their own ways; a missing layer: exit 8"""
    with catalog(folder, prog) as top:
        vms = top / "vms"
        ok(prog, "create", "web", "--memory", "32M", "--disk", "64M")
        disk = vms / "web/disks/disk0.qcow2"
        fill = ["disk", "bench", "--mode", "write", "--duration", "1", "--destroy-contents"]
        ok(prog, *fill, str(disk))
        content = ["disk", "convert", "--format", "raw"]

        def read(name):
            raw = pathlib.Path(folder) / f"{name}.raw"
            ok(prog, *content, "--replace", str(vms / name / "disks/disk0.qcow2"), str(raw))
            return raw.read_bytes()

        first = read("web")
        expect(any(first), "the disk is empty")
        for n in range(3):
            expect(get(prog, "clone", "web", f"l{n}", "--linked")["name"] == f"l{n}", "clone")
        layers = {p.stat().st_ino for name in ("web", "l0", "l1", "l2")
                  for p in (vms / name / "disks").glob("layer-*")}
        expect(len(layers) == 1, "untouched disks make no new layers", layers)
        expect(all(read(n) == first for n in ("web", "l0", "l2")), "another content")
        uuids = {v["uuid"] for v in get(prog, "ls")["vms"]}
        expect(len(uuids) == 4, uuids)
        ok(prog, *fill, str(disk))
        ok(prog, "clone", "web", "f", "--full")
        expect(not list((vms / "f/disks").glob("layer-*")), "a full clone has layers")
        second = read("web")
        expect(second != first and read("f") == second and read("l1") == first, "mixed up")
        ok(prog, "clone", "web", "l3", "--linked")
        ok(prog, "clone", "l3", "l4", "--linked")
        expect(read("l4") == second, "a clone of a clone")
        ok(prog, "rm", "--purge", "web", "l3", "f")
        expect(read("l4") == second and read("l0") == first, "removing a VM took something")
        for name in ("l0", "l4"):
            ok(prog, "start", name)
        ok(prog, "stop", "-f", "l0")
        ok(prog, "stop", "-f", "l4")
        next((vms / "l1/disks").glob("layer-*")).unlink()
        expect("layer" in error(prog, 8, "integrity", "start", "l1"), "a missing layer")
        ok(prog, "start", "l2")
        outside = pathlib.Path(folder) / "out.img"
        outside.write_bytes(b"x" * 4096)
        ok(prog, "create", "o", "--disk", str(outside))
        expect("--full" in error(prog, 4, "state", "clone", "o", "p", "--linked"), "a disk outside")
        ok(prog, "clone", "o", "p", "--full")
        copy = pathlib.Path(get(prog, "info", "p")["disks"][0]["file"])
        expect(copy.parent == vms / "p/disks" and copy.read_bytes() == outside.read_bytes(), copy)


def keyboard(folder, prog):
    """screen, type, key: a person in front of the VM, whose firmware finds nothing to boot"""
    with catalog(folder, prog):
        ok(prog, "create", "web", "--memory", "32M")
        ok(prog, "start", "web")
        end = time.monotonic() + ANSWER
        while "bootable" not in ok(prog, "screen", "web", "--text"):
            expect(time.monotonic() < end, ok(prog, "screen", "web"))
            time.sleep(0.2)
        expect("bootable" in get(prog, "screen", "web")["text"], "--json")
        ok(prog, "type", "web", "Hello, World! 1+2=3\n")
        ok(prog, "key", "web", "shift-a", "ret")
        error(prog, 4, "state", "key", "web", "any")
        expect("US keyboard" in error(prog, 4, "state", "type", "web", "\u00e4"), "type")


def follows(folder, prog):
    """logs -f goes on until the VM ends; start -c shows the console"""
    with catalog(folder, prog):
        make_demo(prog, "web")
        shown = subprocess.Popen([prog, "start", "-c", "web"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        ok(prog, "wait", "web", "--for", "running", "--timeout", str(ANSWER))
        wait_text(prog, "web", PROMPT, BOOT)
        follower = subprocess.Popen([prog, "logs", "-f", "--serial", "web"], stdout=subprocess.PIPE)
        shown.stdin.write(b"echo x$((40 + 2))y; poweroff\r")
        shown.stdin.flush()
        for p in (shown, follower):
            out = p.communicate(timeout=ANSWER + 30)[0]
            expect(b"x42y" in out and p.returncode == 0, p.args, p.returncode, out[-300:])


TESTS = [life, in_front, stops, several, crashes, cannot_start, clones, suspends, other_disk, keyboard, follows]
TESTS = TESTS if LONG or not SANITIZED else TESTS[:9]
run_tests([t for t in TESTS if len(sys.argv) < 3 or t.__name__ in sys.argv[2:]], sys.argv[1])
