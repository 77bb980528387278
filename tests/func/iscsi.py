#!/usr/bin/env python3
"""iscsi.py DRIVER - a logical unit of an iSCSI target: tgtd serves a file, in user space and without
privileges, which says afterwards what it holds.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import time

from driver import MIB, SEED, call, lose_server, make_empty, read_file
from tap import Skip, expect, run_tests

SIZE = 16 * MIB
PATH = os.environ["PATH"] + ":/usr/sbin"


class Target:
    def __init__(self, folder, file):
        for tool in ("tgtd", "tgtadm"):
            if not shutil.which(tool, path=PATH):
                raise Skip("tgt is not installed")
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        self.number = str(port % 30000 + 1)
        self.env = dict(os.environ, PATH=PATH, TGT_IPC_SOCKET=f"{folder}/ipc")
        self.process = subprocess.Popen(["tgtd", "-f", "-C", self.number, "--iscsi",
                                         f"portal=127.0.0.1:{port}"], env=self.env,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        name = "iqn.2026-01.test:d"
        for _ in range(100):
            if self.admin("--op", "new", "--mode", "target", "--tid", "1", "-T", name):
                break
            time.sleep(0.1)
        expect(self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b",
                          file), "no logical unit")
        self.admin("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-P",
                   "thin_provisioning=1")
        expect(self.admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"), "no bind")
        self.portal = f"iscsi://127.0.0.1:{port}"
        self.url = f"{self.portal}/{name}/1"

    def admin(self, *args):
        return subprocess.run(["tgtadm", "-C", self.number, "--lld", "iscsi", *args], env=self.env,
                              capture_output=True, timeout=30).returncode == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def writes(folder, driver):
    """reads, writes of odd sizes too, zeroes, trims, flushes; as devices send them"""
    rng = random.Random(SEED)
    raw, out = f"{folder}/raw", f"{folder}/out"
    wanted = bytearray(rng.randbytes(SIZE))
    with open(raw, "wb") as f:
        f.write(wanted)
    lines = []
    for _ in range(40):
        at, n = rng.randrange(SIZE // 512) * 512, rng.choice([512, 4096, 65536, MIB])
        if rng.random() < 0.2:
            at, n = at + rng.randrange(400), rng.randrange(1, 3000)
        n, byte = min(n, SIZE - at), rng.randrange(1, 256)
        what = rng.choice(["write", "fua", "zero", "unmap", "write"])
        wanted[at:at + n] = bytes([byte if what in ("write", "fua") else 0]) * n
        lines += [f"{what} {at} {n} {byte}"] + ["flush 0 0 0"] * (rng.random() < 0.2)
    with Target(folder, raw) as t:
        call(driver, "read", t.url, out, "raw")
        expect(read_file(raw) == read_file(out), "reads wrong")
        call(driver, "write", t.url, "raw", stdin="\n".join(lines))
        call(driver, "read", t.url, out, "raw")
        expect(read_file(raw) == wanted, "the target holds something else; seed", SEED)
        expect(read_file(out) == wanted, "reads wrong after writes; seed", SEED)
        call(driver, "write", t.url, "raw", stdin=f"discard 0 {MIB} 0")
        call(driver, "async", t.url, "raw")
    expect(read_file(raw) == b"".join(bytes([i % 251]) * 65536 for i in range(SIZE // 65536)), "async")


def failures(folder, driver):
    """no such target, a target that is killed: errors"""
    raw, out = f"{folder}/raw", f"{folder}/out"
    make_empty(raw, SIZE)
    seen = call(driver, "read", "iscsi://127.0.0.1", out, "raw", code=1).stderr
    expect("an iSCSI URL is" in seen, seen)
    with Target(folder, raw) as t:
        seen = call(driver, "read", f"{t.portal}/iqn.2026-01.test:other/1", out, "raw", code=1).stderr
        expect("cannot log in" in seen, seen)
        lose_server(driver, t.url, raw, t.process, "session is lost")


run_tests([writes, failures], sys.argv[1])
