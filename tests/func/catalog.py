#!/usr/bin/env python3
"""catalog.py SOSIA - VMs that do not run: create, ls, info, set, edit, rename, rm, recover; --json;
errors and their exit codes."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import time

from tap import expect, expect_run, run_tests, sosia, write
from vms import error, get, home, ok


def names(prog):
    return ok(prog, "ls", "--names").split()


def makes(folder, prog):
    """create: a folder with a spec, a state and a disk; ls and info tell of it"""
    top = home(folder)
    expect(names(prog) == [] and ok(prog, "ls") == "", "an empty catalog")
    expect(not top.exists(), "looking made a folder")
    made = get(prog, "create", "web", "--memory", "64M", "--cpus", "2", "--disk", "1G")
    expect(made["name"] == "web" and made["state"] == "stopped", made)
    expect(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                        made["uuid"]), made)
    vm = top / "vms" / "web"
    state = json.loads((vm / "state.json").read_text())
    expect(state["version"] == 1 and state["uuid"] == made["uuid"], state)
    expect((vm / "disks" / "disk0.qcow2").exists(), "no disk")
    info = get(prog, "info", "web")
    expect((info["cpus"], info["memory"], info["problem"]) == (2, 64 << 20, None), info)
    expect(info["folder"] == str(vm) and len(info["disks"]) == 1, info)
    expect(re.search(r"^web +stopped +2 +64 MiB", ok(prog, "ls"), re.M), "ls")
    expect([v["name"] for v in get(prog, "ls")["vms"]] == ["web"], "ls --json")
    expect(info["uuid"] in ok(prog, "info", "web"), "info")
    expect_run(sosia(prog, "check", "web"), 0, out="web: ok")


def from_a_spec(folder, prog):
    """create from a spec file: its text, with paths that stay true; --set on top"""
    home(folder)
    os.mkdir(os.path.join(folder, "sub"))
    write(folder, "sub/d.img", "x" * 512)
    write(folder, "e.img", "x" * 512)
    write(folder, "sub/vm.yaml", "# mine\ncpus: 2 # two\ndisks:\n  - d.img # here\n")
    ok(prog, "create", "a", "sub/vm.yaml", "--set", "memory=96M", cwd=folder)
    expect(ok(prog, "spec", "a") == f'# mine\ncpus: 2 # two\ndisks:\n  - "{folder}/sub/d.img" # here'
           "\nmemory: 96M\n", ok(prog, "spec", "a"))
    ok(prog, "create", "b", "--set", "disks=[{file: e.img, bus: ide}]", cwd=folder)
    expect(f"{folder}/e.img" in ok(prog, "spec", "b"), ok(prog, "spec", "b"))
    ok(prog, "create", "c", "--disk", "e.img", "--cmdline", 'a "b" # c\\', "--kernel", "e.img",
       cwd=folder)
    expect(get(prog, "info", "c")["disks"][0]["file"] == f"{folder}/e.img", "c")
    for args in (["sub/gone.yaml"], ["--disk", "gone.img"], ["--set", "disks=[gone.img]"],
                 ["--set", "cups=2"], ["--cpus", "99"]):
        r = sosia(prog, "create", "no", *args, cwd=folder)
        expect(r.code in (2, 3) and not r.out and "sosia: " in r.err, args, r.code, r.err)
    expect(names(prog) == ["a", "b", "c"], names(prog))
    left = [n for n in os.listdir(f"{folder}/home/vms") if n.startswith(".")]
    expect(not left, "left behind:", left)


def finds(folder, prog):
    """a VM is found by its name, the beginning of its name or of its UUID"""
    home(folder)
    for name in ("web", "web2", "db"):
        ok(prog, "create", name)
    expect(get(prog, "info", "web")["name"] == "web", "the name goes before the beginning of another")
    expect(get(prog, "info", "d")["name"] == "db", "a beginning")
    uuid = get(prog, "info", "db")["uuid"]
    expect(get(prog, "info", uuid)["name"] == "db", "a UUID")
    expect(get(prog, "info", uuid[:13].upper())["name"] == "db", "the beginning of a UUID")
    expect("web, web2" in error(prog, 2, "usage", "info", "we"), "more than one")
    expect('did you mean "web2"' in error(prog, 3, "not-found", "info", "wbe2"), "a suggestion")
    for ref in ("", "..", "web/", "/etc", "../vms/web", "x" * 300):
        error(prog, 3, "not-found", "info", ref)


def bad_names(folder, prog):
    """names that cannot be: exit 2; names that are taken: exit 4"""
    home(folder)
    ok(prog, "create", "web")
    for name in ("", ".", "..", "-x", ".x", "a/b", "a b", "a\nb", "\u00e4", "x" * 64):
        r = sosia(prog, "create", "--", name)
        expect_run(r, 2, out="", err="cannot be the name")
    error(prog, 4, "state", "create", "web")
    ok(prog, "create", "web2")
    error(prog, 4, "state", "rename", "web2", "web")
    error(prog, 2, "usage", "rename", "web2", "a/b")
    expect(names(prog) == ["web", "web2"], names(prog))


def sets(folder, prog):
    """set: changes what it is told to, keeps comments, refuses what would be no spec"""
    top = home(folder)
    write(folder, "vm.yaml", "# a\nmemory: 64M # b\n# c\n")
    ok(prog, "create", "web", f"{folder}/vm.yaml")
    ok(prog, "set", "web", "memory=128M", "cpus=2")
    expect(ok(prog, "spec", "web") == "# a\nmemory: 128M # b\ncpus: 2\n# c\n", ok(prog, "spec", "web"))
    ok(prog, "set", "web", "cpus=")
    before = ok(prog, "spec", "web")
    expect("cpus" not in before, before)
    expect('"cpus" must be' in error(prog, 2, "spec", "set", "web", "memory=1G", "cpus=99"), "99")
    expect("did you mean" in error(prog, 2, "spec", "set", "web", "cups=2"), "cups")
    error(prog, 2, "spec", "set", "web", "cpus")
    expect(ok(prog, "spec", "web") == before, "changed in spite of an error")
    expect_run(sosia(prog, "set", "web", "disks=[gone.img]"), 0, err="could not be started now")
    expect(not list((top / "vms" / "web").glob(".*")), "left behind")


def edits(folder, prog):
    """edit: takes over what the editor leaves, if it is a spec"""
    home(folder)
    ok(prog, "create", "web")
    os.environ["VISUAL"] = "sed -i s/512M/99M/"
    ok(prog, "edit", "web")
    expect("memory: 99M" in ok(prog, "spec", "web"), ok(prog, "spec", "web"))
    expect_run(sosia(prog, "edit", "web"), 0, err="nothing is changed")
    os.environ["VISUAL"] = "sed -i s/99M/99X/"
    r = sosia(prog, "edit", "web")
    expect_run(r, 2, out="", err="vm.yaml:3:9: ")
    kept = re.search(r"your text is in (\S+)", r.err)[1]
    expect("99X" in pathlib.Path(kept).read_text(), "the text is lost")
    os.unlink(kept)
    os.environ["VISUAL"] = "false"
    expect_run(sosia(prog, "edit", "web"), 6, out="", err="nothing is changed")
    expect("memory: 99M" in ok(prog, "spec", "web"), "changed")
    del os.environ["VISUAL"]


def trash(folder, prog):
    """rm puts into the trash, recover gets back, --purge is for good"""
    top = home(folder)
    for name in ("a", "b", "c"):
        ok(prog, "create", name)
    uuid = get(prog, "info", "a")["uuid"]
    expect(get(prog, "rm", "a", "b") == {"removed": ["a", "b"]}, "rm")
    expect(names(prog) == ["c"], names(prog))
    error(prog, 3, "not-found", "rm", "a")
    expect(get(prog, "recover")["trash"][0] == f"a.{uuid[:8]}", "the trash")
    ok(prog, "create", "a")
    error(prog, 4, "state", "recover", "a")
    expect(get(prog, "recover", "a", "old")["name"] == "old", "recover under another name")
    expect(get(prog, "info", "old")["uuid"] == uuid, "another VM came back")
    ok(prog, "rm", "--purge", "b", "c")
    expect(get(prog, "recover")["trash"] == [] and names(prog) == ["a", "old"], names(prog))
    expect(not os.listdir(top / "trash"), os.listdir(top / "trash"))
    error(prog, 3, "not-found", "recover", "b")
    error(prog, 3, "not-found", "rm", "--purge", "b")


def damaged(folder, prog):
    """files that are missing or wrong: told by ls and info, exit 8 where they are needed"""
    top = home(folder)
    for name in ("a", "b", "c", "d"):
        ok(prog, "create", name)
    (top / "vms/a/vm.yaml").unlink()
    (top / "vms/b/state.json").write_text("{")
    (top / "vms/c/state.json").write_text('{"version": 9, "uuid": "x"}')
    expect("vm.yaml is missing" in error(prog, 8, "integrity", "check", "a"), "a")
    error(prog, 8, "integrity", "set", "a", "cpus=1")
    seen = {v["name"]: v["problem"] for v in get(prog, "ls")["vms"]}
    expect("missing" in seen["a"] and "JSON" in seen["b"] and "newer" in seen["c"] and
           seen["d"] is None, seen)
    expect(ok(prog, "ls").count("damaged") == 3, ok(prog, "ls"))
    ok(prog, "rm", "a", "b", "c")
    ok(prog, "recover", "b")
    expect(names(prog) == ["b", "d"], names(prog))


def denied(folder, prog):
    """a catalog that may not be written: exit 5; looking at it works"""
    top = home(folder)
    ok(prog, "create", "web")
    run = [prog]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            return "root, and no setpriv"
        os.chmod(folder, 0o755)
        run = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", prog]
        subprocess.run(["chmod", "-R", "a+rX", top], check=True)
    else:
        for path in (top / "vms/web", top / "vms", top):
            os.chmod(path, 0o555)
    try:
        for args in (["create", "b"], ["set", "web", "cpus=2"], ["rename", "web", "b"],
                     ["rm", "web"]):
            r = subprocess.run([*run, *args, "--json"], capture_output=True, text=True)
            expect(r.returncode == 5, args, r.returncode, r.stdout, r.stderr)
            expect(json.loads(r.stdout)["error"]["code"] == "permission", r.stdout)
        r = subprocess.run([*run, "ls", "--names"], capture_output=True, text=True)
        expect((r.returncode, r.stdout) == (0, "web\n"), r)
    finally:
        for path in (top, top / "vms", top / "vms/web"):
            os.chmod(path, stat.S_IRWXU)
    return None


def full_disk(folder, prog):
    """a full disk: exit 1, the VMs are what they were"""
    top = home(folder)
    if os.geteuid() != 0:
        return "not root: no small file system"
    top.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", top],
                           capture_output=True, text=True)
    if mount.returncode:
        return "cannot mount"
    try:
        ok(prog, "create", "web")
        before = ok(prog, "spec", "web")
        fill = os.open(top / "fill", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while os.write(fill, b"x" * 4096):
                pass
        os.close(fill)
        expect("No space" in error(prog, 1, "io", "set", "web", "cpus=2"), "set")
        expect("No space" in error(prog, 1, "io", "create", "b"), "create")
        expect(ok(prog, "spec", "web") == before and names(prog) == ["web"], "changed")
        (top / "fill").unlink()
        ok(prog, "set", "web", "cpus=2")
        expect(not [p for p in top.rglob(".*")], "left behind")
    finally:
        subprocess.run(["umount", top], check=False)
    return None


def one_at_a_time(folder, prog):
    """many at once: every change is made, every name is given once"""
    home(folder)
    ok(prog, "create", "web")
    todo = [["set", "web", f"cpus={n + 1}"] for n in range(8)] + [["create", "x"]] * 4
    running = [subprocess.Popen([prog, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
               for args in todo]
    codes = [p.wait() for p in running]
    for p in running:
        p.stdout.close()
        p.stderr.close()
    expect(codes[:8] == [0] * 8 and sorted(codes[8:]) == [0, 4, 4, 4], codes)
    expect(re.search(r"^cpus: [1-8]$", ok(prog, "spec", "web"), re.M), ok(prog, "spec", "web"))


def completes(folder, prog):
    """completion: scripts that their shells accept, with each verb"""
    verbs = re.findall(r"^  ([a-z]+) ", sosia(prog, "--help").out, re.M)
    for shell in ("bash", "zsh", "fish"):
        text = ok(prog, "completion", shell)
        expect(all(v in text for v in verbs), shell)
        if shutil.which(shell):
            check = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True)
            expect(check.returncode == 0, shell, check.stderr)
    home(folder)
    ok(prog, "create", "web")
    script = ('source /dev/stdin <<<"$1"; COMP_WORDS=(sosia info w); COMP_CWORD=2; _sosia; '
              'echo "${COMPREPLY[@]}"')
    env = dict(os.environ, PATH=f"{os.path.dirname(os.path.abspath(prog))}:{os.environ['PATH']}")
    said = subprocess.run(["bash", "-c", script, "-", ok(prog, "completion", "bash")], env=env,
                          capture_output=True, text=True)
    expect(said.stdout == "web\n", said)
    expect_run(sosia(prog, "completion", "csh"), 2, out="", err="csh")


def many(folder, prog):
    """a hundred VMs are listed at once"""
    top = home(folder)
    ok(prog, "create", "vm0")
    for n in range(1, 100):
        shutil.copytree(top / "vms/vm0", top / f"vms/vm{n}")
    start = time.monotonic()
    listed = ok(prog, "ls").splitlines()
    took = time.monotonic() - start
    expect(len(listed) == 101 and listed[1].startswith("vm0") and listed[11].startswith("vm10"),
           listed[:12])
    expect(took < 3, f"{took:.2f} s")


run_tests([makes, from_a_spec, finds, bad_names, sets, edits, trash, damaged, denied, full_disk,
           one_at_a_time, completes, many], sys.argv[1])
