#!/usr/bin/env python3
"""run.py SOSIA PAYLOAD [--cpus N] --engine E... - runs a payload of tests/guest in a VM, once with each
engine, and passes its results on as TAP."""

import argparse
import pathlib
import re
import subprocess
import tempfile

TIMEOUT = 150  # seconds for one run: with sanitizers, on a busy host


def boot(args, engine, folder):
    """The payload's output, and what went wrong around it."""
    spec = pathlib.Path(folder, "vm.yaml")
    spec.write_text(f"cpus: {args.cpus}\nmemory: 64M\nengine: {engine}\n", encoding="utf-8")
    command = [args.sosia, "run", spec, "--set", f"kernel={args.payload}"]
    try:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                             timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as e:
        return (e.stdout or b"").decode(errors="replace"), f"no end within {TIMEOUT} s"
    out, err = run.stdout.decode(errors="replace"), run.stderr.decode(errors="replace")
    if run.returncode:
        return out, f"exit {run.returncode}: {err}"
    return out, "" if re.search(r"^end$", out, re.M) else f"it stopped early; {err}"


def last_boot(out):
    """What it said since its last start: a payload may reset the machine on purpose."""
    return out[max(out.rfind("\nplan "), 0):]


def results(out):
    """(passed, name, skip reason, notes before it) for each test, in order."""
    notes = []
    for line in out.splitlines():
        m = re.match(r"(not )?ok (.*?)(?: # SKIP (.*))?$", line)
        if m:
            yield not m[1], m[2], m[3], notes
            notes = []
        elif line.startswith("# "):
            notes.append(line)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("sosia")
    p.add_argument("payload")
    p.add_argument("--cpus", type=int, default=1)
    p.add_argument("--engine", action="append", required=True)
    args = p.parse_args()
    n = 0
    for engine in args.engine:
        with tempfile.TemporaryDirectory() as folder:
            out, trouble = boot(args, engine, folder)
        out = last_boot(out)
        planned, points = re.search(r"^plan (\d+)$", out, re.M), list(results(out))
        if not trouble and not (planned and int(planned[1]) == len(points)):
            trouble = "a test is missing"
        for passed, name, skip, notes in points:
            n += 1
            print(*notes, sep="\n", end="\n" if notes else "")
            print("" if passed else "not ", f"ok {n} - {engine}: {name}",
                  f" # SKIP {skip}" if skip else "", sep="", flush=True)
        n += 1
        print("not " if trouble else "", f"ok {n} - {engine}: the payload ends", sep="")
        for line in trouble.splitlines():
            print("#", line)
    print(f"1..{n}")


main()
