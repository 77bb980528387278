#!/usr/bin/env python3
"""interp.py DIR [REPS] - how fast the engine `interp` is, against Debian's Bochs and this machine.

Boots the same kernel and initrd (DIR is what prepare.sh made) under `sosia run`, under Bochs, and
under QEMU's TCG for information if it is installed; each after a native run of its own, since
machines drift; all of that REPS times (default: 3). Prints the times as ratios to native, median
and [min-max], and what the two promises come to: not slower than Bochs, and less than 30 MB of
memory beyond the guest's RAM.

Every time is taken on this side of the serial port, because the clock of a guest may lie: Bochs'
counts instructions. With --cpu it is processor time, for a machine that is busy with other work.
"""

import argparse
import json
import os
import pathlib
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from figures import cpu_seconds, family, markdown, mean, number, spread

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEMORY_MIB = 256
LIMIT_S = 900  # one boot and the benchmarks take a minute or two
PROMISED_MB = 30
MARK = re.compile(r"@([TBEF]),([\w/]+)(?:,([^,\s]+))?(?:,(\S+))?")
WALL, CPU = 0, 1  # the two clocks
NATIVE_RUNS = 5  # a native run is short: the median of some

# Debian builds Bochs with its debugger, which waits for a command. The CPU has AVX2, as the one of
# Sosia has; `ips` is about what Bochs reaches, so that its timers tick about as often as real ones.
# The terminal display needs no X; the sound driver aborts where there is no sound card.
BOCHSRC = """\
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_haswell_4770, count=1, ips=100000000
memory: guest={memory}, host={memory}
boot: cdrom
ata0-master: type=cdrom, path="{dir}/grub.iso", status=inserted
com1: enabled=1, mode=file, dev="{serial}"
clock: sync=none
speaker: enabled=0, mode=none
sound: waveoutdrv=dummy
panic: action=fatal
error: action=ignore
info: action=ignore
log: /dev/null
"""


class Run:
    """What one run of an engine showed; times in seconds."""

    def __init__(self):
        self.boot = None        # from the start of the kernel to the first line of its init
        self.loader = 0.0       # from the start of the process to the start of the kernel
        self.kernel = None      # its release
        self.work = {}          # benchmark -> seconds
        self.guest_clock = []   # what the guest's clock makes of a second
        self.share = None       # of one CPU that the process had while it worked
        self.beyond_kib = 0     # resident beyond the guest's RAM, the most that was seen
        self.done = False


def resident_kib(pid):
    """Resident memory of a process, the guest's RAM left out (a mapping called guest-ram)."""
    total, counts = 0, True
    try:
        with open(f"/proc/{pid}/smaps", encoding="utf-8") as smaps:
            for line in smaps:
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    counts = "guest-ram" not in line
                elif line.startswith("Rss:") and counts:
                    total += int(line.split()[1])
    except OSError:
        pass  # it has just ended
    return total


class Watcher:
    """Reads a serial port until the guest has said that it is done, and times what it says.

    A moment is a pair: the time, and the processor time that the process has used by then.
    """

    def __init__(self, process, fd, sample, clock):
        self.process, self.fd, self.sample, self.clock = process, fd, sample, clock
        self.start = time.monotonic(), 0.0
        self.run = Run()
        self.begun = {}
        self.ready = None  # the moment of init's first line

    def moment(self):
        return time.monotonic(), cpu_seconds(self.process.pid)

    def line(self, text, now):
        mark = MARK.search(text)
        if not mark:
            return
        kind, name, value, _ = mark.groups()
        run, clock = self.run, self.clock
        if kind == "B":
            self.begun[name] = now
        elif kind == "E" and name in self.begun and value:
            begun = self.begun[name]
            if now[clock] > begun[clock]:
                run.work[name] = now[clock] - begun[clock]
            run.guest_clock.append(float(value) / (now[WALL] - begun[WALL]))
        elif kind == "T" and name == "kernel":
            run.loader = now[clock] - self.start[clock]
        elif kind == "T" and name == "init":
            run.boot, run.kernel = now[clock] - self.start[clock] - run.loader, value
            self.ready = now
        elif kind == "T" and name == "done":
            run.done = True
            if self.ready:
                run.share = (now[CPU] - self.ready[CPU]) / (now[WALL] - self.ready[WALL])

    def measure_memory(self):
        if self.sample:
            kib = sum(resident_kib(pid) for pid in family(self.process.pid))
            self.run.beyond_kib = max(self.run.beyond_kib, kib)

    def watch(self):
        rest = b""
        while not self.run.done and time.monotonic() < self.start[WALL] + LIMIT_S:
            readable, _, _ = select.select([self.fd], [], [], 1.0)
            now = self.moment()
            if readable:
                data = os.read(self.fd, 65536)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for text in lines:
                    self.line(text.decode(errors="replace"), now)
            self.measure_memory()
        return self.run


class Engine:
    """One way to run the guest. `command` makes its files in `work` and returns the command."""

    def __init__(self, name, command, serial_file=None, sample=False):
        self.name, self.command = name, command
        self.serial_file, self.sample = serial_file, sample

    def execute(self, directory, clock):
        with tempfile.TemporaryDirectory() as work:
            argv = self.command(directory, work)
            fd = None
            if self.serial_file:
                os.mkfifo(f"{work}/{self.serial_file}")
                fd = os.open(f"{work}/{self.serial_file}", os.O_RDWR)  # never at its end
            with open(f"{work}/log", "wb") as log:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log if fd else subprocess.PIPE,
                    stderr=log, env={**os.environ, "TERM": "vt100"})
            watcher = Watcher(process, fd or process.stdout.fileno(), self.sample, clock)
            try:
                run = watcher.watch()
            finally:
                process.kill()
                process.wait()
                if fd:
                    os.close(fd)
            if not run.done:
                log = pathlib.Path(work, "log").read_text(errors="replace")[-2000:]
                print(f"{self.name}: the guest did not finish:\n{log}", file=sys.stderr)
            return run


def sosia(directory, work):
    spec = {"name": "bench", "engine": "interp", "cpus": 1, "memory": f"{MEMORY_MIB}M",
            "kernel": f"{directory}/vmlinuz", "initrd": f"{directory}/initrd",
            "cmdline": cmdline(directory), "serial": "terminal"}
    path = pathlib.Path(work, "bench.yaml")
    path.write_text(json.dumps(spec))  # JSON is YAML
    return [ROOT / "build/sosia", "run", path]


def bochs(directory, work):
    rc = pathlib.Path(work, "bochsrc")
    rc.write_text(BOCHSRC.format(dir=directory, serial=f"{work}/serial", memory=MEMORY_MIB))
    pathlib.Path(work, "debugger").write_text("continue\n")
    return ["bochs-bin", "-q", "-f", rc, "-rc", f"{work}/debugger"]


def tcg(directory, _work):
    return ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-m",
            str(MEMORY_MIB), "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
            "-kernel", f"{directory}/vmlinuz", "-initrd", f"{directory}/initrd",
            "-append", cmdline(directory)]


def cmdline(directory):
    return pathlib.Path(directory, "cmdline").read_text().strip()


def native(directory, classes, clock):
    """Seconds per benchmark, by this machine's own clocks: the median of some runs."""
    times = {}
    for _ in range(NATIVE_RUNS):
        run = subprocess.run([f"{directory}/pb", "run", *classes], check=True,
                             capture_output=True, text=True)
        for kind, name, *seconds in MARK.findall(run.stdout):
            if kind == "E":
                times.setdefault(name, []).append(float(seconds[clock]))
    return {name: statistics.median(t) for name, t in times.items()}


class Report:
    """All runs: for each engine a list of (native times, Run), one per repetition."""

    def __init__(self, engines):
        self.names = [e.name for e in engines]
        self.runs = {name: [] for name in self.names}
        self.native = []

    def add(self, name, base, run):
        self.native.append(base)
        self.runs[name].append((base, run))

    def ratios(self, name, bench):
        return [run.work[bench] / base[bench] for base, run in self.runs[name] if bench in run.work]

    def means(self, name):
        return [m for m in (self._all(*pair) for pair in self.runs[name]) if m]

    def against_bochs(self, pick):
        """sosia/bochs of each repetition; `pick` makes a number of one repetition's two parts."""
        if not {"sosia", "bochs"} <= self.runs.keys():
            return []
        pairs = [(pick(*s), pick(*b)) for s, b in zip(self.runs["sosia"], self.runs["bochs"])]
        return [s / b for s, b in pairs if s and b]

    @staticmethod
    def _all(base, run):
        """The geometric mean over all benchmarks, if all were run."""
        if not base.keys() <= run.work.keys():
            return None
        return mean([run.work[b] / base[b] for b in base])

    def rows(self):
        for bench in self.native[0]:
            yield [bench, number(1e3 * statistics.median(n[bench] for n in self.native)),
                   *(spread(self.ratios(name, bench)) for name in self.names),
                   spread(self.against_bochs(
                       lambda base, run, b=bench: run.work.get(b, 0) / base[b]))]
        yield ["**geometric mean**", "", *(spread(self.means(name)) for name in self.names),
               spread(self.against_bochs(self._all))]
        runs = {name: [run for _, run in pairs] for name, pairs in self.runs.items()}
        yield ["boot to user space, s", "", *(spread([r.boot for r in runs[n] if r.boot])
                                              for n in self.names),
               spread(self.against_bochs(lambda _, run: run.boot))]
        yield ["before that, in firmware and loader, s", "",
               *(spread([r.loader for r in runs[n] if r.boot]) for n in self.names), ""]
        yield ["a second by the guest's clock, s", "",
               *(spread([statistics.median(r.guest_clock) for r in runs[n] if r.guest_clock])
                 for n in self.names), ""]

        yield ["share of a CPU it had", "",
               *(spread([r.share for r in runs[n] if r.share]) for n in self.names), ""]

    def print(self):
        head = ["", "native ms", *(f"{n} / native" for n in self.names), "sosia / bochs"]
        print(markdown([head, *self.rows()]) + "\n")
        for what, values in (("integer work", self.against_bochs(self._all)),
                             ("boot", self.against_bochs(lambda _, run: run.boot))):
            if values:
                verdict = "not slower" if statistics.median(values) <= 1 else "SLOWER"
                print(f"{what}: sosia takes {spread(values)} of Bochs' time: {verdict}")
        beyond = [run.beyond_kib * 1024e-6 for _, run in self.runs.get("sosia", ())
                  if run.beyond_kib]
        if beyond:
            verdict = "under" if max(beyond) < PROMISED_MB else "NOT under"
            print(f"sosia: {max(beyond):.1f} MB beyond guest RAM: {verdict} {PROMISED_MB} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dir", help="what prepare.sh made")
    parser.add_argument("reps", nargs="?", type=int, default=3)
    parser.add_argument("--engines", default="sosia,bochs,tcg", help="some of sosia,bochs,tcg")
    parser.add_argument("--cpu", action="store_true", help="measure processor time, not time")
    args = parser.parse_args()
    clock = CPU if args.cpu else WALL
    directory = pathlib.Path(args.dir).resolve()
    known = {"sosia": (Engine("sosia", sosia, sample=True), ROOT / "build/sosia"),
             "bochs": (Engine("bochs", bochs, serial_file="serial"), "bochs-bin"),
             "tcg": (Engine("tcg", tcg), "qemu-system-x86_64")}
    engines = []
    for name in args.engines.split(","):
        engine, program = known[name]
        if shutil.which(program):
            engines.append(engine)
        else:
            print(f"{name}: {program} is not installed; left out", file=sys.stderr)
    classes = re.search(r"bench=(\S+)", cmdline(directory))[1].split(",")
    report, kernels, complete = Report(engines), set(), bool(engines)
    for rep in range(args.reps):
        for engine in engines:
            print(f"{rep + 1}/{args.reps}: {engine.name}", file=sys.stderr, flush=True)
            base = native(directory, classes, clock)
            run = engine.execute(directory, clock)
            report.add(engine.name, base, run)
            kernels.add(run.kernel)
            complete = complete and run.done
    if engines:
        print(f"Linux {', '.join(map(str, kernels))}, {MEMORY_MIB} MiB of RAM, 1 CPU; "
              f"{'processor time' if args.cpu else 'time'}, median [min-max] of {args.reps}\n")
        report.print()
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
