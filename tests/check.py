#!/usr/bin/env python3
"""check.py [--long] - builds twice (as released, and with ASan and UBSan), runs every test in both
builds, shows what failed and ends with the one line `N passed, N failed, N skipped`.

Guests are started in a sample of the ways there are; --long starts them in every way. Many tests wait
for a guest: meanwhile, and with what they leave of the processors, the second build is compiled.

Each TAP point counts as a test; a program that dies early or leaves points of its plan out counts as
one failure more, a test without TAP as one. Tests of the source itself (suite lint) run once.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILDS = (
    ("build", [], []),
    ("build-asan", ["-Db_sanitize=address,undefined", "-Db_lundef=false"], ["--no-suite", "lint"]),
)
SANITIZERS = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
}
POINT = re.compile(r"^(not )?ok\b[^#\n]*(#\s*skip)?", re.I | re.M)
PLAN = re.compile(r"^1\.\.(\d+)", re.M)


class Count:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add_points(self, text):
        """Adds the TAP points of `text`; returns how many of them failed."""
        failed = points = 0
        for bad, skip in POINT.findall(text):
            points += 1
            if skip:
                self.skipped += 1
            elif bad:
                failed += 1
            else:
                self.passed += 1
        planned = sum(int(n) for n in PLAN.findall(text))
        failed += max(0, planned - points)
        self.failed += failed
        return failed

    def add(self, test):
        """Adds one line of Meson's log; returns True if there is a failure to show."""
        text, result = test.get("stdout", ""), test["result"]
        failed = self.add_points(text) if PLAN.search(text) else 0
        if failed:
            return True
        if result in ("OK", "EXPECTEDFAIL"):
            self.passed += not PLAN.search(text)
        elif result == "SKIP":
            self.skipped += not PLAN.search(text)
        else:
            self.failed += 1
            return True
        return False


def build(name, options, behind=False):
    """Configures (once) and compiles; True if it worked. `behind`: quietly, with what others leave of
    the processors; on half of them, as being nice counts for little with programs of other sessions."""
    folder = ROOT / name
    nice = ["nice", "-n", "19"] if behind else []
    jobs = ["-j", str(max(1, os.cpu_count() // 2))] if behind else []
    steps = [] if (folder / "build.ninja").exists() else [["meson", "setup", *options, folder, ROOT]]
    for step in [*steps, ["meson", "compile", "-C", folder, *jobs]]:
        run = subprocess.run([*nice, *step], stdout=subprocess.PIPE if behind else sys.stderr,
                             stderr=subprocess.STDOUT if behind else None, text=True)
        if run.returncode:
            print(run.stdout or "", end="")
            return False
    return True


def run_tests(name, options, count):
    log = ROOT / name / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    env = dict(SANITIZERS, **os.environ, MALLOC_PERTURB_="0")
    if "--long" in sys.argv:
        env["SOSIA_TEST_LONG"] = "1"
        options = [*options, "--timeout-multiplier", "10"]
    subprocess.run(["meson", "test", "-C", ROOT / name, "--no-rebuild", *options], env=env)
    if not log.exists():
        count.failed += 1
        return
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            test = json.loads(line)
            if count.add(test):
                print(f"\n=== {name}: {test['name']} ({test['result']})")
                print(test.get("stdout", "").rstrip())
                print(test.get("stderr", "").rstrip())


def main():
    count = Count()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        built = pool.submit(build, *BUILDS[0][:2])
        for n, (name, _, test_options) in enumerate(BUILDS):
            works = built.result()
            for following in BUILDS[n + 1:n + 2]:
                built = pool.submit(build, *following[:2], behind=True)
            if works:
                run_tests(name, test_options, count)
            else:
                print(f"\n=== {name}: does not build")
                count.failed += 1
    print(f"{count.passed} passed, {count.failed} failed, {count.skipped} skipped", flush=True)
    return 1 if count.failed or not count.passed else 0


sys.exit(main())
