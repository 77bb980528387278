#!/usr/bin/env python3
"""raid.py SOSIA - arrays: made, looked at and refused by the tool; a guest on a mirror goes on when a
member dies, and finds everything when it has come back.
"""

import hashlib
import json
import os
import pathlib
import sys

from driver import MIB, make_empty, read_file
from guest import ANSWER, BOOT, Guest, need
from nbd_server import Server
from packages import add_modules, busybox_initrd, one, package, sample
from tap import expect, run_tests, sosia

PROMPT = "guest:# "
SIZE = 6 * MIB
META = 16 << 10


def disk(prog, *args, code=0):
    r = sosia(prog, "disk", *map(str, args), "--json")
    expect(r.code == code, args, r.code, r.out, r.err)
    return json.loads(r.out)


def states(prog, path):
    return [m["state"] for m in disk(prog, "info", path)["raid"]["members"]]


def tool(folder, prog):
    """raid: what is made, and what is refused"""
    f = pathlib.Path(folder)
    a, b, c = f / "a.qcow2", f / "b.img", f / "c.img"
    disk(prog, "create", a, "4M")
    disk(prog, "create", b, "5M")
    c.write_bytes(os.urandom(4 * MIB))
    for args, says in (([a], "missing"), ([a, b], "which --level"), ([a, b, "--level", "5"], "0 to 1"),
                       ([a, b, "--level", "1", "--chunk", "64K"], "level 0")):
        expect(says in disk(prog, "raid", *args, code=2)["error"]["message"], says)
    for args, says in (([a, c, "--level", "1"], "--destroy-contents"),
                       ([c, a, "--level", "1"], "last 16 KiB"), ([b, a, "--level", "1"], "smaller"),
                       ([a, f / "no", "--level", "0"], "no such file")):
        expect(says in disk(prog, "raid", *args, code=1)["error"]["message"], says)
    disk(prog, "raid", a, b, "--level", "1")
    expect(states(prog, a) == states(prog, b) == ["in sync"] * 2, "two empty images are the same")
    expect("member of an array" in disk(prog, "resize", a, "+1M", code=1)["error"]["message"], "resize")
    disk(prog, "raid", b, c, "--level", "1", "--destroy-contents", code=1)  # now c is too small
    disk(prog, "raid", c, b, "--level", "1", "--destroy-contents")
    expect(states(prog, c) == ["in sync", "rebuilding"], states(prog, c))


def contents(folder, prog):
    """convert and bench of an array, mirrored and striped, with its members in any order"""
    f = pathlib.Path(folder)
    data = os.urandom(3 * MIB)
    (f / "m0.raw").write_bytes(data + bytes(MIB))
    disk(prog, "create", f / "m1.qcow2", "4M")
    disk(prog, "raid", f / "m0.raw", f / "m1.qcow2", "--level", "1")
    both = f"raid:{f}/m0.raw,{f}/m1.qcow2"
    disk(prog, "convert", both, f / "out.raw")
    expect(read_file(f / "out.raw") == data + bytes(MIB - META), "the mirror reads wrong")
    error = disk(prog, "convert", f"raid:{f}/m1.qcow2", f / "x", code=1)["error"]
    expect(error["code"] == "state" and "member 0" in error["message"], error)
    stripes = [f / f"s{i}.raw" for i in range(3)]
    for s in stripes:
        make_empty(s, 2 * MIB)
    disk(prog, "raid", *stripes, "--level", "0", "--chunk", "16K")
    for i, s in enumerate(stripes):
        with open(s, "r+b") as member:
            member.write(b"".join(data[at:at + (16 << 10)]
                                  for at in range(i * (16 << 10), len(data), 48 << 10)))
    name = "raid:" + ",".join(map(str, reversed(stripes)))
    disk(prog, "convert", name, f / "out.raw", "--replace")
    out = read_file(f / "out.raw")
    expect(len(out) == 3 * (2 * MIB - META) and out[:len(data)] == data, "the stripes read wrong")
    expect(not any(out[len(data):]), "there is more")
    got = disk(prog, "bench", name, "--duration", "1")
    expect(got["requests"] > 0, got)


def fill(root):
    add_modules(root, ["virtio_pci", "virtio_blk"], "insmod sync")


def boot(folder, prog, members, more=None):
    kernel = one(package("linux-image-amd64", names="linux-image-6"), "boot/vmlinuz-*")
    initrd = pathlib.Path(folder) / "initrd"
    if not initrd.exists():
        busybox_initrd(initrd, fill=fill)
    return Guest(prog, folder, {
        "memory": "384M", "kernel": str(kernel), "cmdline": "console=ttyS0", "initrd": str(initrd),
        "disks": [{"raid": 1, "members": [str(m) for m in members], **(more or {})}]})


def read_all(g):
    """The disk's contents, past the guest's cache."""
    g.ask("echo 3 >/proc/sys/vm/drop_caches")
    return g.ask("md5sum </dev/vda", 4 * ANSWER).split()[0]


def start(g):
    g.boot(2 * BOOT, PROMPT)
    g.ask("/load", 2 * ANSWER)


def stop(g, says=""):
    g.send("poweroff -f\r")
    g.end(0, says)


def mirror(folder, prog):
    """a guest on a mirror, one of whose members dies, is missing, and comes back"""
    sample()
    need("qemu-nbd")
    f = pathlib.Path(folder)
    served, local = f / "served.raw", f / "local.qcow2"
    served.write_bytes(os.urandom(SIZE - MIB) + bytes(MIB))
    wanted = bytearray(read_file(served)[:SIZE - META])
    disk(prog, "create", local, SIZE)
    with Server(folder, served) as s:
        disk(prog, "raid", s.uri, local, "--level", "1", "--destroy-contents")
        with boot(folder, prog, [s.uri, local]) as g:
            start(g)
            expect(read_all(g) == hashlib.md5(wanted).hexdigest(), "it reads wrong")
            for _ in range(100):  # the rebuild ends, in the background
                if states(prog, local) == ["in sync"] * 2:
                    break
                g.ask("sleep 0.1")
            s.process.kill()
            s.process.wait()
            g.ask("dd if=/dev/vda of=/new bs=64k count=10 && dd if=/new of=/dev/vda bs=4k seek=777 "
                  "conv=notrunc,fsync", 2 * ANSWER)
            at = 777 << 12
            wanted[at:at + (640 << 10)] = wanted[:640 << 10]
            expect(read_all(g) == hashlib.md5(wanted).hexdigest(), "it reads wrong without a member")
            expect(g.stderr().count("it is dropped") == 1, "told once", g.stderr())
            stop(g, "member 0")
    expect(states(prog, local) == ["stale", "in sync"], states(prog, local))

    with Server(folder, served) as s:
        with boot(folder, prog, [s.uri]) as g:  # what is behind does not serve as the disk
            g.end(1, "member 1 of the array (?) is missing")
        with boot(folder, prog, [local, s.uri]) as g:
            start(g)
            expect(read_all(g) == hashlib.md5(wanted).hexdigest(), "it reads wrong")
            for _ in range(300):
                if states(prog, local) == ["in sync"] * 2:
                    break
                g.ask("sleep 0.1")
            stop(g)
    expect(states(prog, local) == ["in sync"] * 2, states(prog, local))
    expect(read_file(served)[:SIZE - META] == wanted, "it was not rebuilt")


run_tests([tool, contents, mirror], sys.argv[1])
