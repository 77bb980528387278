#!/usr/bin/env python3
"""log_code.py SOSIA PAYLOAD - what the engine jit tells about its translations: --log-code,
--perf-map. PAYLOAD is a small kernel that runs and powers off.
"""

import os
import pathlib
import re
import subprocess
import sys

from tap import expect, expect_run, run_tests, sosia, write

SECONDS = 100
HEAD = (r"^translation (\d+): vCPU 0, (?:16|32|64)-bit (?:user|kernel) code at ([0-9a-f]{16}), "
        r"physical ([0-9a-f]+), (\d+) instructions in (\d+) bytes$")
GUEST = r"^  ([0-9a-f]{16})  ((?:[0-9a-f]{2} )+) +\S"


def run(folder, prog, payload, *args):
    """Runs the payload to its end; returns the process's number."""
    spec = write(folder, "vm.yaml", f"memory: 64M\nengine: jit\nkernel: {payload}\n")
    with subprocess.Popen([prog, "run", spec, *args], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        out = p.communicate(timeout=SECONDS)[0].decode(errors="replace")
    expect(p.returncode == 0 and re.search("^end\r?$", out, re.M), out[-2000:])
    return p.pid


def log_code(folder, prog, payload):
    """--log-code: each translation in both languages, and how often it was entered"""
    log = pathlib.Path(folder, "log")
    run(folder, prog, payload, "--log-code", log)
    text = log.read_text(encoding="ascii")
    parts, counts = text.split("how often translations were entered, and their addresses:\n")
    made = parts.split("\n\n")[:-1]
    expect(len(made) > 100, f"{len(made)} translations")
    starts = set()
    for n, part in enumerate(made):
        m = re.match(HEAD, part, re.M)
        expect(m and int(m[1]) == n, part)
        guest, host = part.split("host code, ")
        lines = re.findall(GUEST, guest, re.M)
        expect(len(lines) == int(m[4]) and lines[0][0] == m[2], part)
        expect(sum(len(code.split()) for _, code in lines) == int(m[5]), part)
        size = int(re.match(r"(\d+) bytes:$", host, re.M)[1])
        expect(sum(len(code.split()) for _, code in re.findall(GUEST, host, re.M)) == size, part)
        starts.add(m[2])
    entered = [line.split() for line in counts.splitlines()]
    numbers = [int(count) for count, _ in entered]
    expect(len(numbers) == len(made) and {rip for _, rip in entered} == starts, counts[:2000])
    expect(numbers == sorted(numbers, reverse=True) and numbers[0] > 10000, counts[:2000])


def perf_map(folder, prog, payload):
    """--perf-map: where translations are, for perf"""
    path = pathlib.Path(f"/tmp/perf-{run(folder, prog, payload, '--perf-map')}.map")
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    finally:
        path.unlink()
    expect(len(lines) > 100, f"{len(lines)} translations")
    for line in lines:
        expect(re.fullmatch(r"[0-9a-f]+ [0-9a-f]+ guest:[0-9a-f]+( \(user\))?", line), line)


def refused(folder, prog, payload):
    """a log that cannot be written; options of `run` elsewhere"""
    spec = write(folder, "vm.yaml", f"memory: 64M\nengine: jit\nkernel: {payload}\n")
    log = os.path.join(folder, "nowhere", "log")
    expect_run(sosia(prog, "run", spec, "--log-code", log), 1, out="", err=log)
    expect_run(sosia(prog, "run", spec, "--log-code"), 2, out="", err="--log-code needs a value")
    expect_run(sosia(prog, "check", spec, "--perf-map"), 2, out="", err='"--perf-map"')


run_tests([log_code, perf_map, refused], sys.argv[1], os.path.abspath(sys.argv[2]))
