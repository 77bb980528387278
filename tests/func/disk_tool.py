#!/usr/bin/env python3
"""disk_tool.py SOSIA - `sosia disk`: each verb, against qemu-img in both directions."""

import fcntl
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys

from tap import Skip, expect, expect_run, run_tests, sosia

KIB, MIB = 1 << 10, 1 << 20


def qemu_img(*args, ok=True):
    if not shutil.which("qemu-img"):
        raise Skip("qemu-utils is not installed")
    run = subprocess.run(["qemu-img", *map(str, args)], capture_output=True, text=True, timeout=60)
    if ok:
        expect(run.returncode == 0, args, run.stdout, run.stderr)
    return run


def disk(prog, *args, code=0, cwd=None):
    """`sosia disk ... --json`: what it printed."""
    r = sosia(prog, "disk", *map(str, args), "--json", cwd=cwd)
    expect(r.code == code, args, f"exit {r.code}, not {code}", r.out, r.err)
    return json.loads(r.out)


def refused(prog, error, says, *args, code=1, cwd=None):
    got = disk(prog, *args, code=code, cwd=cwd)["error"]
    expect(got["code"] == error and says in got["message"], got)
    return got


def contents(path, size=4 * MIB, seed=1):
    """A raw file of runs of data and of zeroes; returns its bytes."""
    rng, data = random.Random(seed), bytearray(size)
    for _ in range(12):
        at, n = rng.randrange(size // 512) * 512, rng.randrange(1, 400) * 512
        data[at:at + n] = rng.randbytes(min(n, size - at))
    path.write_bytes(data)
    return bytes(data)


def same(a, b, *args):
    qemu_img("compare", "-q", *args, a, b)


def create(folder, prog):
    """create: thin images that qemu-img reads, by suffix and by --format, with options"""
    f = pathlib.Path(folder)
    expect(disk(prog, "create", f / "a.qcow2", "20G")["virtual-size"] == 20 << 30, "20G")
    expect(os.stat(f / "a.qcow2").st_blocks * 512 < MIB, "it is not thin")
    qemu_img("check", f / "a.qcow2")
    disk(prog, "create", f / "b.img", "1.5M")
    expect((f / "b.img").stat().st_size == 3 * MIB // 2, "raw by its suffix")
    disk(prog, "create", f / "c", "1M", "--format", "qcow2", "--option", "cluster_size=4k")
    info = json.loads(qemu_img("info", "--output=json", f / "c").stdout)
    expect(info["format"] == "qcow2" and info["cluster-size"] == 4096, info)
    refused(prog, "busy", "already", "create", f / "c", "1M")
    refused(prog, "usage", "cluster_size", "create", f / "d", "1M", "--option", "clustersize=4k",
            code=2)
    refused(prog, "usage", "no size", "create", f / "d", "1x", code=2)
    refused(prog, "usage", "no format", "create", f / "d", "1M", "--format", "floppy", code=2)
    expect(sorted(os.listdir(f)) == ["a.qcow2", "b.img", "c"], os.listdir(f))


def overlays(folder, prog):
    """create --backing: in the image's folder, unless told otherwise; info shows the chain"""
    f = pathlib.Path(folder)
    (f / "vm").mkdir()
    contents(f / "out.raw")
    contents(f / "vm/base.raw")
    top = f / "vm/top.qcow2"
    disk(prog, "create", top, "--backing", "base.raw")
    same(f / "vm/base.raw", top, "-f", "raw", "-F", "qcow2")
    disk(prog, "create", f / "vm/topmost", "8M", "--backing", "top.qcow2")
    info = disk(prog, "info", f / "vm/topmost")
    expect([l["file"] for l in info["backing-chain"]] == [str(top), str(f / "vm/base.raw")], info)
    expect(info["virtual-size"] == 8 * MIB and info["backing-chain"][1]["format"] == "raw", info)
    refused(prog, "format", "--backing-anywhere", "create", f / "vm/x", "--backing", "../out.raw")
    disk(prog, "create", f / "vm/x", "--backing", "../out.raw", "--backing-anywhere")
    refused(prog, "format", "not in the image's folder", "info", f / "vm/x")
    disk(prog, "info", f / "vm/x", "--backing-anywhere")
    refused(prog, "io", "cannot find", "create", f / "vm/y", "--backing", "nope")
    expect(not (f / "vm/y").exists(), "y was made")


def info_tells_who(folder, prog):
    """info: format, sizes, snapshots, and who has the image locked"""
    f = pathlib.Path(folder)
    qemu_img("create", "-q", "-f", "qcow2", f / "a", "1G")
    qemu_img("snapshot", "-c", "before the update", f / "a")
    info = disk(prog, "info", f / "a")
    expect(info["format"] == "qcow2" and info["virtual-size"] == 1 << 30, info)
    expect(info["format-specific"]["snapshots"][0]["name"] == "before the update", info)
    expect(0 < info["allocated-size"] < MIB and info["locked-by"] is None, info)
    with open(f / "a", "r+b") as held:  # an open file description's lock, as ours are
        fcntl.fcntl(held, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        info = disk(prog, "info", f / "a")
        expect(str(os.getpid()) in info["locked-by"] and info["lock"] == "write", info)
        expect_run(sosia(prog, "disk", "info", str(f / "a")), 0, out=f"process {os.getpid()}")
    refused(prog, "io", "no such file", "info", f / "nope")


def help_of_verbs(folder, prog):
    """disk --help lists the verbs, each has help and a place in sosia-disk(1)"""
    listed = sosia(prog, "disk", "--help").out.split("Verbs:\n")[1].split("\n\n")[0]
    manual = (pathlib.Path(__file__).parents[2] / "man/sosia-disk.1").read_text()
    for verb in [line.split()[0] for line in listed.splitlines()]:
        text = sosia(prog, "disk", verb, "--help")
        expect_run(text, 0, out=f"usage: sosia disk {verb} ", err="")
        expect(f".It Cm {verb}" in manual, verb, "is not in the manual")
        for option in [w for w in text.out.split() if w.startswith("--")]:
            expect(f"Fl -{option[2:].rstrip(',;')}" in manual, option, "is not in the manual")
        expect_run(sosia(prog, "disk", verb), 2, out="", err="which image")
        refused(prog, "usage", "--frob", verb, "x", "--frob", code=2)
    expect_run(sosia(prog, "disk"), 2, out="", err="which verb?")
    expect_run(sosia(prog, "disk", "creat"), 2, out="", err="create")


TESTS = [create, overlays, info_tells_who, help_of_verbs]
run_tests(TESTS, sys.argv[1])
