#!/usr/bin/env python3
"""disk.py [DIR] [--rounds N] [--only images,new,guest] - how fast disks are, against QEMU.

  new     a thin disk of 1 TiB, and an overlay over it: the time and the space that making them takes
  images  `sosia disk bench` and `qemu-img bench` do the same requests of 4 KiB on the same image
  guest   fio in the same guest, on a virtio disk: `sosia run` (engine jit) and `qemu-system-x86_64
          -accel tcg` (aio=threads and aio=io_uring, the better one counts)

Both take turns in each round. DIR (default build/bench) gets some GB; all of it is in the page cache, so that what
is in front of the disk is measured: nothing is being written back when a run begins, and the time ends with
the last request, before the flush (where qemu-img's ends, too). A ratio is QEMU's time over Sosia's for the same
requests, so above 1 is faster: of the least times of all rounds, then [least-greatest] of the rounds. The
processor time of a request, the least of all rounds too, with the flush, is what counts where the
machine is busy: it leaves out the wait for a processor. Two rounds are some four minutes.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOSIA = ROOT / "build/sosia"
sys.path.insert(0, str(ROOT / "tests/func"))
MIB, BLOCK = 1 << 20, 4096
FULL, THIN = 256 * MIB, 4096 * MIB  # bytes of an image that is full, of one that is empty
MODES = ("read", "randread", "write", "randwrite")
REQUESTS = {"full": 20000, "empty": 8192}  # empty: each write allocates a cluster
DEPTHS = (1, 32)
STRIDE = BLOCK * 40503  # a prime number of blocks: qemu-img's way to be random
GUEST_REQUESTS = {1: 8000, 32: 16000}
FIO = "fio --name=x --filename=/dev/vda --direct=1 --ioengine=libaio --bs=4k --minimal"
PROMPT = "guest:# "


def run(*args):
    """Its output, and the processor time of it and its children in seconds. Waits before until nothing
    is to be written back that others wrote."""
    os.sync()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return out, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sosia_bench(image, fmt, mode, depth, requests):
    """Seconds, and processor time."""
    out, cpu = run(SOSIA, "disk", "bench", image, "--format", fmt, "--mode", mode, "--depth", depth,
                   "--requests", requests, "--destroy-contents", "--json")
    result = json.loads(out)
    return result["seconds"] - result["flush-seconds"], cpu


def qemu_bench(image, fmt, mode, depth, requests):
    random = ["-S", STRIDE] if mode.startswith("rand") else []
    write = ["-w", f"--flush-interval={requests}", "--pattern=7"] if "write" in mode else []
    best = None
    for aio in ("threads", "io_uring"):
        if best and "write" in mode and not is_full(image):
            make(image, fmt, "empty")  # nothing is allocated any more
        out, cpu = run("qemu-img", "bench", "-f", fmt, "-t", "writeback", "-i", aio, "-c", requests,
                       "-d", depth, "-s", BLOCK, *random, *write, image)
        took = float(re.search(r"completed in ([\d.]+)", out)[1])
        if not best or took < best[0]:
            best = took, cpu
    return best


def is_full(image):
    return image.name.startswith("full")


def make(image, fmt, state):
    image.unlink(missing_ok=True)
    run("qemu-img", "create", "-q", "-f", fmt, image, FULL if state == "full" else THIN)
    if state == "full":
        run("qemu-img", "bench", "-f", fmt, "-t", "writeback", "-w", "-c", FULL // MIB, "-s", MIB,
            "--pattern=5", image)


def ratio(pairs):
    """QEMU's over ours: of the least of all, and [least-greatest] of the rounds."""
    each = [theirs / ours for ours, theirs in pairs]
    least = min(theirs for _, theirs in pairs) / min(ours for ours, _ in pairs)
    return f"{least:.2f} [{min(each):.2f}-{max(each):.2f}]"


def cells(requests, ours, theirs):
    """A part of a line of the table; `ours`, `theirs`: (seconds, processor time) of each round."""
    wall = [(a[0], b[0]) for a, b in zip(ours, theirs)]
    cpu = [(a[1], b[1]) for a, b in zip(ours, theirs)]
    least = [min(p[i] for p in cpu) / requests * 1e6 for i in (0, 1)]
    return f" {ratio(wall)} | {least[0]:.1f} | {least[1]:.1f} | {ratio(cpu)} |"


def print_head():
    columns = "".join(f" depth {d}: by time | us of CPU | QEMU | by CPU |" for d in DEPTHS)
    print(f"\n| 4 KiB |{columns}\n|{' --- |' * (1 + 4 * len(DEPTHS))}", flush=True)


def image_cells(image, fmt, state, mode, depth, rounds):
    ours, theirs, n = [], [], REQUESTS[state]
    fresh = state == "empty" and "write" in mode
    for _ in range(rounds):
        for bench, results in ((sosia_bench, ours), (qemu_bench, theirs)):
            if fresh:
                make(image, fmt, state)
            results.append(bench(image, fmt, mode, depth, n))
    if fresh:
        make(image, fmt, state)
    return cells(n, ours, theirs)


def images(folder, rounds):
    for fmt in ("raw", "qcow2"):
        for state in ("full", "empty"):
            image = folder / f"{state}.{fmt}"
            make(image, fmt, state)
            for mode in MODES:
                print(f"| {fmt}, {state}, {mode} |", end="", flush=True)
                print(*(image_cells(image, fmt, state, mode, d, rounds) for d in DEPTHS), sep="",
                      flush=True)
            image.unlink()


def new(folder, rounds):
    """What a new disk costs: the least of some runs of the whole program."""
    print("\n| new | sosia, ms | qemu-img, ms | bytes on the disk | bytes of the file |")
    print("| --- | --- | --- | --- | --- |")
    base, top = folder / "1T.qcow2", folder / "top.qcow2"
    for name, path, ours, theirs in (
            ("thin disk of 1 TiB", base, ["disk", "create", base, "1T"],
             ["create", "-q", "-f", "qcow2", base, "1T"]),
            ("overlay of it", top, ["disk", "create", top, "--backing", base.name,
                                    "--backing-format", "qcow2"],
             ["create", "-q", "-f", "qcow2", "-b", base.name, "-F", "qcow2", top])):
        least = {}
        for _ in range(5 * rounds):
            for program, args in (("qemu-img", theirs), (SOSIA, ours)):
                path.unlink(missing_ok=True)
                begun = time.monotonic()
                run(program, *args)
                took = (time.monotonic() - begun) * 1000
                least[program] = min(took, least.get(program, took))
        st = path.stat()
        print(f"| {name} | {least[SOSIA]:.1f} | {least['qemu-img']:.1f} | {st.st_blocks * 512} | "
              f"{st.st_size} |", flush=True)
    top.unlink()
    base.unlink()


# ---- the guest ----

def guest_files(folder):
    """Kernel and initrd with fio: what the tests of disks use."""
    import disk_buses
    from packages import busybox_initrd, one, package
    kernel = one(package("linux-image-amd64", names="linux-image-6"), "boot/vmlinuz-*")
    return kernel, pathlib.Path(busybox_initrd(folder / "initrd", fill=disk_buses.with_fio))


class Machine:
    """A guest in a process; its console is the process' standard input and output."""

    def __init__(self, *args):
        self.process = subprocess.Popen([str(a) for a in args], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.text = ""

    def until(self, pattern):
        while not (m := re.search(pattern, self.text)):
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise SystemExit(f"the guest ended: {self.text[-500:]}")
            self.text += data.decode("latin-1")
        self.text = self.text[m.end():]
        return m

    def ask(self, command):
        """Its output, and the processor time that the process had meanwhile."""
        def cpu():
            fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1]
            used = fields.split()[11:13]
            return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
        before = cpu()
        self.process.stdin.write(f"echo '<''begin>'; {command}; echo '<''end>'\r".encode())
        self.process.stdin.flush()
        self.until(r"<begin>\r*\n")
        out = self.until(r"(?s)(.*)<end>")[1]
        return out, cpu() - before

    def end(self):
        self.process.kill()
        self.process.wait()


def sosia_machine(folder, kernel, initrd, image):
    spec = {"memory": "1G", "engine": "jit", "kernel": str(kernel), "initrd": str(initrd),
            "cmdline": "console=ttyS0", "disks": [{"file": str(image), "format": "qcow2"}]}
    (folder / "vm.yaml").write_text(json.dumps(spec), encoding="utf-8")
    return Machine(SOSIA, "run", folder / "vm.yaml")


def qemu_machine(kernel, initrd, image, aio):
    return Machine("qemu-system-x86_64", "-accel", "tcg", "-m", "1G", "-kernel", kernel, "-initrd",
                   initrd, "-append", "console=ttyS0", "-nographic", "-monitor", "none", "-serial",
                   "stdio", "-nodefaults", "-no-reboot", "-drive",
                   f"file={image},format=qcow2,if=virtio,cache=writeback,aio={aio}")


def guest_round(machine, results):
    """All of fio's runs in a guest that has just started: adds (seconds, processor time). What it takes
    to start fio, whose code is translated by then, is left out."""
    machine.until(PROMPT)
    machine.ask("/load")
    starts = [machine.ask(f"{FIO} --rw=read --number_ios=4")[1] for _ in range(4)]
    for mode in MODES:
        for depth, n in GUEST_REQUESTS.items():
            out, cpu = machine.ask(f"{FIO} --rw={mode} --iodepth={depth} --number_ios={n}")
            fields = out.strip().split("\n")[-1].split(";")
            ms = int(fields[8 if "read" in mode else 49])
            results.setdefault((mode, depth), []).append((ms / 1000, cpu - min(starts)))
    machine.end()


def guest(folder, rounds):
    kernel, initrd = guest_files(folder)
    image, ours, theirs = folder / "full.qcow2", {}, {}
    make(image, "qcow2", "full")
    for _ in range(rounds):
        guest_round(sosia_machine(folder, kernel, initrd, image), ours)
        both = [{}, {}]
        for aio, results in zip(("threads", "io_uring"), both):
            guest_round(qemu_machine(kernel, initrd, image, aio), results)
        for key in ours:
            theirs.setdefault(key, []).append(min(both[0][key][0], both[1][key][0]))
    for mode in MODES:
        print(f"| guest, {mode} |", *(cells(GUEST_REQUESTS[d], ours[mode, d], theirs[mode, d])
                                      for d in DEPTHS), sep="", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", nargs="?", type=pathlib.Path, default=ROOT / "build/bench")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="new,images,guest")
    args = parser.parse_args()
    if not shutil.which("qemu-img") or not shutil.which("qemu-system-x86_64"):
        raise SystemExit("disk.py: QEMU is missing; scripts/setup.sh bench installs it")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; {args.rounds} rounds")
    args.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.dir.resolve(), prefix="sosia-bench-") as folder:
        parts = args.only.split(",")
        if "new" in parts:
            new(pathlib.Path(folder), args.rounds)
        print_head()
        if "images" in parts:
            images(pathlib.Path(folder), args.rounds)
        if "guest" in parts:
            guest(pathlib.Path(folder), args.rounds)


main()
