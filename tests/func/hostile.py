#!/usr/bin/env python3
"""hostile.py SOSIA - a host that does not play along: a full file system, one that cannot be written,
folders of others, limits. Each verb says what failed, why, and what to do; nothing is lost, and a VM
that runs meanwhile goes on."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import stat
import subprocess
import sys

from guest import ANSWER, BOOT, SANITIZED
from tap import Skip, expect, expect_run, run_tests, sosia
from vms import Qmp, catalog, error, get, home, make_demo, ok, wait_text

PROMPT = "sosia:.*# "
OTHER = 54321  # a user that has no name


@contextlib.contextmanager
def mounted(path, *args):
    """A mount at `path`; only root can."""
    if os.geteuid() != 0:
        raise Skip("not root: nothing can be mounted")
    run = subprocess.run(["mount", *args, str(path)], capture_output=True, text=True)
    if run.returncode:
        raise Skip("cannot mount: " + run.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def need_setpriv():
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        raise Skip("not root, or no setpriv: nobody else can be played")


def as_other(prog, *args):
    run = subprocess.run(["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups",
                          os.path.abspath(prog), *args], capture_output=True, text=True, cwd="/")
    return run


def unharmed(top, name):
    """It runs, and its clock goes on."""
    with Qmp(top, name) as q:
        before = q.call("x-sosia-info")["time-ns"]
        expect(q.call("query-status")["running"], "it does not run")
        expect(q.call("x-sosia-info")["time-ns"] > before, "its time stands")


@contextlib.contextmanager
def filled(top):
    """Not a byte is left on the file system, as long as this lasts."""
    fill = os.open(top / "fill", os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 4096, 1):
        with contextlib.suppress(OSError):
            while os.write(fill, b"x" * size):
                pass
    os.close(fill)
    try:
        yield
    finally:
        (top / "fill").unlink()


def typed(prog, name, text):
    expect_run(sosia(prog, "console", name, stdin=text + "\x01x"), 0)


def full(folder, prog):
    """a full file system: every verb says so, the guest gets errors and goes on"""
    top = home(folder)
    top.mkdir()
    with mounted(top, "-t", "tmpfs", "-o", "size=192m", "tmpfs"), catalog(folder, prog):
        make_demo(prog, "web", "--disk", "32M")
        ok(prog, "create", "off", "--disk", "1M")
        (top / "raw").write_bytes(os.urandom(1 << 20))
        ok(prog, "disk", "convert", "--replace", "--source-format", "raw", str(top / "raw"),
           str(top / "vms/off/disks/disk0.qcow2"))
        ok(prog, "start", "web")
        wait_text(prog, "web", PROMPT, BOOT)
        with filled(top):
            for args in (["create", "b"], ["clone", "off", "b", "--full"],
                         ["clone", "off", "b", "--linked"], ["snap", "take", "off"],
                         ["set", "off", "cpus=2"], ["suspend", "web"], ["start", "off"],
                         ["disk", "create", str(top / "d.qcow2"), "1G"]):
                r = sosia(prog, *args)
                expect(r.code in (1, 4) and "No space left" in r.err and "make room" in r.err,
                       args, r.code, r.err)
                unharmed(top, "web")
            typed(prog, "web", "dd if=/dev/urandom of=/dev/vda bs=64k count=16 conv=fsync; echo dd-e''nd\r")
            wait_text(prog, "web", "dd-end", ANSWER)
            expect("error" in ok(prog, "logs", "--serial", "web"), "the guest was not told")
            log = ok(prog, "logs", "web")
            expect(log.count("No space left") == 1 and "disk0.qcow2" in log, log)
            unharmed(top, "web")
        typed(prog, "web", "dd if=/dev/urandom of=/dev/vda bs=64k count=16 conv=fsync && echo dd-w''ell\r")
        wait_text(prog, "web", "dd-well", ANSWER)
        names = ok(prog, "ls", "-q").split()
        expect(names == ["off", "web"], names)
        expect(get(prog, "snap", "ls", "off")["snapshots"] == [], "half a snapshot")
        ok(prog, "suspend", "web")
        ok(prog, "start", "web")
        unharmed(top, "web")
        ok(prog, "stop", "-f", "web")
        ok(prog, "disk", "check", str(top / "vms/web/disks/disk0.qcow2"))
        ok(prog, "start", "off")


def readonly(folder, prog):
    """a file system that cannot be written: looking works, changing is refused: exit 5"""
    with catalog(folder, prog) as top:
        ok(prog, "create", "web", "--memory", "32M", "--disk", "1M")
        ok(prog, "create", "off", "--memory", "32M", "--disk", "1M")
        ok(prog, "start", "web")
        other = pathlib.Path(folder) / "ro"
        other.mkdir()
        with mounted(other, "--bind", str(top)):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(other)], check=True)
            os.environ["SOSIA_HOME"] = str(other)
            expect([v["state"] for v in get(prog, "ls")["vms"]] == ["stopped", "running"], "ls")
            expect(get(prog, "info", "web")["state"] == "running", "info")
            for args in (["create", "b"], ["set", "off", "cpus=2"], ["rename", "off", "b"],
                         ["rm", "off"], ["clone", "off", "b"], ["snap", "take", "off"],
                         ["start", "off"]):
                told = error(prog, 5, "permission", *args)
                expect("Read-only" in told and "mount it writable" in told, args, told)
            os.environ["SOSIA_HOME"] = str(top)
        unharmed(top, "web")


def others(folder, prog):
    """another user's catalog, and files that may not be read: exit 5, the rest works"""
    need_setpriv()
    top = home(folder)
    os.chmod(folder, 0o755)
    os.mkdir(top, 0o700)
    ok(prog, "create", "mine")
    for args in (["ls"], ["create", "b"], ["start", "mine"], ["info", "mine"]):
        r = as_other(prog, *args)
        expect(r.returncode == 5 and "Permission denied" in r.stderr and "another user" in r.stderr,
               args, r)
    os.chmod(top, 0o755)
    state = top / "vms/mine/state.json"
    ok(prog, "create", "good")
    os.chmod(state, 0)
    r = as_other(prog, "ls", "--json")
    vms = {v["name"]: v for v in json.loads(r.stdout)["vms"]}
    expect("state.json" in vms["mine"]["problem"] and vms["good"]["problem"] is None, vms)
    r = as_other(prog, "snap", "ls", "mine")
    expect(r.returncode == 5 and "state.json" in r.stderr and "Permission denied" in r.stderr, r)


def root(folder, prog):
    """root on a catalog of another user: as that user, who can go on with it"""
    need_setpriv()
    with catalog(folder, prog) as top:
        os.chmod(folder, 0o755)
        top.mkdir()
        os.chown(top, OTHER, OTHER)
        os.chmod(top, 0o700)
        run = as_other(prog, "create", "web", "--memory", "32M", "--disk", "1M")
        expect(run.returncode == 0, run)
        expect(as_other(prog, "start", "web").returncode == 0, "start")
        ok(prog, "pause", "web")
        with Qmp(top, "web") as q:
            expect(not q.call("query-status")["running"], "pause by root")
        ok(prog, "resume", "web")
        ok(prog, "set", "web", "cpus=2")
        ok(prog, "suspend", "web")
        run = as_other(prog, "stop", "-f", "web")
        expect(run.returncode == 0, run)
        expect(get(prog, "start", "web")["state"] == "running", "start by root")
        pid = get(prog, "info", "web")["pid"]
        expect(os.stat(f"/proc/{pid}").st_uid == OTHER, "the VM runs as root")
        ok(prog, "create", "b")
        expect(as_other(prog, "stop", "-f", "web").returncode == 0, "stop")
        strange = [p for p in top.rglob("*") if p.lstat().st_uid != OTHER]
        expect(not strange, "files of root's:", strange)
        secret = pathlib.Path(folder) / "secret"
        secret.write_bytes(b"x" * 4096)
        secret.chmod(stat.S_IRUSR)
        told = sosia(prog, "create", "c", "--disk", str(secret))
        expect(told.code != 0 and "Permission denied" in told.err, "root's rights for a user's spec", told.err)


def limits(folder, prog):
    """ulimit -f: a message, not a signal"""
    with catalog(folder, prog) as top:
        image = top / "d.raw"
        top.mkdir()
        r = subprocess.run(["sh", "-c", 'ulimit -f 64; exec "$@"', "sh", prog, "disk", "create",
                            str(image), "1G"], capture_output=True, text=True)
        expect(r.returncode == 1 and "File too large" in r.stderr and "ulimit -f" in r.stderr, r)
        expect(not list(top.iterdir()), "left behind")
        ok(prog, "create", "web", "--memory", "32M")
        ok(prog, "start", "web")
        pid, limit = get(prog, "info", "web")["pid"], resource.RLIMIT_FSIZE
        was = resource.prlimit(pid, limit)
        resource.prlimit(pid, limit, (16384, was[1]))
        told = error(prog, 4, "state", "suspend", "web")
        expect("File too large" in told and "ulimit -f" in told, told)
        unharmed(top, "web")
        expect(not sum(p.stat().st_size for p in (top / "vms/web").glob("suspended.state*")),
               "half a state takes room")
        resource.prlimit(pid, limit, was)
        ok(prog, "suspend", "web")


run_tests([full, readonly, others, root, limits][SANITIZED and 1:], sys.argv[1])
