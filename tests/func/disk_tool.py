#!/usr/bin/env python3
"""disk_tool.py SOSIA - `sosia disk`: each verb, against qemu-img in both directions."""

import contextlib
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
    got = refused(prog, "format", "not in the image's folder", "info", f / "vm/x")
    expect("--backing-anywhere" in got["hint"], got)
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


def convert(folder, prog):
    """convert: every format to every other and back; holes stay, chains are flattened"""
    f = pathlib.Path(folder)
    contents(f / "a.raw")
    formats = sosia(prog, "disk", "create", "--help").out.split("Formats:\n")[1].split("\n")
    writable, theirs = 0, {"vpc": "vhd"}
    known = [line.split()[0] for line in formats if line.strip()]
    for name in ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc"):
        if theirs.get(name, name) in known:
            qemu_img("convert", "-f", "raw", "-O", name, f / "a.raw", f / "theirs")
            disk(prog, "convert", f / "theirs", f / "ours", "--format", "raw", "--replace",
                 "--source-format", theirs.get(name, name))
            expect((f / "ours").read_bytes()[:4 * MIB] == (f / "a.raw").read_bytes(), name)
    for name in known:
        r = sosia(prog, "disk", "convert", str(f / "a.raw"), str(f / name), "--format", name,
                  "--source-format", "raw")
        if r.code == 2 and "only be read" in r.err:
            continue
        expect_run(r, 0, err="")
        writable += 1
        disk(prog, "convert", f / name, f / f"{name}.back", "--format", "raw")
        back = (f / f"{name}.back").read_bytes()
        expect(back[:4 * MIB] == (f / "a.raw").read_bytes() and not any(back[4 * MIB:]), name)
        if name in ("raw", "qcow2", "vmdk", "vdi", "vhdx", "qed", "parallels"):
            same(f / "a.raw", f / name, "-f", "raw", "-F", name)
        expect((f / f"{name}.back").stat().st_blocks * 512 < 3 * MIB, name, "holes are filled")
    expect(writable >= 2, formats)
    qemu_img("create", "-q", "-f", "qcow2", "-b", "qcow2", "-F", "qcow2", f / "top", "6M")
    qemu_img("bench", "-q", "-w", "-c", "9", "-s", "8192", "-S", "500000", "--pattern=7", "-f",
             "qcow2", f / "top")
    disk(prog, "convert", f / "top", f / "flat.qcow2")
    same(f / "top", f / "flat.qcow2")
    qemu_img("check", f / "flat.qcow2")
    expect("backing-file" not in disk(prog, "info", f / "flat.qcow2")["format-specific"], "flat")
    disk(prog, "convert", f / "flat.qcow2", f / "flat.raw")
    same(f / "top", f / "flat.raw", "-F", "raw")


def convert_compressed(folder, prog):
    """convert --compress: smaller, and qemu-img reads it"""
    f = pathlib.Path(folder)
    (f / "a.raw").write_bytes(b"Sosia " * (MIB // 2) + bytes(MIB + 512))
    for kind in ("zlib", "zstd"):
        info = disk(prog, "convert", f / "a.raw", f / kind, "--compress", "--option",
                    f"compression_type={kind}")
        expect(info["allocated-size"] < MIB, info)
        same(f / "a.raw", f / kind, "-f", "raw")
        qemu_img("check", f / kind)
    refused(prog, "state", "compressed", "convert", f / "zlib", f / "b.raw", "--compress")
    expect(not (f / "b.raw").exists() and len(os.listdir(f)) == 3, os.listdir(f))


def convert_snapshots(folder, prog):
    """convert --snapshot: the disk as qemu-img saw it then, by ID and by name, after resizing too"""
    f = pathlib.Path(folder)
    for form in ("compat=0.10", "compat=1.1", "extended_l2=on"):
        image = f / form
        for i, size in enumerate((4 * MIB, 5 * MIB)):
            contents(f / f"want{i}", size, i)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", form, f / "want0", image)
        qemu_img("snapshot", "-c", "first", image)
        if form == "compat=0.10":  # with a snapshot its size cannot change
            contents(f / "want1", 4 * MIB, 1)
        else:
            qemu_img("resize", image, "5M")
        qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", f / "want1", image)
        qemu_img("snapshot", "-c", "1st", image)
        qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", f / "want0", image)
        listed = disk(prog, "info", image)["format-specific"]["snapshots"]
        expect([(s["id"], s["name"]) for s in listed] == [("1", "first"), ("2", "1st")], listed)
        for which, want in (("first", 0), ("1", 0), ("1st", 1), ("2", 1)):
            disk(prog, "convert", image, f / "out.raw", "--snapshot", which, "--replace")
            expect((f / "out.raw").read_bytes() == (f / f"want{want}").read_bytes(), form, which)
            qemu_img("convert", "-l", f"snapshot.{'id' if which.isdigit() else 'name'}={which}", "-O",
                     "raw", image, f / "qemu.raw")
            same(f / "out.raw", f / "qemu.raw", "-f", "raw", "-F", "raw")
        refused(prog, "state", "no snapshot", "convert", image, f / "x", "--snapshot", "third")
    refused(prog, "state", "have no snapshots", "convert", f / "want0", f / "x", "--snapshot", "1")


def wait_until_writes(process, folder):
    """Until it has the new file open, which has no name yet, or a hidden one."""
    while process.poll() is None:
        for fd in pathlib.Path(f"/proc/{process.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                name = os.readlink(fd)
                if name.startswith(str(folder)) and (" (deleted)" in name or ".part" in name):
                    return


def convert_is_all_or_nothing(folder, prog):
    """convert: an existing file stays; what is interrupted, fails or is in use leaves nothing"""
    f = pathlib.Path(folder)
    contents(f / "a.raw")
    (f / "b").write_text("mine")
    refused(prog, "busy", "already", "convert", f / "a.raw", f / "b")
    expect((f / "b").read_text() == "mine", "b was replaced")
    disk(prog, "convert", f / "a.raw", f / "b", "--replace")
    same(f / "a.raw", f / "b", "-f", "raw", "-F", "qcow2")
    with open(f / "a.raw", "r+b") as held:
        fcntl.fcntl(held, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        refused(prog, "busy", str(os.getpid()), "convert", f / "a.raw", f / "c")
    os.truncate(f / "a.raw", 1 << 40)  # takes a while to look through when it is compressed
    with open(f / "a.raw", "r+b") as a:
        for i in range(64):
            a.seek(i << 30)
            a.write(random.Random(i).randbytes(2 * MIB))
    with subprocess.Popen([prog, "disk", "convert", f / "a.raw", f / "c", "--compress"],
                          stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        wait_until_writes(p, f)
        p.terminate()
        out, err = p.communicate(timeout=60)
        expect(p.returncode == 1 and "interrupted" in err, p.returncode, out, err)
    expect(sorted(os.listdir(f)) == ["a.raw", "b"], os.listdir(f))
    for args in ([f / "c"], [f / "b", "--replace"]):
        with subprocess.Popen([prog, "disk", "convert", f / "a.raw", *args, "--compress"]) as p:
            wait_until_writes(p, f)
            p.kill()
        expect(sorted(os.listdir(f)) == ["a.raw", "b"], "after kill -9:", os.listdir(f))


def remains(folder, prog):
    """what killed processes left is removed, where files cannot be without names; no more than that"""
    f = pathlib.Path(folder)
    contents(f / "a.raw")
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    names = {"gone": f".b.{dead.pid}.part", "lives": f".b.{os.getpid()}.part",
             "locked": f".b.{dead.pid}1.part", "new": f".b.{dead.pid}2.part",
             "other": f".bb.{dead.pid}.part", "odd": ".b.x.part"}
    for what, name in names.items():
        (f / name).write_text(what)
        if what != "new":
            os.utime(f / name, (0, 0))
    with open(f / names["locked"], "r+b") as held:
        fcntl.fcntl(held, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        disk(prog, "convert", f / "a.raw", f / "b")
    del names["gone"]
    expect(sorted(os.listdir(f)) == sorted([*names.values(), "a.raw", "b"]), os.listdir(f))


def check_and_repair(folder, prog):
    """check, repair: what qemu-img says of clean, leaking and damaged images"""
    f = pathlib.Path(folder)
    contents(f / "a.raw")
    disk(prog, "convert", f / "a.raw", f / "a.qcow2")
    expect(disk(prog, "check", f / "a.qcow2")["errors"] == 0, "clean")
    image = (f / "a.qcow2").read_bytes()
    table = struct.unpack_from(">Q", image, 48)[0]
    block = struct.unpack_from(">Q", image, table)[0]
    used = len(image) // 65536
    for name, cluster, count, code in (("leak", used + 3, 1, 3), ("low", 5, 0, 4)):
        bad = bytearray(image)
        struct.pack_into(">H", bad, block + 2 * cluster, count)
        if name == "leak":
            bad += bytes((used + 4) * 65536 - len(bad))
        (f / name).write_bytes(bad)
        expect(qemu_img("check", f / name, ok=False).returncode == (3 if code == 3 else 2), name)
        found = disk(prog, "check", f / name, code=code)
        expect(found["leaks" if code == 3 else "errors"] >= 1, found)
        expect_run(sosia(prog, "disk", "check", str(f / name)), code, out="disk repair", err="")
        expect((f / name).read_bytes() == bad, "a check writes")
        fixed = disk(prog, "repair", f / name)
        expect(fixed["errors-fixed"] + fixed["leaks-fixed"] >= 1, fixed)
        expect(disk(prog, "check", f / name)["errors"] == 0, "not repaired")
        qemu_img("check", f / name)
        same(f / "a.raw", f / name, "-f", "raw", "-F", "qcow2")


def check_and_repair_vdi(folder, prog):
    """check, repair of vdi images: qemu-img finds what we find, and nothing afterwards"""
    f = pathlib.Path(folder)
    (f / "raw").write_bytes(b"".join(bytes([n]) * MIB for n in range(1, 7)))
    disk(prog, "convert", f / "raw", f / "vdi", "--format", "vdi")
    good = (f / "vdi").read_bytes()
    expect(disk(prog, "check", f / "vdi")["errors"] == 0, "clean")
    other = struct.unpack_from("<I", good, 524)[0]  # where block 3 is: blocks come in any order
    for name, at, value, code, lost in (("nowhere", 512, 77, 4, [0]), ("shared", 516, other, 4, [1]),
                                        ("leak", 520, 0xffffffff, 3, [2]), ("count", 0x184, 3, 4, [])):
        bad = bytearray(good)
        struct.pack_into("<I", bad, at, value)
        (f / name).write_bytes(bad)
        expect(qemu_img("check", "-f", "vdi", f / name, ok=False).returncode != 0, name)
        disk(prog, "check", f / name, code=code)
        expect((f / name).read_bytes() == bad, "a check writes")
        fixed = disk(prog, "repair", f / name)
        expect(fixed["errors-fixed"] + fixed["leaks-fixed"] >= 1, fixed)
        qemu_img("check", "-f", "vdi", f / name)
        qemu_img("convert", "-f", "vdi", "-O", "raw", f / name, f / "out")
        want, out = (f / "raw").read_bytes(), (f / "out").read_bytes()
        for block in range(6):
            part = slice(block * MIB, (block + 1) * MIB)
            expect(block in lost or out[part] == want[part], name, "block", block)


def resize(folder, prog):
    """resize: absolute and relative; shrinking only with --shrink; the contents stay"""
    f = pathlib.Path(folder)
    data = contents(f / "a.raw")
    disk(prog, "convert", f / "a.raw", f / "a.qcow2")
    disk(prog, "convert", f / "a.raw", f / "a.vdi")
    qemu_img("convert", "-f", "raw", "-O", "vdi", f / "a.raw", f / "b.vdi")  # no room in its map
    for name in ("a.raw", "a.qcow2", "a.vdi", "b.vdi"):
        expect(disk(prog, "resize", f / name, "+1M")["virtual-size"] == 5 * MIB, name)
        expect(disk(prog, "resize", f / name, "20M")["virtual-size"] == 20 * MIB, name)
        got = refused(prog, "usage", "would be lost", "resize", f / name, "-18M", code=2)
        expect("--shrink" in got["hint"], got)
        expect(disk(prog, "resize", f / name, "-18M", "--shrink")["virtual-size"] == 2 * MIB, name)
        disk(prog, "resize", f / name, "4M")
        refused(prog, "usage", "only", "resize", f / name, "-4M", "--shrink", code=2)
        info = json.loads(qemu_img("info", "--output=json", f / name).stdout)
        expect(info["virtual-size"] == 4 * MIB and info["format"] == name.split(".")[1], info)
    (f / "want").write_bytes(data[:2 * MIB] + bytes(2 * MIB))
    same(f / "want", f / "a.raw", "-f", "raw", "-F", "raw")
    same(f / "want", f / "a.qcow2", "-f", "raw", "-F", "qcow2")
    qemu_img("check", f / "a.qcow2")
    for name in ("a.vdi", "b.vdi"):
        same(f / "want", f / name, "-f", "raw", "-F", "vdi")
        qemu_img("check", f / name)
        disk(prog, "resize", f / name, "900M")  # more than a sector of the map
        qemu_img("check", f / name)
        qemu_img("resize", "-f", "raw", f / "want", "900M")
        same(f / "want", f / name, "-f", "raw", "-F", "vdi")


def mapping(folder, prog):
    """map: the extents that qemu-img sees, and who holds them"""
    f = pathlib.Path(folder)
    contents(f / "base.raw")
    disk(prog, "create", f / "top", "6M", "--backing", "base.raw")
    qemu_img("bench", "-q", "-w", "-c", "9", "-s", "65536", "-S", "524288", "-f", "qcow2", f / "top")
    theirs = json.loads(qemu_img("map", "--output=json", f / "top").stdout)
    ours = disk(prog, "map", f / "top")["extents"]
    expect(sum(x["length"] for x in ours) == 6 * MIB, ours)

    def spans(extents, data, depth):
        sectors = []
        for x in extents:
            sectors += [(data(x), depth(x) if data(x) else -1)] * (x["length"] // 512)
        return sectors
    expect(spans(ours, lambda x: x["kind"] == "data", lambda x: x["depth"]) ==
           spans(theirs, lambda x: x["data"], lambda x: x["depth"]), ours, theirs)
    at = {x["start"]: x for x in ours}
    for x in theirs:
        if x["data"] and x["start"] in at:
            expect(at[x["start"]]["offset"] == x["offset"], x)
    expect({x["file"] for x in ours if x["kind"] == "data"} ==
           {str(f / "top"), str(f / "base.raw")}, ours)
    expect_run(sosia(prog, "disk", "map", str(f / "top")), 0, out="base.raw", err="")


def overlay(f, name="top", size="5M"):
    """A base with data, and an overlay with other data and zeroes; raw files of what they read as."""
    contents(f / "base.raw")
    disk_sizes = ["-o", "cluster_size=4k"] if name == "small" else []
    qemu_img("convert", "-O", "qcow2", "-f", "raw", f / "base.raw", f / "base")
    qemu_img("create", "-q", "-f", "qcow2", *disk_sizes, "-b", "base", "-F", "qcow2", f / name, size)
    for offset, pattern in ((0, 3), (300 * KIB, 0), (1027 * KIB, 9), (3 * MIB, 0), (4608 * KIB, 5)):
        qemu_img("bench", "-q", "-w", "-c", "2", "-d", "1", "-s", "100352", "-o", offset,
                 f"--pattern={pattern}", "-f", "qcow2", f / name)
    qemu_img("convert", "-O", "raw", f / name, f / "want")


def commit(folder, prog):
    """commit: the base gets what the overlay holds, the overlay is empty and reads the same"""
    f = pathlib.Path(folder)
    for name in ("top", "small"):
        overlay(f, name)
        got = disk(prog, "commit", f / name, *(["--keep"] if name == "small" else []))
        expect(got["emptied"] == (name == "top"), got)
        for image in (name, "base"):
            qemu_img("check", f / image)
            same(f / "want", f / image, "-f", "raw", "-F", "qcow2")
        extents = disk(prog, "map", f / name)["extents"]
        expect(any(x.get("depth") == 0 for x in extents) == (name == "small"), extents)
        info = disk(prog, "info", f / name)["format-specific"]
        expect(info["cluster-size"] == (4096 if name == "small" else 65536), info)
        expect(info["backing-file"] == "base" and info["backing-format"] == "qcow2", info)
    refused(prog, "state", "no backing file", "commit", f / "base")
    overlay(f)
    with open(f / "base", "rb") as held:  # another overlay's VM
        fcntl.fcntl(held, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
        refused(prog, "busy", str(os.getpid()), "commit", f / "top")
    same(f / "want", f / "top", "-f", "raw", "-F", "qcow2")


def commit_killed(folder, prog):
    """commit: killed at any time, the overlay reads the same; then it can be finished"""
    f = pathlib.Path(folder)
    rng = random.Random(5)
    for _ in range(40 if os.environ.get("SOSIA_TEST_LONG") == "1" else 8):
        overlay(f)
        with subprocess.Popen([prog, "disk", "commit", f / "top"], stdout=subprocess.DEVNULL) as p:
            try:
                p.wait(rng.random() * 0.06)
            except subprocess.TimeoutExpired:
                p.kill()
        for image in ("top", "base"):
            expect(qemu_img("check", f / image, ok=False).returncode in (0, 3), image)
        same(f / "want", f / "top", "-f", "raw", "-F", "qcow2")
        disk(prog, "commit", f / "top")
        same(f / "want", f / "base", "-f", "raw", "-F", "qcow2")


def compact(folder, prog):
    """compact: space comes back, contents, backing file and options stay"""
    f = pathlib.Path(folder)
    overlay(f)
    (f / "raw").write_bytes(random.Random(1).randbytes(MIB) + bytes(3 * MIB + 512))
    shutil.copy(f / "raw", f / "raw.want")
    got = disk(prog, "compact", f / "raw")
    expect(got["allocated-size"] < got["old-allocated-size"] - 2 * MIB, got)
    expect((f / "raw").read_bytes() == (f / "raw.want").read_bytes(), "raw")
    for n in range(40):  # zeroes that are written take space
        qemu_img("bench", "-q", "-w", "-c", "1", "-s", "65536", "-o", n * 65536, "--pattern=0",
                 "-f", "qcow2", f / "top")
    qemu_img("convert", "-O", "raw", f / "top", f / "want")
    got = disk(prog, "compact", f / "top")
    expect(got["allocated-size"] < got["old-allocated-size"] - MIB, got)
    qemu_img("check", f / "top")
    same(f / "want", f / "top", "-f", "raw", "-F", "qcow2")
    expect(disk(prog, "info", f / "top")["format-specific"]["backing-file"] == "base", "backing")
    (f / "text").write_bytes(b"Sosia " * MIB)
    qemu_img("convert", "-c", "-O", "qcow2", "-f", "raw", f / "text", f / "packed")
    got = disk(prog, "compact", f / "packed")
    expect(got["allocated-size"] <= got["old-allocated-size"], got)
    same(f / "text", f / "packed", "-f", "raw", "-F", "qcow2")
    qemu_img("snapshot", "-c", "s", f / "top")
    refused(prog, "state", "snapshots", "compact", f / "top")
    expect(not [n for n in os.listdir(f) if n.startswith(".")], os.listdir(f))


def bench(folder, prog):
    """bench: counts what it did; writes only when told to"""
    f = pathlib.Path(folder)
    data = contents(f / "a.raw")
    disk(prog, "convert", f / "a.raw", f / "a.qcow2")
    for name in ("a.raw", "a.qcow2"):
        for mode in ("read", "randread"):
            got = disk(prog, "bench", f / name, "--mode", mode, "--duration", "1", "--depth", "8",
                       "--block-size", "16K")
            expect(got["requests"] > 100 and got["bytes"] == got["requests"] * 16 * KIB, got)
            expect(0.9 < got["seconds"] < 5, got)
            expect(abs(got["iops"] * got["seconds"] / got["requests"] - 1) < 0.01, got)
            at = [got["latency-us"][p] for p in ("p50", "p90", "p99", "p99.9", "max")]
            expect(at == sorted(at) and at[0] > 0, got)
        refused(prog, "usage", "--destroy-contents", "bench", f / name, "--mode", "write", code=2)
    expect((f / "a.raw").read_bytes() == data, "it wrote")
    disk(prog, "bench", f / "a.qcow2", "--mode", "randwrite", "--duration", "1",
         "--destroy-contents")
    qemu_img("check", f / "a.qcow2")
    expect(qemu_img("compare", f / "a.raw", f / "a.qcow2", ok=False).returncode == 1, "no writes")
    expect_run(sosia(prog, "disk", "bench", str(f / "a.raw"), "--duration", "1"), 0, out="p99")
    got = disk(prog, "bench", f / "a.raw", "--requests", "777", "--depth", "32")
    expect(got["requests"] == 777, got)
    for bad in (("--depth", "0"), ("--requests", "0"), ("--requests", "9", "--duration", "1"), ("--depth", "1000"), ("--block-size", "100"), ("--mode", "x"),
                ("--block-size", "8M")):
        refused(prog, "usage", "", "bench", f / "a.raw", *bad, code=2)


TESTS = [create, overlays, info_tells_who, help_of_verbs, convert, convert_compressed,
         convert_snapshots, convert_is_all_or_nothing, remains, check_and_repair,
         check_and_repair_vdi, resize, mapping, commit, commit_killed, compact, bench]
run_tests(TESTS, sys.argv[1])
