#!/usr/bin/env python3
"""sandbox.py SOSIA - what a VM in the background needs, it can: remote disks, another engine. What it does
not need is tried from inside in unit/test_sandbox.c."""

import hashlib
import os
import pathlib
import sys

from guest import ANSWER, BOOT, SANITIZED
from iscsi_target import Target
from nbd_server import Server
from tap import Skip, expect, expect_run, run_tests, sosia, write
from vms import catalog, get, make_demo, ok, wait_text

PROMPT = "sosia:.*# "
SIZE = 4 << 20
COPY = ("for d in vdb vdc; do dd if=/dev/$d bs=64k 2>/dev/null | md5sum; done; "
        "dd if=/dev/vdb of=/dev/vdc bs=64k conv=fsync 2>/dev/null && echo co''pied")


def typed(prog, text):
    expect_run(sosia(prog, "console", "web", stdin=text + "\x01x"), 0)


def locked_up(prog):
    """Every thread is."""
    pid = get(prog, "info", "web")["pid"]
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        status = (thread / "status").read_text()
        expect("Seccomp:\t2" in status, "a thread outside the sandbox", status)


def remote(folder, prog):
    """remote disks by NBD and iSCSI, read and written; then with another engine, made in the sandbox"""
    if SANITIZED:
        raise Skip("the sanitizers' runtime needs calls that no VM does: there is no sandbox")
    source, target = (pathlib.Path(folder) / name for name in ("source", "target"))
    for path in (source, target):
        path.write_bytes(os.urandom(SIZE))
    sums = [hashlib.md5(path.read_bytes()).hexdigest() for path in (source, target)]
    with Server(folder, str(source)) as nbd, Target(folder, str(target)) as iscsi, \
            catalog(folder, prog):
        own = write(folder, "own", "x" * (1 << 20))  # the guest formats its first disk
        make_demo(prog, "web", "--set", "engine=interp", "--set",
                  f"disks=['{own}', {{file: '{nbd.uri}'}}, {{file: '{iscsi.url}'}}]")
        ok(prog, "start", "web")
        wait_text(prog, "web", PROMPT, BOOT)
        locked_up(prog)
        typed(prog, f"{COPY}\r")
        wait_text(prog, "web", "copied", ANSWER)
        said = ok(prog, "logs", "--serial", "web")
        expect(all(s in said for s in sums), sums, said[-600:])
        ok(prog, "engine", "web", "jit")
        source.write_bytes(os.urandom(SIZE))
        typed(prog, "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vdb of=/dev/vdc bs=64k conv=fsync "
              "2>/dev/null && echo a''gain\r")
        wait_text(prog, "web", "again", ANSWER)
        locked_up(prog)
        ok(prog, "stop", "web")  # by the power button
    expect(source.read_bytes() == target.read_bytes(), "the copy differs")


run_tests([remote], sys.argv[1])
