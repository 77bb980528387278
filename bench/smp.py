#!/usr/bin/env python3
"""smp.py DIR [REPS] [--engine E] - what a second vCPU is worth: the throughput of two busy vCPUs
against that of one, in one guest with two (DIR is what prepare.sh made).

Each kind of work is done by one process and by two at once on a processor each (class smp of pb), on
this machine and in the guest. 2 x the one's time / the two's time is the throughput; 2 is ideal, and
the machine itself may have less to give (hyper-threads share a core). `by processor time` is what
the guest would reach if each vCPU had a host processor for itself: it leaves out the time in which
a vCPU's thread waited for one, and is what counts where the machine is busy.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMISED = 1.8
LIMIT_S = 600
MARK = re.compile(rb"@([BEFTS]),([\w/-]+)(?:,([\d.]+))?")


def native(directory):
    """Seconds for each benchmark."""
    out = subprocess.run([directory / "pb", "run", "smp/"], check=True, capture_output=True).stdout
    return {m[2].decode(): float(m[3]) for m in MARK.finditer(out) if m[1] == b"E"}


def vcpu_seconds(pid):
    """Processor time of all vCPU threads so far."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("vcpu"):
            total += int((task / "schedstat").read_text().split()[0])
    return total * 1e-9


def guest(directory, engine):
    """(seconds, processor time of the vCPUs) for each benchmark."""
    times, begun = {}, None
    with tempfile.TemporaryDirectory() as work:
        spec = {"name": "bench", "engine": engine, "cpus": 2, "memory": "256M",
                "kernel": f"{directory}/vmlinuz", "initrd": f"{directory}/initrd",
                "cmdline": "console=ttyS0 quiet panic=-1 bench=smp/"}
        path = pathlib.Path(work, "bench.yaml")
        path.write_text(json.dumps(spec))  # JSON is YAML
        process = subprocess.Popen([ROOT / "build/sosia", "run", path], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE)
        end = time.monotonic() + LIMIT_S
        try:
            for line in process.stdout:
                now = time.monotonic(), vcpu_seconds(process.pid)
                m = MARK.search(line)
                if m and m[1] == b"B":
                    begun = now
                elif m and m[1] == b"E":
                    times[m[2].decode()] = now[0] - begun[0], now[1] - begun[1]
                elif (m and m[1] == b"T" and m[2] == b"done") or now[0] > end:
                    break
        finally:
            process.kill()
            process.wait()
    return times


def spread(values):
    return (f"{statistics.median(values):.2f}" +
            (f" [{min(values):.2f}-{max(values):.2f}]" if len(values) > 1 else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dir", type=pathlib.Path, help="what prepare.sh made")
    parser.add_argument("reps", nargs="?", type=int, default=3)
    parser.add_argument("--engine", default="jit")
    args = parser.parse_args()
    if os.cpu_count() < 2:
        sys.exit("this machine has one processor")
    directory = args.dir.resolve()
    host, wall, cpu = {}, {}, {}
    for rep in range(args.reps):
        print(f"{rep + 1}/{args.reps}", file=sys.stderr, flush=True)
        base, run = native(directory), guest(directory, args.engine)
        for name in (n[:-2] for n in base if n.endswith("-1")):
            if f"{name}-2" not in run:
                sys.exit(f"the guest did not finish {name}")
            one, two = run[f"{name}-1"], run[f"{name}-2"]
            host.setdefault(name, []).append(2 * base[f"{name}-1"] / base[f"{name}-2"])
            wall.setdefault(name, []).append(2 * one[0] / two[0])
            cpu.setdefault(name, []).append(4 * one[1] / two[1])
    print(f"throughput of two {args.engine} vCPUs, one = 1; median [min-max] of {args.reps}\n")
    print("| | this machine | guest | guest, by processor time |\n|---|---|---|---|")
    for name in host:
        print(f"| {name} | {spread(host[name])} | {spread(wall[name])} | {spread(cpu[name])} |")
    least = min(statistics.median(v) for v in cpu.values())
    print(f"\nthe least by processor time is {least:.2f}: "
          f"{'at least' if least >= PROMISED else 'NOT'} {PROMISED}")
    return 0 if least >= PROMISED else 1


if __name__ == "__main__":
    sys.exit(main())
