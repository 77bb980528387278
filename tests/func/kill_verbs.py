#!/usr/bin/env python3
"""kill_verbs.py SOSIA - kill -9 at random points of every verb that changes something, of the tool and of
the VM's process: the catalog can be read afterwards, each VM is as it was or as it was to be, what was
acknowledged is there, no lock is left, and the next verb works.

SOSIA_TEST_LONG=1: 500 times each (SOSIA_TEST_KILLS). Arguments behind the program: only the tests of
these names.
"""

import contextlib
import os
import pathlib
import random
import re
import select
import signal
import subprocess
import sys
import time

from guest import ANSWER, LONG, SANITIZED
from tap import expect, run_tests, sosia
from vms import catalog, get, nothing_left, ok, snapshots

TIMES = int(os.environ.get("SOSIA_TEST_KILLS", 500 if LONG else 2 if SANITIZED else 5))
SEED = int(os.environ.get("SOSIA_TEST_SEED", "0")) or random.randrange(1 << 30)


# ---- what is seen ----

def disk0(top, name="base"):
    return top / "vms" / name / "disks/disk0.qcow2"


def content(prog, top, name="base"):
    """What a VM's disk reads as."""
    raw = top / "raw"
    ok(prog, "disk", "convert", "--format", "raw", "--replace", str(disk0(top, name)), str(raw))
    return raw.read_bytes()


def state(prog, name="base"):
    return get(prog, "info", name)["state"]


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


def is_locked():
    """Does anybody hold a lock of the VM? Also who starts it, and is not seen yet."""
    lock = pathlib.Path(os.environ["SOSIA_HOME"], "vms/base/lock")
    locks = pathlib.Path("/proc/locks").read_text()
    return lock.exists() and f":{lock.stat().st_ino} " in locks


def settled(prog, *states):
    """The VM's state, once it is one of these: what the killed tool asked for may be on its way."""
    deadline = time.monotonic() + ANSWER
    while True:
        locked = is_locked()
        now = state(prog)
        if now in states and not (now == "stopped" and locked):
            return now
        expect(time.monotonic() < deadline, f"it stays {now}, locked: {locked}")
        time.sleep(0.02)


def on_its_way(acknowledged):
    """What a killed tool has told the VM's process to do is not seen at once."""
    if not acknowledged:
        time.sleep(0.5)


def base(prog, top):
    """A VM with a disk of random bytes, which are returned."""
    ok(prog, "create", "base", "--memory", "32M", "--disk", "1M")
    first = random.Random(SEED).randbytes(1 << 20)
    (top / "raw").write_bytes(first)
    ok(prog, "disk", "convert", "--replace", "--source-format", "raw", str(top / "raw"),
       str(disk0(top)))
    return first


# ---- the tool is killed ----

def killing(verb, prepare, possible=lambda before, n: [before], after=lambda prog, n, acknowledged: None,
            name=None):
    """A test: `prepare` gives the arguments of a verb for round n, `possible` all catalogs (name: UUID,
    None: any) that may be found afterwards, given the one before; the last is what was asked for."""
    def test(folder, prog):
        rng = random.Random(f"{SEED} {verb}")
        with catalog(folder, prog) as top:
            os.environ["TMPDIR"] = str(top)
            first = base(prog, top)
            took = 0.05
            for n in range(TIMES):
                args = prepare(prog, n)
                before = seen(prog)
                start = time.monotonic()
                with open(top / "errors", "w+", encoding="utf-8") as errors, \
                        subprocess.Popen([prog, *verb.split(), *args], stdout=subprocess.DEVNULL,
                                         stderr=errors) as p:
                    if n > 0:  # the first is measured
                        time.sleep(rng.uniform(0, took * 1.1))
                        p.send_signal(signal.SIGKILL)
                    p.wait()
                    took = time.monotonic() - start if n == 0 else took
                where = f"{verb} round {n} seed {SEED}:"
                expect(p.returncode in (0, -signal.SIGKILL), where, "exit", p.returncode,
                       (top / "errors").read_text(encoding="utf-8"))
                now, all_of_it = seen(prog), possible(before, n)
                fits = [set(now) == set(p) and all(u in (None, now[k]) for k, u in p.items())
                        for p in all_of_it]
                expect(any(fits), where, before, now)
                expect(p.returncode or fits[-1], where, "lost", before, now)
                after(prog, n, p.returncode == 0)
                expect(state(prog) != "stopped" or not no_locks(top), "locks")
                if verb == "clone" or n == TIMES - 1:
                    settled(prog, "stopped", "crashed")
                    expect(content(prog, top)[:len(first)] == first, where, "the disk has changed")
                for path in (top / "vms").glob(".new-*"):  # the next create sweeps, when they are old
                    os.utime(path, (0, 0))
            ok(prog, "create", "last")
            left = [p for p in (top / "vms").iterdir() if p.name.startswith(".")]
            expect(not left, "left behind:", left)
            if verb.split()[0] in ("snap", "clone"):
                nothing_left(prog, top, "base", f"{verb} seed {SEED}:")
    test.__doc__ = f"{name or verb}: killed {TIMES - 1} times"
    return test


def with_new(name):
    return lambda before, n: [before, {**before, name(n): None}]


def without(name):
    return lambda before, n: [before, {k: v for k, v in before.items() if k != name}]


def set_value(prog, n):
    return ["base", f"cpus={n % 32 + 1}", f"memory={n % 32 + 1}M"]


def edit_value(prog, n):
    os.environ["EDITOR"] = (f"sed -i -e 's/^cpus:.*/cpus: {n % 32 + 1}/' "
                            f"-e 's/^memory:.*/memory: {n % 32 + 1}M/'")
    if n == 0:
        ok(prog, "set", "base", "cpus=32", "memory=32M")
    return ["base"]


def both_or_none(prog, n, acknowledged):
    spec = ok(prog, "spec", "base")
    expect(spec.startswith("# The VM"), spec)
    cpus, memory = re.search(r"^cpus: (\d+)", spec, re.M), re.search(r"^memory: (\d+)M", spec, re.M)
    expect(cpus[1] == memory[1], spec)
    expect(not acknowledged or int(cpus[1]) == n % 32 + 1, "lost", spec)


def renamed(before, n):
    return [before, {**{k: v for k, v in before.items() if k != "base"}, "other": before["base"]}]


def back_to_base(prog, n, acknowledged):
    if "other" in ok(prog, "ls", "-q").split():
        ok(prog, "rename", "other", "base")


def prepare_rm(prog, n):
    if "doomed" not in ok(prog, "ls", "-q").split():
        ok(prog, "create", "doomed")
    return ["doomed"]


def in_trash(prog, n, acknowledged):
    there = any(t.startswith("doomed.") for t in get(prog, "recover")["trash"])
    expect(there or "doomed" in seen(prog), "it is nowhere")
    if there:
        ok(prog, "rm", "--purge", *[t for t in get(prog, "recover")["trash"]
                                    if t.startswith("doomed.")])


def prepare_purge(prog, n):
    return [*prepare_rm(prog, n), "--purge"]


def prepare_recover(prog, n):
    if "lost" in ok(prog, "ls", "-q").split():
        ok(prog, "rm", "lost")
    elif not [t for t in get(prog, "recover")["trash"] if t.startswith("lost")]:
        ok(prog, "create", "lost")
        ok(prog, "rm", "lost")
    return ["lost"]


def prepare_import(prog, n):
    raw = pathlib.Path(os.environ["SOSIA_HOME"]) / "theirs.img"
    if n == 0:
        raw.write_bytes(os.urandom(1 << 20))
    return ["--qemu", f"qemu-system-x86_64 -m 32 -hda {raw}", f"i{n}", "--copy"]


# snapshots of a VM that is stopped

TAKEN = set()


def take(prog, n):
    if n == 0:
        TAKEN.clear()
    return ["base", f"s{n}"]


def taken(prog, n, acknowledged):
    now = set(snapshots(prog, "base"))
    expect(now - {f"s{n}"} == TAKEN, now, TAKEN)
    expect(not acknowledged or f"s{n}" in now, "lost", now)
    while len(now) > 5:  # a chain has an end
        ok(prog, "snap", "rm", "base", now.pop())
    TAKEN.clear()
    TAKEN.update(now)


def prepare_restore(prog, n):
    if n == 0:
        ok(prog, "snap", "take", "base", "one")
        ok(prog, "set", "base", "cpus=2")
        ok(prog, "snap", "take", "base", "two")
    return ["base", ("one", "two")[n % 2]]


def whole_or_again(prog, n, acknowledged):
    """It has been restored, or not, or that was broken off: then it is to be done again."""
    run = sosia(prog, "snap", "take", "base", "look")
    if run.code:
        expect(run.code == 4 and "does it again" in run.err and not acknowledged, run.code, run.err)
        ok(prog, "snap", "restore", "-f", "base", ("one", "two")[n % 2])
    else:
        ok(prog, "snap", "rm", "base", "look")


def restored(prog, n, acknowledged):
    whole_or_again(prog, n, acknowledged)
    expect(get(prog, "info", "base")["cpus"] in (1, 2), "the spec")


def prepare_snap_rm(prog, n):
    if n == 0:
        ok(prog, "snap", "take", "base", "stays")
    if "goes" not in snapshots(prog, "base"):
        ok(prog, "snap", "take", "base", "goes")
    return ["base", "goes"]


def one_gone(prog, n, acknowledged):
    now = set(snapshots(prog, "base"))
    expect(now in ({"stays"}, {"stays", "goes"}), now)
    expect(not acknowledged or now == {"stays"}, "lost", now)


# VMs that run

def stopped_one(prog, n):
    return ["base"]


def end_vm(prog, n, acknowledged):
    """It runs or it does not; if it is starting, it will."""
    if settled(prog, "stopped", "running", "crashed") == "running":
        ok(prog, "stop", "-f", "base")


def running_one(*more):
    def prepare(prog, n):
        if state(prog) in ("stopped", "suspended", "crashed"):
            ok(prog, "start", "base")
        return ["base", *more]
    return prepare


def ends_soon(prog, n, acknowledged):
    """The VM has been told to end, or not."""
    deadline = time.monotonic() + 1
    while get(prog, "info", "base")["pid"] and time.monotonic() < deadline:
        expect(not acknowledged, "it still runs")
        time.sleep(0.05)
    end_vm(prog, n, acknowledged)


def runs_again(prog, n, acknowledged):
    on_its_way(acknowledged)
    now = settled(prog, "stopped", "running")
    expect(not acknowledged or now == "running", now)
    if n == TIMES - 1 and now == "running":
        ok(prog, "stop", "-f", "base")


def goes_on(prog, n, acknowledged):
    """It is suspended, or is going to be, or runs."""
    on_its_way(acknowledged)
    now = settled(prog, "running", "suspended")
    expect(not acknowledged or now == "suspended", now)
    if now == "suspended":
        ok(prog, "start", "base")
    if n == TIMES - 1:
        ok(prog, "stop", "-f", "base")


def still_runs(prog, n, acknowledged):
    if settled(prog, "running", "paused") == "paused":
        ok(prog, "resume", "base")
    if n == TIMES - 1:
        ok(prog, "stop", "-f", "base")


def take_live(prog, n):
    return running_one(take(prog, n)[1])(prog, n)


def taken_live(prog, n, acknowledged):
    """The VM goes on with what the killed tool asked for, and is then free for the next."""
    deadline = time.monotonic() + ANSWER
    while (run := sosia(prog, "snap", "take", "base", "look")).code:
        expect(run.code == 4 and "being taken already" in run.err, run.code, run.err)
        expect(time.monotonic() < deadline, "it is never done")
        time.sleep(0.02)
    ok(prog, "snap", "rm", "base", "look")
    taken(prog, n, acknowledged)
    still_runs(prog, n, acknowledged)
    if n % 20 == 19 and state(prog) == "running":
        start_over(prog)


def start_over(prog):
    """A chain has an end: the disk gets an image without layers, of the same contents."""
    top = pathlib.Path(os.environ["SOSIA_HOME"])
    ok(prog, "stop", "-f", "base")
    (top / "again").write_bytes(content(prog, top))
    ok(prog, "snap", "rm", "base", *TAKEN)
    TAKEN.clear()
    ok(prog, "disk", "convert", "--replace", "--source-format", "raw", str(top / "again"),
       str(disk0(top)))


def prepare_restore_live(prog, n):
    args = running_one("-f", ("one", "two")[n % 2])(prog, n)
    if n == 0:
        ok(prog, "snap", "take", "base", "one")
        ok(prog, "snap", "take", "base", "two")
    return args


def restored_live(prog, n, acknowledged):
    now = settled(prog, "running", "stopped", "suspended")
    expect(not acknowledged or now == "running", now)
    whole_or_again(prog, n, acknowledged)
    if n == TIMES - 1 and state(prog) == "running":
        ok(prog, "stop", "-f", "base")


def prepare_engine(prog, n):
    return running_one(("interp", "jit")[n % 2])(prog, n)


def grow(prog, n):
    return running_one("disk0", f"{2 + n}M")(prog, n)


def size_fits(prog, n, acknowledged):
    """At the last size, or one before."""
    top = pathlib.Path(os.environ["SOSIA_HOME"])
    size = get(prog, "disk", "info", str(disk0(top)))["virtual-size"]
    sizes = {1 << 20, *(m << 20 for m in range(2, n + 3))}
    expect(size == (2 + n) << 20 if acknowledged else size in sizes, n, acknowledged, size)


def grown(prog, n, acknowledged):
    size_fits(prog, n, acknowledged)
    still_runs(prog, n, acknowledged)


# ---- the VM's process is killed ----

def victim(tool, pid):
    """The process of the VM; of one that is being started it is the tool's child."""
    if pid:
        return pid
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == tool:
                return int(stat.parent.name)
    return None


def kill_process(pid):
    """SIGKILL; it has ended afterwards."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            expect(select.select([fd], [], [], ANSWER)[0], "it does not end")
        finally:
            os.close(fd)


def losing(verb, prepare, after):
    """A test: `prepare` gives the arguments for round n, `after` looks at the VM when its process was
    killed and the verb has ended; it is told whether the verb said that it was done."""
    def test(folder, prog):
        rng = random.Random(f"{SEED} {verb}")
        with catalog(folder, prog) as top:
            base(prog, top)
            took = 0.05
            for n in range(TIMES):
                args = prepare(prog, n)
                pid = get(prog, "info", "base")["pid"]
                start = time.monotonic()
                with subprocess.Popen([prog, *verb.split(), *args], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, text=True) as p:
                    if n > 0:
                        time.sleep(rng.uniform(0, took * 1.1))
                        if pid := victim(p.pid, pid):
                            kill_process(pid)
                    told = p.communicate(timeout=ANSWER)[1]
                    took = time.monotonic() - start if n == 0 else took
                where = f"{verb} round {n} seed {SEED}:"
                expect(p.returncode == 0 or "sosia: " in told, where, p.returncode, told)
                now = settled(prog, "stopped", "running", "crashed", "suspended")
                after(prog, top, n, p.returncode == 0, now)
                seen(prog)
                if state(prog) == "running":
                    ok(prog, "stop", "-f", "base")
                no_locks(top)
                ok(prog, "disk", "check", str(disk0(top)))
    test.__doc__ = f"{verb}: the VM's process killed {TIMES - 1} times"
    return test


def anything(prog, top, n, acknowledged, now):
    """Nothing that lasts was asked for."""


def suspended_or_lost(prog, top, n, acknowledged, now):
    expect(not acknowledged or now == "suspended", "acknowledged, but it is", now)
    if now == "suspended":
        ok(prog, "start", "base")


def has_grown(prog, top, n, acknowledged, now):
    size_fits(prog, n, acknowledged)


def snap_running(prog, n):
    for name in snapshots(prog, "base"):
        ok(prog, "snap", "rm", "base", name)
    return running_one(f"s{n}")(prog, n)


def snap_is_whole(prog, top, n, acknowledged, now):
    there = f"s{n}" in snapshots(prog, "base")
    expect(there or not acknowledged, "acknowledged, and not there")
    if now == "suspended":
        ok(prog, "start", "base")
    if there:
        ok(prog, "snap", "restore", "-f", "base", f"s{n}")


TESTS = {
    "create": killing("create", lambda prog, n: [f"c{n}", "--disk", "1M"], with_new(lambda n: f"c{n}")),
    "import": killing("import", prepare_import, with_new(lambda n: f"i{n}")),
    "set": killing("set", set_value, after=both_or_none),
    "edit": killing("edit", edit_value, after=both_or_none),
    "rename": killing("rename", lambda prog, n: ["base", "other"], renamed, back_to_base),
    "rm": killing("rm", prepare_rm, without("doomed"), in_trash),
    "purge": killing("rm", prepare_purge, without("doomed"), name="rm --purge"),
    "recover": killing("recover", prepare_recover, with_new(lambda n: "lost")),
    "linked": killing("clone", lambda prog, n: ["base", f"k{n}", "--linked"],
                      with_new(lambda n: f"k{n}"), name="clone --linked"),
    "full": killing("clone", lambda prog, n: ["base", f"f{n}", "--full"], with_new(lambda n: f"f{n}"),
                    name="clone --full"),
    "take": killing("snap take", take, after=taken),
    "restore": killing("snap restore", prepare_restore, after=restored),
    "snap_rm": killing("snap rm", prepare_snap_rm, after=one_gone),
    "start": killing("start", stopped_one, after=end_vm),
    "stop": killing("stop", running_one("-f"), after=ends_soon),
    "restart": killing("restart", running_one("-f"), after=runs_again),
    "suspend": killing("suspend", running_one(), after=goes_on),
    "pause": killing("pause", running_one(), after=still_runs),
    "take_live": killing("snap take", take_live, after=taken_live, name="snap take of one that runs"),
    "restore_live": killing("snap restore", prepare_restore_live, after=restored_live,
                            name="snap restore of one that runs"),
    "engine": killing("engine", prepare_engine, after=still_runs),
    "resize": killing("resize", grow, after=grown),
    "start_lost": losing("start", stopped_one, anything),
    "stop_lost": losing("stop", running_one("-f"), anything),
    "engine_lost": losing("engine", prepare_engine, anything),
    "suspend_lost": losing("suspend", running_one(), suspended_or_lost),
    "resize_lost": losing("resize", grow, has_grown),
    "take_lost": losing("snap take", snap_running, snap_is_whole),
}
run_tests([t for name, t in TESTS.items() if len(sys.argv) < 3 or name in sys.argv[2:]], sys.argv[1])
