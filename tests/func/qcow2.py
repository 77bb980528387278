#!/usr/bin/env python3
"""qcow2.py DRIVER - qcow2 images that this program and QEMU's tools work on in turn.

Random operations, by turns with our code (the driver) and with qemu-io, over combinations of the
format's options; after each turn the other side reads what the guest is to see and checks the
image. A sample of the combinations; SOSIA_TEST_LONG=1: all of them. SOSIA_TEST_SEED repeats a run.
"""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys

from tap import Skip, expect, run_tests

LONG = os.environ.get("SOSIA_TEST_LONG") == "1"
SEED = int(os.environ.get("SOSIA_TEST_SEED", random.randrange(1 << 30)))
MIB = 1 << 20


def call(*args, stdin="", ok=True, cwd=None):
    run = subprocess.run(args, input=stdin, capture_output=True, text=True, timeout=240, cwd=cwd,
                         errors="replace")
    if ok:
        expect(run.returncode == 0, " ".join(args), "exit", run.returncode, run.stdout[-2000:],
               run.stderr[-2000:], "after", stdin[-3000:])
    return run


def need_qemu():
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        raise Skip("qemu-utils is not installed")


class Image:
    """An image, the raw file that says what it should hold, and both sides' hands on it."""

    def __init__(self, driver, folder, rng, options):
        self.driver, self.folder, self.rng, self.options = driver, folder, rng, options
        self.path, self.model = f"{folder}/disk.qcow2", f"{folder}/model"
        self.cluster = options.get("cluster_size", 65536)
        self.size = min(rng.choice([1, 3, 8]) * MIB, self.cluster * 4096) - rng.choice([0, 512, 5120])
        self.sides = []
        self.may_resize = True

    def create(self):
        opts, size = dict(self.options), self.size
        backing = opts.pop("backing", None)
        if os.path.exists(self.path):
            os.unlink(self.path)
        with open(self.model, "wb") as f:
            f.truncate(size)
        if backing:
            self.make_backing(backing)
        if opts.get("data_file"):
            with open(f"{self.folder}/{opts['data_file']}", "wb"):
                pass
        if self.rng.random() < 0.5:
            extra = [f"backing=base.{backing}", f"backing_format={backing}"] if backing else []
            call(self.driver, "create", self.path, str(size),
                 *(f"{k}={v}" for k, v in opts.items()), *extra)
            self.sides.append("created by us")
        else:
            opts["compat"] = "0.10" if opts.pop("version", 3) == 2 else "1.1"
            pairs = ",".join(f"{k}={v}" for k, v in opts.items())
            extra = ["-b", f"base.{backing}", "-F", backing] if backing else []
            call("qemu-img", "create", "-q", "-f", "qcow2", "-o", pairs, *extra, self.path,
                 str(size), cwd=self.folder)
            self.sides.append("created by QEMU")
        self.check("after creation")

    def make_backing(self, kind):
        """A base that is smaller, larger or equal, with some data; the model starts as it."""
        size = max(512, self.size + self.rng.choice([-1, 0, 1]) * self.rng.randrange(MIB) // 512 * 512)
        raw = f"{self.folder}/base.raw"
        with open(raw, "wb") as f:
            f.truncate(size)
            for _ in range(20):
                at = self.rng.randrange(size)
                f.seek(at)
                f.write(bytes([self.rng.randrange(1, 256)]) * min(self.rng.randrange(200000), size - at))
        if kind == "qcow2":
            call("qemu-img", "convert", "-O", "qcow2", raw, f"{self.folder}/base.qcow2")
        with open(raw, "rb") as f, open(self.model, "r+b") as m:
            m.write(f.read(self.size))
            m.truncate(self.size)

    def random_range(self):
        rng, size = self.rng, self.size
        kind = rng.randrange(4)
        if kind == 0:  # whole clusters
            n = (size + self.cluster - 1) // self.cluster
            a = rng.randrange(n)
            b = min(n, a + rng.choice([1, 1, 2, 5, 40]))
            return a * self.cluster, min(b * self.cluster, size) - a * self.cluster
        at = rng.randrange(size // 512) * 512
        length = rng.choice([512, 1024, 4096, 12288, 65536, 300000 // 512 * 512, MIB])
        return at, min(length, size - at)

    def our_turn(self, count):
        rng, lines = self.rng, []
        for _ in range(count):
            at, length = self.random_range()
            what = rng.choices(["write", "read", "zero", "unmap", "discard", "flush", "packed",
                                "odd", "resize"], [40, 10, 8, 8, 10, 6, 10, 6, 1])[0]
            if what == "packed":
                if "data_file" in self.options:
                    continue
                at = at // self.cluster * self.cluster
                length = min(self.cluster, self.size - at)
            if what == "odd":  # bytes that are no sectors
                what, at, length = "write", at + rng.randrange(400), rng.randrange(1, 100)
                length = min(length, self.size - at)
            if what == "resize" and not self.may_resize:
                continue
            if what == "resize":
                self.size = max(512, self.size + rng.randrange(-MIB, MIB) // 512 * 512)
                at, length = self.size, 0
            lines.append(f"{what} {at} {length} {rng.randrange(1, 256)}")
        call(self.driver, "run", self.path, self.model, stdin="\n".join(lines) + "\n")
        self.sides.append("us: " + "; ".join(lines))

    def qemu_turn(self, count):
        rng, args, forgotten = self.rng, [], []
        with open(self.model, "r+b") as m:
            for _ in range(count):
                at, length = self.random_range()
                what = rng.choices(["write", "zero", "unmap", "discard", "flush", "packed"],
                                   [40, 8, 8, 10, 6, 10])[0]
                if what == "flush":
                    args += ["-c", "flush"]
                    continue
                byte = rng.randrange(1, 256)
                m.seek(at)
                if what == "write":
                    args += ["-c", f"write -q -P {byte} {at} {length}"]
                elif what == "discard":
                    args += ["-c", f"discard -q {at} {length}"]
                    forgotten.append((at, length))
                    continue
                elif what == "packed":
                    if "data_file" in self.options:
                        continue
                    at = at // self.cluster * self.cluster
                    length = min(self.cluster, self.size - at)
                    m.seek(at)
                    args += ["-c", f"discard -q {at} {length}", "-c", f"write -q -z -u {at} {length}"]
                    byte = 0
                else:
                    args += ["-c", f"write -q -z {'-u' if what == 'unmap' else ''} {at} {length}"]
                    byte = 0
                m.write(bytes([byte]) * length)
        run = call("qemu-io", "-d", "unmap", "-f", "qcow2", *args, self.path, cwd=self.folder)
        expect("rror" not in run.stdout + run.stderr, run.stdout, run.stderr)
        self.sides.append("QEMU: " + "; ".join(args[1::2]))
        if forgotten:
            self.learn()

    def learn(self):
        """What QEMU made of discarded bytes is not ours to say: the model takes it over."""
        call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.path, self.model,
             cwd=self.folder)

    def check(self, when, leaks_allowed=False):
        run = call("qemu-img", "check", "-f", "qcow2", self.path, ok=False,
                   cwd=self.folder)
        expect(run.returncode in ((0, 3) if leaks_allowed else (0,)), when, "qemu-img check:",
               run.returncode, run.stdout[-1500:], run.stderr[-1500:], "\n".join(self.sides[-2:]))
        ours = call(self.driver, "check", self.path).stdout
        expect(ours.splitlines()[-1].startswith("errors 0 leaks 0 "), when, "our check:", ours[-1500:],
               "\n".join(self.sides[-2:]))

    def compare(self, when):
        run = call("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", self.path, self.model,
                   ok=False, cwd=self.folder)
        expect(run.returncode == 0, when, "qemu-img compare:", run.stdout, run.stderr,
               "\n".join(self.sides))
        ours = call(self.driver, "compare", self.path, self.model, ok=False)
        expect(ours.returncode == 0, when, "our compare:", ours.stderr, "\n".join(self.sides))


COMBINATIONS = [
    dict(zip(("cluster_size", "version", "refcount_bits", "lazy_refcounts", "extended_l2",
              "compression_type", "data_file", "data_file_raw", "backing"), values))
    for values in itertools.product((512, 4096, 16384, 65536, 2 * MIB), (2, 3), (1, 2, 8, 16, 64),
                                    ("off", "on"), ("off", "on"), ("zlib", "zstd"),
                                    (None, "data.raw"), ("off", "on"), (None, "raw", "qcow2"))]


def possible(c):
    if c["version"] == 2 and (c["refcount_bits"] != 16 or c["lazy_refcounts"] == "on" or
                              c["extended_l2"] == "on" or c["compression_type"] != "zlib" or
                              c["data_file"]):
        return False
    if c["extended_l2"] == "on" and c["cluster_size"] < 16384:
        return False
    if c["data_file_raw"] == "on" and (not c["data_file"] or c["backing"]):
        return False
    return True


def plain(c):
    """Without what is the default, which is how people write it."""
    default = {"refcount_bits": 16, "lazy_refcounts": "off", "extended_l2": "off",
               "compression_type": "zlib", "data_file_raw": "off"}
    return {k: v for k, v in c.items() if v is not None and default.get(k) != v}


def interchange(folder, driver, options, seed):
    need_qemu()
    image = Image(driver, folder, random.Random(seed), options)
    image.create()
    for turn in range(4):
        (image.our_turn if turn % 2 == 0 else image.qemu_turn)(40)
        image.check(f"turn {turn}")
        image.compare(f"turn {turn}")


def snapshots(folder, driver):
    """snapshots made by QEMU are listed and read; writing goes on"""
    need_qemu()
    rng = random.Random(SEED)
    for options in ({"cluster_size": 4096}, {"cluster_size": 65536, "extended_l2": "on"}, {"version": 2}):
        image = Image(driver, folder, rng, options)
        image.create()
        for i in range(3):
            image.our_turn(30)
            image.may_resize = options.get("version") != 2
            shutil.copy(image.model, f"{folder}/snap{i}")
            call("qemu-img", "snapshot", "-c", f"snap{i}", image.path)
            image.check("after a snapshot")
        image.our_turn(60)
        image.check("after writing on")
        image.compare("after writing on")
        listed = json.loads(call(driver, "info", image.path).stdout)["snapshots"]
        expect([s["name"] for s in listed] == ["snap0", "snap1", "snap2"], listed)
        for i in range(3):
            call(driver, "compare", image.path, f"{folder}/snap{i}", f"snap{i}")
        call("qemu-img", "snapshot", "-d", "snap1", image.path)
        image.our_turn(40)
        image.check("after a snapshot was deleted")
        image.compare("after a snapshot was deleted")
        call("qemu-img", "snapshot", "-a", "snap0", image.path)
        shutil.copy(f"{folder}/snap0", image.model)
        image.compare("after a snapshot was applied")


def compressed(folder, driver):
    """images that qemu-img convert -c writes are read, of both kinds of compression"""
    need_qemu()
    rng = random.Random(SEED)
    raw = f"{folder}/raw"
    with open(raw, "wb") as f:
        for _ in range(60):
            f.write(rng.choice([b"\0" * 100000, b"text " * 9000, rng.randbytes(60000)]))
        f.truncate(f.tell() // 512 * 512)
    for kind, cluster in (("zlib", 65536), ("zstd", 65536), ("zlib", 2 * MIB), ("zstd", 4096)):
        path = f"{folder}/{kind}{cluster}"
        call("qemu-img", "convert", "-c", "-O", "qcow2", "-o",
             f"compression_type={kind},cluster_size={cluster}", raw, path)
        call(driver, "compare", path, raw)
        lines = [f"write {rng.randrange(2 * MIB)} {rng.randrange(1, 99999)} 7" for _ in range(20)]
        shutil.copy(raw, f"{folder}/model")
        call(driver, "run", path, f"{folder}/model", stdin="\n".join(lines) + "\n")
        call("qemu-img", "check", path)
        call("qemu-img", "compare", path, f"{folder}/model")


def repair(folder, driver):
    """leaks and wrong refcounts are found as QEMU finds them, and repaired"""
    need_qemu()
    rng = random.Random(SEED)
    for bits, damage in itertools.product((1, 16, 64), ("low", "high", "table", "block")):
        image = Image(driver, folder, rng, {"cluster_size": 4096, "refcount_bits": bits})
        image.create()
        image.our_turn(40)
        with open(image.path, "r+b") as f:
            f.seek(48)
            table = int.from_bytes(f.read(8), "big")
            f.seek(table)
            block = int.from_bytes(f.read(8), "big")
            at = {"low": block, "high": block + 4096 - 8, "table": table, "block": table + 6}[damage]
            f.seek(at)
            f.write({"low": bytes(8), "high": bytes(7) + b"\2", "table": bytes(8),
                     "block": b"\x77"}[damage])
        before = call(driver, "check", image.path).stdout.splitlines()[-1]
        expect(not before.startswith("errors 0 leaks 0 "), damage, bits, before)
        call(driver, "check", image.path, "all")
        image.check(f"{damage} {bits} repaired")
        image.compare(f"{damage} {bits} repaired")
        image.our_turn(30)
        image.check("and written on")
        image.compare("and written on")


def rebased(folder, driver):
    """the name of the backing file is changed, and taken away"""
    need_qemu()
    for name in ("x", "a" * 200, "b" * 90 + "/" + "c" * 200 + "/" + "d" * 200):
        path = f"{folder}/overlay"
        os.makedirs(os.path.dirname(f"{folder}/{name}"), exist_ok=True)
        call("qemu-img", "create", "-q", "-f", "raw", f"{folder}/old", "1M")
        shutil.copy(f"{folder}/old", f"{folder}/{name}")
        call("qemu-img", "create", "-q", "-f", "qcow2", "-b", "old", "-F", "raw", path)
        call(driver, "rebase", path, name, "raw")
        info = json.loads(call("qemu-img", "info", "--output=json", path).stdout)
        expect(info["backing-filename"] == name and info["backing-filename-format"] == "raw", info)
        call("qemu-img", "check", path)
        call(driver, "rebase", path)
        info = json.loads(call("qemu-img", "info", "--output=json", path).stdout)
        expect("backing-filename" not in info, info)


def preallocated(folder, driver):
    """preallocation=metadata gives every cluster a place"""
    need_qemu()
    for version in (2, 3):
        path = f"{folder}/p{version}"
        call(driver, "create", path, str(64 * MIB), "preallocation=metadata", f"version={version}")
        call("qemu-img", "check", path)
        run = call(driver, "check", path).stdout
        expect("errors 0 leaks 0" in run and "allocated 1024 " in run, run)
        with open(f"{folder}/zero", "wb") as f:
            f.truncate(64 * MIB)
        call(driver, "compare", path, f"{folder}/zero")
        call("qemu-img", "compare", path, f"{folder}/zero")
        call(driver, "run", path, f"{folder}/zero", stdin="write 1000 200000 5\nwrite 60000000 9 5\n")
        call("qemu-img", "check", path)
        call("qemu-img", "compare", path, f"{folder}/zero")


def bitmaps(folder, driver):
    """QEMU's bitmaps are counted; a write makes them invalid, and a repair frees them"""
    need_qemu()
    image = Image(driver, folder, random.Random(SEED), {"cluster_size": 4096})
    image.create()
    image.our_turn(20)
    for name in ("one", "another"):
        call("qemu-img", "bitmap", "--add", image.path, name)
    image.qemu_turn(20)
    image.check("with bitmaps")
    image.our_turn(20)
    out = call(driver, "check", image.path, "leaks").stdout
    expect("errors 0" in out and "leaks 0" not in out, out)
    image.check("without bitmaps")
    image.our_turn(60)  # what was freed is used again
    image.check("written on")
    image.compare("written on")


def refused(folder, driver):
    """encrypted images and unknown features are refused with a message that says so"""
    need_qemu()
    path = f"{folder}/x"
    call(driver, "create", path, str(MIB))
    with open(path, "r+b") as f:
        f.seek(79)
        f.write(b"\x40")  # incompatible feature 6
    err = call(driver, "info", path, ok=False)
    expect(err.returncode == 1 and "bit 6" in err.stderr, err.stderr)
    call(driver, "create", f"{folder}/luks", str(MIB))
    with open(f"{folder}/luks", "r+b") as f:
        f.seek(32)
        f.write(b"\0\0\0\2")  # crypt_method
    err = call(driver, "info", f"{folder}/luks", ok=False)
    expect(err.returncode == 1 and "encrypted (LUKS)" in err.stderr, err.stderr)


def tests():
    rng = random.Random(SEED)
    chosen = [c for c in COMBINATIONS if possible(c)]
    rng.shuffle(chosen)
    chosen = chosen if LONG else chosen[:10]
    found = []
    for i, c in enumerate(chosen):
        def one(folder, driver, options=plain(c), seed=SEED + i):
            return interchange(folder, driver, options, seed)
        one.__doc__ = f"interchange, seed {SEED}: " + " ".join(f"{k}={v}" for k, v in plain(c).items())
        found.append(one)
    return found + [snapshots, compressed, repair, rebased, preallocated, bitmaps, refused]


if __name__ == "__main__":
    run_tests(tests(), sys.argv[1])
