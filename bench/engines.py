#!/usr/bin/env python3
"""engines.py DIR - how fast Sosia's engines are, against this machine and QEMU's TCG.

Boots the same kernel and disk (DIR is what prepare-engines.sh made) under each engine and runs the
same benchmarks and programs there, each time after a native run of its own, since machines drift;
all of that --reps times. Prints for each class of benchmarks how many times slower than native the
engines are (geometric means, median [min-max] of the repetitions) and how they compare with TCG,
and writes the same with every single benchmark to DIR/engines.md.

Times inside a guest are by its own clock, which is compared with this side's. With --cpu it is
processor time, as this side sees it: for a machine that is busy with other work.
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

from figures import columns, cpu_seconds, markdown, mean, number, spread

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEMORY_MIB = 1024
CLASSES = ["int", "fp", "simd", "mem", "sys", "jit", "priv", "programs"]
SILENCE_S = 180  # a guest that says nothing for so long hangs; pb gives a benchmark 60 s
CLOCK_TOLERANCE = 0.03
MARK = re.compile(r"@([TBRCSF]),([\w/]+)(?:,(\S+))?")
MEDIAN, LEAST, CPU = "median time of a unit", "least time of a unit", "processor time"

# What a run does natively: the guest's init does the same.
NATIVE = """
mount -t tmpfs tmp "$1/tmp" && mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" || exit
shift
exec env -i PATH=/usr/sbin:/usr/bin chroot "$@"
"""


class Run:
    """What one run of an engine, or a native run, showed; times in seconds."""

    def __init__(self):
        self.boot = None     # from the start of the process to the first line of init
        self.work = {}       # benchmark -> seconds
        self.failures = []   # what went wrong, one line each
        self.clock = None    # what the guest's clock made of a second
        self.share = None    # of one CPU that the process had while it worked
        self.kernel = None   # the guest's


class Watcher:
    """Reads what a run prints, until it ends or hangs."""

    def __init__(self, process, native, clock):
        self.process, self.native, self.clock = process, native, clock
        self.run = Run()
        self.start = time.monotonic()
        self.begun = None    # time, processor time and guest's uptime at @T,begin
        self.current = "boot"
        self.cpu = 0.0       # processor time at its start
        self.units = 0       # it has run
        self.ended = False

    def moment(self, uptime):
        return time.monotonic(), cpu_seconds(self.process.pid), float(uptime)

    def end(self, uptime):
        now, cpu, clock = (b - a for a, b in zip(self.begun, self.moment(uptime)))
        self.run.clock, self.run.share = clock / now, cpu / now
        self.ended = True

    def result(self, name, median, least, _first, units):
        # A program's first run is one of its runs, a benchmark's first unit comes on top.
        self.units = int(units) + (not name.startswith("programs/"))
        if self.clock != CPU:
            self.run.work[name] = float(median if self.clock == MEDIAN else least)

    def processor_time(self, name, own):
        """pb's own measurement is right where its processes are processes of this machine."""
        if self.clock == CPU:
            used = float(own) if self.native else cpu_seconds(self.process.pid) - self.cpu
            self.run.work[name] = used / self.units

    def line(self, text):
        mark = MARK.search(text)
        if not mark:
            return
        kind, name, value = mark.groups()
        if kind == "B":
            self.current, self.cpu = name, cpu_seconds(self.process.pid)
        elif kind == "R":
            self.result(name, *value.split(","))
        elif kind == "C":
            self.processor_time(name, value)
        elif kind == "F":
            self.run.failures.append(f"{name} fails with wait status {value}")
        elif kind == "T" and name == "init":
            self.run.boot, self.run.kernel = time.monotonic() - self.start, value
        elif kind == "T" and name == "begin":
            self.begun = self.moment(value)
        elif kind == "T" and name == "end" and self.begun:
            self.end(value)

    def watch(self):
        """Returns the run and all that was printed."""
        fd, output, rest = self.process.stdout.fileno(), b"", b""
        while not self.ended:
            if not select.select([fd], [], [], SILENCE_S)[0]:
                self.run.failures.append(f"{self.current} hangs: silence for {SILENCE_S} s")
                break
            data = os.read(fd, 65536)
            if not data:
                self.run.failures.append(f"the guest ended in {self.current}")
                break
            output += data
            *lines, rest = (rest + data).split(b"\n")
            for text in lines:
                self.line(text.decode(errors="replace"))
        return self.run, output


def sosia(engine):
    def argv(directory, work, suite):
        spec = {"name": "bench", "engine": engine, "cpus": 1, "memory": f"{MEMORY_MIB}M",
                "kernel": f"{directory}/vmlinuz", "initrd": f"{directory}/initrd-disk",
                "cmdline": cmdline(suite), "serial": "terminal",
                "disks": [{"file": f"{directory}/tree.img", "readonly": True}]}
        path = pathlib.Path(work, "bench.yaml")
        path.write_text(json.dumps(spec))  # JSON is YAML
        return [ROOT / "build/sosia", "run", path]
    return argv


def tcg(*options):
    def argv(directory, _work, suite):
        return ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", *options,
                "-m", str(MEMORY_MIB), "-nodefaults", "-nographic", "-no-reboot",
                "-serial", "stdio", "-kernel", f"{directory}/vmlinuz",
                "-initrd", f"{directory}/initrd-disk", "-append", cmdline(suite), "-drive",
                f"file={directory}/tree.img,format=raw,if=none,id=disk,readonly=on",
                "-device", "virtio-blk-pci,drive=disk"]
    return argv


ENGINES = {"jit": sosia("jit"), "interp": sosia("interp"),
           "tcg": tcg(), "tcgmax": tcg("-cpu", "max")}
RIVALS = ["tcg", "tcgmax"]


def cmdline(suite):
    return f"console=ttyS0 quiet panic=-1 suite={','.join(suite)}"


def native(directory, _work, suite):
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    tree = f"{directory}/debian"
    return ["unshare", "--mount", *own, "sh", "-c", NATIVE, "sh", tree, tree, "/bin/sh",
            "/bench/suite.sh", *suite]


def execute(name, argv, directory, suite, clock):
    """One run. If something goes wrong, what was printed is kept in DIR/failed-NAME.log."""
    with tempfile.TemporaryDirectory() as work:
        process = subprocess.Popen(argv(directory, work, suite), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            run, output = Watcher(process, name == "native", clock).watch()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    if run.clock and abs(run.clock - 1) > CLOCK_TOLERANCE:
        run.failures.append(f"its clock makes {run.clock:.3f} s of a second")
    if run.failures:
        log = directory / f"failed-{name}.log"
        log.write_bytes(output)
        for failure in run.failures:
            print(f"{name}: {failure}; see {log}", file=sys.stderr)
    return run


class Report:
    """All runs: for each engine a list of (native run, run), one per repetition."""

    def __init__(self, names):
        self.names = names
        self.runs = {name: [] for name in names}
        self.benches = []
        self.against = [(n, r) for n in names if n not in RIVALS for r in names if r in RIVALS]

    def add(self, name, base, run):
        self.runs[name].append((base, run))
        self.benches += [b for b in base.work if b not in self.benches]

    def classes(self):
        return [c for c in CLASSES if any(b.startswith(c + "/") for b in self.benches)]

    @staticmethod
    def _slower(pair, bench):
        base, run = pair
        return run.work[bench] / base.work[bench]

    @staticmethod
    def _has(pair, bench):
        return all(bench in run.work for run in pair)

    def slowdowns(self, name, bench):
        return [self._slower(p, bench) for p in self.runs[name] if self._has(p, bench)]

    def class_slowdowns(self, name, of):
        """The class's geometric mean in each repetition."""
        values = [[self._slower(p, b) for b in self.benches
                   if b.startswith(of + "/") and self._has(p, b)] for p in self.runs[name]]
        return [mean(v) for v in values if v]

    def class_against(self, name, rival, of):
        """name/rival in each repetition, over the benchmarks that both have run."""
        result = []
        for p, q in zip(self.runs[name], self.runs[rival]):
            both = [self._slower(p, b) / self._slower(q, b) for b in self.benches
                    if b.startswith(of + "/") and self._has(p, b) and self._has(q, b)]
            if both:
                result.append(mean(both))
        return result

    def against_boot(self, name, rival):
        pairs = [(p[1].boot, q[1].boot) for p, q in zip(self.runs[name], self.runs[rival])]
        return [p / q for p, q in pairs if p and q]

    def head(self, first):
        return [first, *(f"{n} / native" for n in self.names),
                *(f"{n} / {r}" for n, r in self.against)]

    def of_runs(self, pick):
        return [spread([pick(run) for _, run in self.runs[n] if pick(run)]) for n in self.names]

    def class_rows(self):
        yield self.head("class")
        for of in self.classes():
            count = sum(b.startswith(of + "/") for b in self.benches)
            yield [f"{of} ({count})", *(spread(self.class_slowdowns(n, of)) for n in self.names),
                   *(spread(self.class_against(n, r, of)) for n, r in self.against)]
        yield ["boot, seconds", *self.of_runs(lambda run: run.boot),
               *(spread(self.against_boot(n, r)) for n, r in self.against)]
        blank = [""] * len(self.against)
        yield ["a second by its clock", *self.of_runs(lambda run: run.clock), *blank]
        yield ["share of a CPU it had", *self.of_runs(lambda run: run.share), *blank]

    def bench_rows(self):
        """All benchmarks; those that compare worst with the last rival first."""
        yield [*self.head("benchmark"), "native ms"]
        rows = []
        for bench in self.benches:
            slow = {n: self.slowdowns(n, bench) for n in self.names}
            against = [[x / y for x, y in zip(slow[n], slow[r])] for n, r in self.against]
            order = statistics.median(against[-1]) if against and against[-1] else 0
            base = statistics.median(p.work[bench] for n in self.names
                                     for p, _ in self.runs[n] if bench in p.work)
            rows.append((order, [bench, *(spread(slow[n]) for n in self.names),
                                 *map(spread, against), number(1e3 * base)]))
        yield from (row for _, row in sorted(rows, key=lambda r: -r[0]))


def output_of(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout.strip()


def setting(args, report):
    """What the figures depend on, one line."""
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    kernels = {run.kernel for pairs in report.runs.values() for _, run in pairs if run.kernel}
    parts = [cpu[1] if cpu else "unknown CPU", f"Linux {os.uname().release}",
             f"guest Linux {', '.join(sorted(kernels))}, {MEMORY_MIB} MiB, 1 CPU",
             "sosia " + (output_of("git", "-C", ROOT, "rev-parse", "--short", "HEAD") or "?")]
    if set(report.names) & set(RIVALS):
        parts.append(output_of("qemu-system-x86_64", "--version").splitlines()[0])
    parts.append(f"{args.clock}, median [min-max] of {args.reps}")
    return "; ".join(parts)


def installed(names):
    for name in names:
        program = "qemu-system-x86_64" if name in RIVALS else ROOT / "build/sosia"
        if shutil.which(program):
            yield name
        else:
            print(f"{name}: {program} is not there; left out", file=sys.stderr)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("dir", type=pathlib.Path, help="what prepare-engines.sh made")
    parser.add_argument("--short", action="store_true",
                        help="some minutes: --seconds 0.1 --reps 1 --program-reps 2")
    parser.add_argument("--reps", type=int, help="default: 3")
    parser.add_argument("--seconds", type=float, help="for each benchmark, default: 0.25")
    parser.add_argument("--program-reps", type=int, help="default: 3")
    parser.add_argument("--engines", default="jit,tcg,tcgmax",
                        help=f"some of {','.join(ENGINES)}; default: jit,tcg,tcgmax")
    parser.add_argument("--only", default=",".join(CLASSES),
                        help="classes or benchmarks, default: " + ",".join(CLASSES))
    busy = parser.add_mutually_exclusive_group()
    busy.add_argument("--least", action="store_const", const=LEAST, dest="clock", default=MEDIAN,
                      help="take the fastest unit: for a machine that is a little busy")
    busy.add_argument("--cpu", action="store_const", const=CPU, dest="clock",
                      help="take processor time: for a machine that is busy")
    args = parser.parse_args()
    args.reps = args.reps or (1 if args.short else 3)
    args.seconds = args.seconds or (0.1 if args.short else 0.25)
    args.program_reps = args.program_reps or (2 if args.short else 3)
    return args


def main():
    args = arguments()
    directory = args.dir.resolve()
    wanted = [w if "/" in w else w + "/" for w in args.only.split(",")]
    suite = [str(args.seconds), str(args.program_reps), *wanted]
    names = list(installed(args.engines.split(",")))
    report, failed = Report(names), not names
    for rep in range(args.reps):
        for name in names:
            print(f"{rep + 1}/{args.reps}: {name}", file=sys.stderr, flush=True)
            base, run = (execute(n, argv, directory, suite, args.clock)
                         for n, argv in (("native", native), (name, ENGINES[name])))
            report.add(name, base, run)
            failed = failed or bool(base.failures or run.failures)
    if names:
        classes, benches = list(report.class_rows()), list(report.bench_rows())
        print(setting(args, report), columns(classes), columns(benches), sep="\n\n")
        text = [setting(args, report), markdown(classes), markdown(benches)]
        (directory / "engines.md").write_text("\n\n".join(text) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
