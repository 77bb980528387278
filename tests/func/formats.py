#!/usr/bin/env python3
"""formats.py DRIVER - images of other programs' formats, made by qemu-img: the guest sees the bytes
that QEMU's tools put into them.
"""

import os
import random
import shutil
import sys

from driver import MIB, SEED, call
from tap import Skip, case, expect, run_tests


def need_qemu():
    if not shutil.which("qemu-img"):
        raise Skip("qemu-utils is not installed")


def make_raw(path, rng, size):
    """Data here and there: bytes that do not compress, and some that do."""
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(30):
            at, n = rng.randrange(size), rng.choice([512, 70000, 300000])
            n = min(n, size - at)
            f.seek(at)
            f.write(rng.randbytes(n) if rng.random() < 0.5 else bytes([rng.randrange(1, 256)]) * n)


def same(a, b):
    with open(a, "rb") as f, open(b, "rb") as g:
        return f.read() == g.read()


def vmdk(folder, driver, subformat, opts=""):
    need_qemu()
    rng = random.Random(SEED)
    raw, image, out = (f"{folder}/{n}" for n in ("raw", "disk.vmdk", "out"))
    make_raw(raw, rng, 12 * MIB + 512 * rng.randrange(1, 200))
    call("qemu-img", "convert", "-O", "vmdk", "-o", f"subformat={subformat}{opts}", raw, image)
    for name in ("auto", "vmdk"):
        call(driver, "read", image, out, name)
        expect(same(raw, out), subformat, "reads wrong; seed", SEED)
    total = 0
    for line in call(driver, "map", image, "auto").stdout.splitlines():
        total += int(line.split()[2])
    expect(total == os.path.getsize(raw), "map ends at", total)
    expect("can only be read" in call(driver, "write", image, "auto", code=1).stderr, "writable")


def vmdk_parent(folder, driver):
    """vmdk: a child shows its parent's bytes, unless the parent was changed since"""
    need_qemu()
    rng = random.Random(SEED)
    raw, base, top, out = (f"{folder}/{n}" for n in ("raw", "base.vmdk", "top.vmdk", "out"))
    make_raw(raw, rng, 8 * MIB)
    call("qemu-img", "convert", "-O", "vmdk", raw, base)
    call("qemu-img", "create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", top)
    call("qemu-io", "-f", "vmdk", "-c", "write -P 7 1M 200k", "-c", "write -P 9 5000k 4k", top)
    with open(raw, "r+b") as f:
        for at, n, byte in ((MIB, 200 << 10, 7), (5000 << 10, 4096, 9)):
            f.seek(at)
            f.write(bytes([byte]) * n)
    call(driver, "read", top, out, "vmdk")
    expect(same(raw, out), "the child reads wrong; seed", SEED)
    call("qemu-io", "-f", "vmdk", "-c", "write -P 1 0 4k", base)
    expect("changed since" in call(driver, "read", top, out, "vmdk", code=1).stderr, "changed parent")


def vmdk_hostile(folder, driver):
    """vmdk: extents outside the folder, missing, short or looping are refused"""
    need_qemu()
    os.mkdir(f"{folder}/vm")
    image, out = f"{folder}/vm/disk.vmdk", f"{folder}/out"
    with open(f"{folder}/secret", "wb") as f:
        f.truncate(MIB)
    with open(f"{folder}/vm/part", "wb") as f:
        f.truncate(MIB)
    for extent, says in (('RW 2048 FLAT "../secret" 0', "not in the image's folder"),
                         ('RW 8 FLAT "/etc/passwd" 0', "not in the image's folder"),
                         ('RW 8 FLAT "none" 0', "cannot be found"),
                         ('RW 8 FLAT "disk.vmdk" 0', "its own backing file"),
                         ('RW 2049 FLAT "part" 0', "shorter than the descriptor says"),
                         ('RW 2048 FLAT "part" 1', "shorter than the descriptor says"),
                         ('RW 2048 SPARSE "part"', "no header"),
                         ('RW 2048 SESPARSE "part"', "not supported"),
                         ('NOACCESS 2048 FLAT "part"', "must not be accessed"),
                         ('RW x FLAT "part"', "no number of sectors"),
                         ('RW 8 FLAT "part', "no file name"),
                         ("", "names no extents")):
        with open(image, "w", encoding="utf-8") as f:
            f.write("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n" + extent + "\n")
        seen = call(driver, "read", image, out, "auto", code=1).stderr
        expect(says in seen, extent, "says", seen)
    with open(image, "w", encoding="utf-8") as f:
        f.write('# disk descriptorfile\r\ncreateType = "custom"\r\nRW 1024 FLAT "part" 1024\r\n'
                'RW 100 ZERO\r\nRDONLY 8 FLAT "part" 3\r\n')
    call(driver, "read", image, out, "auto")
    expect(os.path.getsize(out) == (1024 + 108) * 512, "size", os.path.getsize(out))


def vdi(folder, driver, static):
    need_qemu()
    rng = random.Random(SEED)
    raw, image, out = (f"{folder}/{n}" for n in ("raw", "disk.vdi", "out"))
    make_raw(raw, rng, 12 * MIB + 512 * rng.randrange(1, 200))
    call("qemu-img", "convert", "-O", "vdi", "-o", f"static={static}", raw, image)
    for name in ("auto", "vdi"):
        call(driver, "read", image, out, name)
        expect(same(raw, out), "reads wrong; seed", SEED)
    both_write(driver, rng, raw, image)
    call(driver, "read", image, out, "vdi")
    expect(same(raw, out), "reads wrong after writes; seed", SEED)


def both_write(driver, rng, raw, image):
    """Writes by us and by QEMU in turn; each time QEMU compares with `raw` and checks."""
    size = os.path.getsize(raw)
    for turn in range(6):
        lines, args = [], []
        with open(raw, "r+b") as f:
            for _ in range(12):
                at = rng.randrange(size // 512) * 512
                n = min(rng.choice([512, 4096, 70 * 1024, 3 * MIB]), size - at)
                byte = rng.choice([0, rng.randrange(1, 256)])
                lines.append(f"{rng.choice(['write', 'fua', 'write']) if byte else 'unmap'} "
                             f"{at} {n} {byte}")
                if rng.random() < 0.2:
                    lines.append("flush 0 0 0")
                args += ["-c", f"write -q {'-P %d' % byte if byte else '-z'} {at} {n}"]
                f.seek(at)
                f.write(bytes([byte]) * n)
        if turn % 2:
            call("qemu-io", "-f", "vdi", *args, image)
        else:
            call(driver, "write", image, "vdi", stdin="\n".join(lines))
        call("qemu-img", "compare", "-f", "raw", "-F", "vdi", raw, image)
        call("qemu-img", "check", "-f", "vdi", image)


VMDK = [case(f"vmdk: {s}{o}", vmdk, s, o)
        for s, o in (("monolithicSparse", ""), ("monolithicSparse", ",zeroed_grain=on"),
                     ("streamOptimized", ""), ("monolithicFlat", ""), ("twoGbMaxExtentFlat", ""),
                     ("twoGbMaxExtentSparse", ""))]
VDI = [case(f"vdi: static={s}, written by us and by QEMU", vdi, s) for s in ("off", "on")]
run_tests([*VMDK, vmdk_parent, vmdk_hostile, *VDI], sys.argv[1])
