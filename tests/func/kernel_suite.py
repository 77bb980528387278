#!/usr/bin/env python3
"""kernel_suite.py SOSIA FOLDER [TEST...] - runs public test kernels that were built elsewhere.

FOLDER holds one of:
  unittests.cfg and *.flat   kvm-unit-tests for x86-64, as its build leaves them
  test386.bin                the ROM of test386.asm, built with COM_PORT = 1, and beside it
                             test386-EE-reference.txt, which its output is compared with
One line per test: PASS, FAIL, SKIP (the test says that it needs what is not there) or HANG, its
time, and what it reported. What is known of each test is in kvm-unit-tests-expected.txt beside this
file; a result that is not the one there is marked, and makes the exit status 1.

  --qemu   runs them on QEMU's TCG instead, with the CPU model and devices that each test asks for
  --all    also those of groups that need nested virtualisation, Hyper-V or a host's PMU
  -j N     that many at once (default 1)
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time

EXPECTED = pathlib.Path(__file__).with_name("kvm-unit-tests-expected.txt")
TIMEOUT = 90  # seconds, where the suite does not say; its own are for hardware: times SLOWER
SLOWER = 4
MEMORY = 128  # MiB, where the suite does not say: QEMU's default
FOREIGN_GROUPS = {"svm", "vmx", "hyperv", "pmu", "nodefault"}


class Test:
    def __init__(self, folder, name, keys):
        self.folder, self.name = folder, name
        self.file = keys.get("file", "")
        self.smp = int(keys.get("smp", "1"))
        self.arch = keys.get("arch", "x86_64")
        self.groups = set(keys.get("groups", "").split())
        self.qemu = shlex.split(keys.get("qemu_params", ""))
        self.args = keys.get("test_args", "").strip("'\"")
        self.timeout = int(keys["timeout"]) * SLOWER if "timeout" in keys else TIMEOUT
        self.memory = MEMORY
        if "-m" in self.qemu:
            size = self.qemu[self.qemu.index("-m") + 1].lower()
            self.memory = int(size[:-1]) * 1024 if size.endswith("g") else int(size)

    def command_line(self):
        return self.args.replace("`date +%s`", str(int(time.time())))


class Outcome:
    def __init__(self, word, seconds, detail):
        self.word, self.seconds, self.detail = word, seconds, detail


def read_config(folder):
    """The tests of a unittests.cfg, in its order."""
    tests, name, keys = [], None, {}
    lines = (folder / "unittests.cfg").read_text(encoding="utf-8").splitlines() + ["[]"]
    for line in lines:
        line = line.split("#", 1)[0].strip()
        section = re.fullmatch(r"\[(.*)\]", line)
        if section:
            if name:
                tests.append(Test(folder, name, keys))
            name, keys = section[1], {}
        elif "=" in line:
            key, value = line.split("=", 1)
            keys[key.strip()] = value.strip()
    return tests


def run_until(argv, timeout, done=None, env=None):
    """The output of a machine until it ends, prints what matches `done`, or time is up.
    Returns (text, exit status or None)."""
    text = bytearray()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env=env)
    timer = threading.Timer(timeout, process.terminate)
    timer.start()
    try:
        for line in process.stdout:
            text += line
            if done and re.search(done, line):
                process.terminate()
                break
        text += process.stdout.read()
    finally:
        status = process.wait()
        late = not timer.is_alive()
        timer.cancel()
        process.stdout.close()
    return text.decode("utf-8", "replace").replace("\r", ""), None if late else status


def sosia_machine(program, test, folder):
    """argv for Sosia: its one CPU model, and a PC with the test device. In its environment, the
    initrd, a test is told that there is none: so it leaves out what it asks of KVM itself."""
    env = folder / "env"
    env.write_text("TEST_DEVICE=0\n", encoding="utf-8")
    spec = {"cpus": test.smp, "memory": f"{test.memory}M", "testdev": True, "initrd": str(env),
            "kernel": str((test.folder / test.file).resolve()), "cmdline": test.command_line()}
    path = folder / "vm.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return [program, "run", str(path)]


def qemu_machine(test):
    """argv for QEMU without KVM; what only KVM can offer is as good as TCG's best."""
    params = [p for p in test.qemu if p != "-enable-kvm"]
    for n in range(1, len(params)):
        if params[n - 1] == "-cpu" and params[n].startswith("host"):
            params[n] = "max"
    return ["qemu-system-x86_64", "-nodefaults", "-accel", "tcg", "-display", "none",
            "-vga", "none", "-device", "pc-testdev",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4",
            "-serial", "stdio", "-no-reboot", "-smp", str(test.smp),
            "-kernel", str(test.folder / test.file), "-append", test.command_line(), *params]


def judge(text, status, timeout):
    """What the suite's own harness makes of it: the summary, and the exit status."""
    summary = (re.findall(r"^SUMMARY: (.*)$", text, re.M) or [""])[-1]
    told = re.search(r"^sosia: the guest ended with status (\d+)", text, re.M)
    code = int(told[1]) if told else status  # None: it had to be ended
    failures = re.findall(r"^FAIL: (.*)$", text, re.M)
    detail = summary + "".join(f"; {f}" for f in failures[:3])
    if len(failures) > 3:
        detail += f"; and {len(failures) - 3} more"
    if code is None:
        last = [line for line in text.splitlines() if line.strip()]
        return "HANG", f"no end within {timeout} s; last line: {last[-1] if last else 'none'}"
    skips = re.findall(r"^SKIP: (.*)$", text, re.M)
    if code == 77 or summary.startswith("0 tests") or re.match(r"1 tests, 1 skipped", summary):
        before = re.findall(r"^(.*)\nSUMMARY: ", text, re.M)
        return "SKIP", (skips or before or [summary])[0]
    if code != 0 or "unexpected failure" in summary:
        stopped = re.search(r"^Unhandled exception.*$", text, re.M)
        return "FAIL", detail or (stopped[0] if stopped else f"exit status {code}")
    return "PASS", detail


def run_kvm_unit_test(test, options):
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if options.qemu:
            text, status = run_until(qemu_machine(test), test.timeout)
            status = status if status is None else status >> 1  # isa-debug-exit: 2 * n + 1
        else:
            argv = sosia_machine(options.sosia, test, pathlib.Path(folder))
            text, status = run_until(argv, test.timeout)
    if options.log:
        (options.log / f"{test.name}.log").write_text(text, encoding="utf-8")
    word, detail = judge(text, status, test.timeout)
    return Outcome(word, time.monotonic() - start, detail)


def read_expected():
    """NAME WORD of each line; the rest of the line is for people."""
    known = {}
    for line in EXPECTED.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if len(fields) >= 2 and not line.startswith("#"):
            known[fields[0]] = fields[1]
    return known


def show(name, outcome, expected):
    """One line; True if it is as expected (or nothing is known)."""
    good = expected in (None, outcome.word)
    mark = "" if good else f"   <-- expected {expected}"
    print(f"{outcome.word}  {name:32} {outcome.seconds:6.1f} s  {outcome.detail[:300]}{mark}",
          flush=True)
    return good


def run_kvm_unit_tests(options):
    tests = [t for t in read_config(options.folder)
             if (t.name in options.test if options.test else
                 t.arch == "x86_64" and (options.all or not t.groups & FOREIGN_GROUPS))]
    known = {} if options.qemu else read_expected()
    good, words = True, []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [(t, pool.submit(run_kvm_unit_test, t, options)) for t in tests
                   if (t.folder / t.file).exists()]
        for test, future in futures:
            outcome = future.result()
            words.append(outcome.word)
            good &= show(test.name, outcome, known.get(test.name))
    print(", ".join(f"{words.count(w)} {w}" for w in ("PASS", "FAIL", "SKIP", "HANG")))
    return good and bool(words)


def defined(line):
    """A line of test386's listing without what no manual defines: OF after rotating by more than
    one, which the reference shows as an i386 leaves it (SDM vol. 2, RCL/RCR/ROL/ROR)."""
    if not re.match(r"(C0|C1|D2|D3) R", line):
        return line.rstrip()
    return re.sub(r"PS=(\w{4})", lambda m: f"PS={int(m[1], 16) & ~0x800:04X}", line.rstrip())


def run_test386(options):
    """The ROM takes the place of the BIOS. A test that fails halts before anything is printed, or
    makes a line of the listing differ."""
    listing = options.folder / "test386-EE-reference.txt"
    reference = listing.read_text(encoding="utf-8").split("\n")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        rom = (options.folder / "test386.bin").resolve()
        if options.qemu:
            argv = ["qemu-system-i386", "-accel", "tcg", "-display", "none", "-m", "16", "-serial",
                    "stdio", "-bios", str(rom)]
        else:
            (folder / "bios-256k.bin").symlink_to(rom)
            (folder / "vm.yaml").write_text("memory: 16M\n", encoding="utf-8")
            argv = [options.sosia, "run", str(folder / "vm.yaml")]
        last = re.escape(reference[-1] or reference[-2]).encode()
        env = dict(os.environ, SOSIA_FIRMWARE_DIR=str(folder))
        text, _ = run_until(argv, TIMEOUT * SLOWER, b"^" + last, env)
    lines = [line for line in text.split("\n") if not line.startswith("sosia: ")]
    wrong = [n for n, (a, b) in enumerate(zip(lines, reference)) if defined(a) != defined(b)]
    if lines[0] == "":
        outcome = ("HANG", "stopped before it printed anything")
    elif wrong:
        n = wrong[0]
        outcome = ("FAIL", f"line {n + 1} is {lines[n]!r}, not {reference[n]!r}")
    elif len(lines) < len(reference) - 1:
        outcome = ("HANG", f"stopped after line {len(lines)} of {len(reference)}")
    else:
        outcome = ("PASS", f"{len(lines)} lines as in the reference")
    result = Outcome(outcome[0], time.monotonic() - start, outcome[1])
    return show("test386", result, "PASS")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sosia")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("test", nargs="*")
    parser.add_argument("--qemu", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--log", type=pathlib.Path, help="keeps each test's output in this folder")
    parser.add_argument("-j", dest="jobs", type=int, default=1)
    options = parser.parse_args()
    if (options.folder / "test386.bin").exists():
        return 0 if run_test386(options) else 1
    if (options.folder / "unittests.cfg").exists():
        return 0 if run_kvm_unit_tests(options) else 1
    parser.error(f"{options.folder} holds neither unittests.cfg nor test386.bin")
    return 2


sys.exit(main())
