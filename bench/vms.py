#!/usr/bin/env python3
"""vms.py [--runs N] [SOSIA] - what the verbs on VMs cost: create, linked clone, `ls` of 1,000 VMs; for a
guest of 512 MiB that has used 200: the pause of `snap take`, the way back to a snapshot up to its
first instruction, and what the VMM takes beyond the guest's memory.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "func"))

import disk_guest  # noqa: E402
from figures import spread  # noqa: E402
from vms import Qmp, wait_text  # noqa: E402

# Half of it noise, half of it a program's file; with the kernel, 200 MiB.
FILL = ("mount -t tmpfs t /tmp; for i in $(seq 64); do cat /bin/busybox >/tmp/b$i; "
        "head -c 1m /dev/urandom >/tmp/r$i; done; echo fill''ed\r")


class Bench:
    def __init__(self, prog, folder):
        self.prog, self.top = prog, pathlib.Path(folder) / "home"
        os.environ["SOSIA_HOME"] = str(self.top)

    def run(self, *args):
        start = time.monotonic()
        run = subprocess.run([self.prog, *args], capture_output=True, text=True)
        took = time.monotonic() - start
        if run.returncode:
            sys.exit(f"sosia {' '.join(args)}: {run.stderr}")
        return took * 1e3, run.stdout

    def json(self, *args):
        return json.loads(self.run(*args, "--json")[1])


def show(what, values, unit, bound):
    print(f"{what:44} {spread(values):>20} {unit}   wanted: less than {bound}", flush=True)


def catalog(b, runs):
    show("create", [b.run("create", f"c{n}", "--disk", "10G")[0] for n in range(runs)], "ms", "20")
    show("clone --linked", [b.run("clone", "c0", f"l{n}", "--linked")[0] for n in range(runs)],
         "ms", "20")
    for n in range(1000 - 2 * runs):
        b.run("clone", "c0", f"v{n}", "--linked")
    show("ls of 1,000 VMs", [b.run("ls")[0] for _ in range(runs)], "ms", "100")


def rest_kib(pid):
    """Resident memory of a process without the guest's RAM, as memory or as a state's pages."""
    total, counts = 0, True
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = "guest-ram" not in line and ".state" not in line
        elif line.startswith("Pss:") and counts:
            total += int(line.split()[1])
    return total


def guest(b, folder, runs):
    spec = disk_guest.spec_of(folder, [], lambda root: None, 1)
    b.run("create", "web", "--memory", "512M", "--kernel", spec["kernel"], "--initrd",
          spec["initrd"], "--cmdline", spec["cmdline"], "--disk", "64M")
    b.run("start", "web")
    wait_text(b.prog, "web", disk_guest.PROMPT, 120)
    pid = b.json("info", "web")["pid"]
    show("VMM beyond the guest's memory, interp", [overhead(b, "interp")], "MB", "20")
    show("VMM beyond the guest's memory, jit", [overhead(b, "jit")], "MB",
         "20 and its translations")
    with Qmp(b.top, "web") as q:
        for at in range(0, len(FILL), 64):
            q.call("x-sosia-console-input", data=FILL[at:at + 64])
    wait_text(b.prog, "web", "filled", 120)
    pauses = [b.json("snap", "take", "web")["pause-ns"] / 1e6 for _ in range(runs)]
    size = os.stat(b.top / "vms/web/snapshots/s1/machine.state").st_blocks / 2048
    print(f"the state of the guest has {size:.0f} MiB")
    show("pause of snap take", pauses, "ms", "300")
    if b.json("info", "web")["pid"] != pid:
        sys.exit("another process")
    show("snap restore -f, with the end of the old one",
         [b.run("snap", "restore", "-f", "web", "s1")[0] for _ in range(runs)], "ms", "-")
    starts = []
    for _ in range(runs):
        b.run("suspend", "web")
        starts.append(b.run("start", "web")[0])  # up to the word that the guest runs
    show("start of a suspended VM", starts, "ms", "150")
    b.run("stop", "-f", "web")


def overhead(b, engine):
    b.run("engine", "web", engine)
    return rest_kib(b.json("info", "web")["pid"]) / 1000


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--runs", type=int, default=9)
    p.add_argument("sosia", nargs="?", default=str(ROOT / "build" / "sosia"))
    a = p.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        b = Bench(os.path.abspath(a.sosia), folder)
        catalog(b, a.runs)
        guest(b, folder, a.runs)


main()
