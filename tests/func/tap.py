"""tap.py - what the functional tests share: checks that print TAP, and running the program."""

import os
import subprocess
import tempfile
import traceback

TIMEOUT = 60  # seconds for one run of the program


class Skip(Exception):
    """Raised by a test that cannot run here; says why."""


class Result:
    def __init__(self, run):
        self.code, self.out, self.err = run.returncode, run.stdout, run.stderr


def sosia(program, *args, stdin="", cwd=None):
    """Runs the program to its end; output is text."""
    return Result(subprocess.run([program, *args], input=stdin, cwd=cwd, capture_output=True,
                                 text=True, timeout=TIMEOUT, errors="replace"))


def expect(condition, *show):
    """Fails the test with what was seen."""
    if not condition:
        raise AssertionError(" ".join(str(s) for s in show))


def expect_run(result, code, out=None, err=None):
    """Exit code, a part of standard output, a part of standard error; "" demands silence."""
    seen = f"exit {result.code}\nstdout: {result.out}\nstderr: {result.err}"
    expect(result.code == code, f"expected exit {code}, got", seen)
    for part, text, name in ((out, result.out, "stdout"), (err, result.err, "stderr")):
        if part is not None:
            expect(part in text if part else not text, f"expected {part!r} on {name}, got", seen)


def case(name, function, *args):
    """One row of a table as a test: `function` with more arguments, under a name of its own."""
    def test(folder, *common):
        return function(folder, *common, *args)
    test.__doc__ = name
    return test


def run_tests(tests, *args):
    """Calls each test with a fresh directory and `args`; its docstring is its name. Prints TAP."""
    print(f"1..{len(tests)}", flush=True)
    for n, test in enumerate(tests, 1):
        name = test.__doc__ or test.__name__
        try:
            with tempfile.TemporaryDirectory() as folder:
                reason = test(folder, *args)
            print(f"ok {n} - {name}" + (f" # SKIP {reason}" if reason else ""), flush=True)
        except Skip as reason:
            print(f"ok {n} - {name} # SKIP {reason}", flush=True)
        except Exception:  # a test that breaks has failed, whatever broke it
            print(f"not ok {n} - {name}", flush=True)
            for line in traceback.format_exc().splitlines():
                print(f"#   {line}", flush=True)


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path
