#!/usr/bin/env python3
"""cli.py SOSIA - the command line: verbs, help, exit codes, who gets which stream, the manuals."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

from tap import expect, expect_run, run_tests, sosia, write

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERBS = """create import run ls info set edit spec check start stop restart reset pause resume suspend wait console logs
events screen type key engine resize top clone snap rename rm recover disk doctor completion help""".split()


def no_verb(folder, prog):
    """without arguments: usage on stderr, exit 2"""
    expect_run(sosia(prog), 2, out="", err="usage: sosia VERB")


def version(folder, prog):
    """--version"""
    r = sosia(prog, "--version")
    expect_run(r, 0, err="")
    expect(re.fullmatch(r"sosia \d+\.\d+\.\d+\n", r.out), r.out)


def help_lists_verbs(folder, prog):
    """--help, -h and help are the same and list the verbs"""
    text = sosia(prog, "--help")
    expect_run(text, 0, out="usage: sosia VERB", err="")
    expect(re.findall(r"^  (\w+) ", text.out, re.M) == VERBS, text.out)
    for way in ("-h", "help"):
        expect(sosia(prog, way).out == text.out, way)


def help_of_each_verb(folder, prog):
    """help VERB and VERB --help explain each verb"""
    for verb in VERBS:
        text = sosia(prog, "help", verb)
        expect_run(text, 0, out=f"usage: sosia {verb} ", err="")
        expect(sosia(prog, verb, "--help").out == text.out, verb)
    expect_run(sosia(prog, "help", "run"), 0, out="Ctrl-A x")
    expect_run(sosia(prog, "help", "nope"), 2, out="", err='unknown verb "nope"')
    expect_run(sosia(prog, "help", "run", "check"), 2, out="", err='unexpected argument "check"')


def unknown_verb(folder, prog):
    """an unknown verb: exit 2 and a suggestion"""
    expect_run(sosia(prog, "rnu"), 2, out="", err='did you mean "run"?')
    expect_run(sosia(prog, "frobnicate"), 2, out="", err="lists the verbs")
    expect_run(sosia(prog, "--frob"), 2, out="", err="unknown verb")


def bad_arguments(folder, prog):
    """wrong options and arguments: exit 2"""
    spec = write(folder, "vm.yaml", "cpus: 1\n")
    for verb in ("run", "check"):
        expect_run(sosia(prog, verb), 2, out="", err="which spec file?")
        expect_run(sosia(prog, verb, "--frob", spec), 2, out="", err='unknown option "--frob"')
        expect_run(sosia(prog, verb, "-q", spec), 2, out="", err='unknown option "-q"')
        expect_run(sosia(prog, verb, spec, "--set"), 2, out="", err="--set needs KEY=VALUE")
        expect_run(sosia(prog, verb, spec, "more"), 2, out="", err='unexpected argument "more"')
    expect_run(sosia(prog, "spec", "--frob"), 2, out="", err='"--frob"')
    expect_run(sosia(prog, "spec", "--defaults", "x"), 2, out="", err='"x"')


def check_good(folder, prog):
    """check accepts a good spec, from any directory"""
    write(folder, "disk.img", "x" * 512)
    spec = write(folder, "vm.yaml", "memory: 64M\ndisks: [disk.img]\n")
    expect_run(sosia(prog, "check", spec), 0, out=f"{spec}: ok\n", err="")
    expect_run(sosia(prog, "check", "vm.yaml", cwd=folder), 0, out="vm.yaml: ok\n", err="")
    expect_run(sosia(prog, "check", "--", spec), 0, err="")


def spec_error(folder, prog):
    """a spec error: place, line, caret, hint; exit 2; from check and from run"""
    write(folder, "vm.yaml", "cpus: 1\nmemroy: 64M\n")
    expected = ('sosia: vm.yaml:2:1: unknown key "memroy"\n    2 | memroy: 64M\n      | ^\n'
                '        did you mean "memory"?\n')
    for verb in ("check", "run"):
        r = sosia(prog, verb, "vm.yaml", cwd=folder)
        expect_run(r, 2, out="")
        expect(r.err == expected, r.err)


def missing_spec(folder, prog):
    """a spec file that is not there: exit 2"""
    for verb in ("check", "run"):
        expect_run(sosia(prog, verb, "/nonexistent.yaml"), 2, out="",
                   err="sosia: /nonexistent.yaml: cannot open the spec file: No such file")


def missing_disk(folder, prog):
    """a missing disk is found before anything starts"""
    spec = write(folder, "vm.yaml", "disks:\n  - nope.img\n")
    for verb in ("check", "run"):
        expect_run(sosia(prog, verb, spec), 2, out="", err="vm.yaml:2:5: cannot read ")


def overrides(folder, prog):
    """--set replaces values; relative paths start at the current directory"""
    os.mkdir(os.path.join(folder, "sub"))
    write(folder, "here.img", "x" * 512)
    write(folder, "sub/vm.yaml", "cpus: 1\ndisks: [gone.img]\n")
    args = ("check", "sub/vm.yaml", "--set", "disks=[here.img]")
    expect_run(sosia(prog, *args, cwd=folder), 0, out="ok")
    expect_run(sosia(prog, *args, "--set=cpus=2", cwd=folder), 0, out="ok")
    expect_run(sosia(prog, *args, "--set", "cpus=33", cwd=folder), 2, out="",
               err="--set cpus=33: ")
    expect_run(sosia(prog, *args, "--set", "cups=3", cwd=folder), 2, err='did you mean "cpus"?')


def defaults_are_a_spec(folder, prog):
    """what spec --defaults prints is accepted by check"""
    r = sosia(prog, "spec", "--defaults")
    expect_run(r, 0, out="memory: 512M", err="")
    expect_run(sosia(prog, "check", write(folder, "vm.yaml", r.out)), 0, out="ok")


def spec_lists_keys(folder, prog):
    """spec lists the keys of the manual, in its order"""
    listed = re.findall(r"^  (\w+): ", sosia(prog, "spec").out, re.M)
    manual = (ROOT / "man" / "sosia.yaml.5").read_text()
    outer = re.sub(r"(?s)\n\.Bl -tag -width Ds\n\.It Cm file.*?\n\.El", "", manual)
    expect(listed == re.findall(r"^\.It Cm (\w+)", outer, re.M), listed)


def full_output(folder, prog):
    """an output that cannot be written is a failure, not silence"""
    with open("/dev/full", "w", encoding="utf-8") as full:
        run = subprocess.run([prog, "spec"], stdout=full, stderr=subprocess.PIPE, text=True)
    expect(run.returncode == 1 and "standard output" in run.stderr, run)


def manual_of_verbs(folder, prog):
    """sosia(1) documents each verb, its options, and each exit code"""
    manual = (ROOT / "man" / "sosia.1").read_text()
    for verb in VERBS:
        expect(f"\n.It Cm {verb}" in manual, verb)
        options = re.findall(r"^  (?:-\w, )?--([\w-]+)", sosia(prog, "help", verb).out, re.M)
        for option in options:
            expect(f"Fl -{option}" in manual, verb, option)
    for code in range(9):
        expect(f"\n.It {code}\n" in manual, code)


def manuals_are_clean(folder, prog):
    """mandoc has nothing to say about the manuals"""
    if not shutil.which("mandoc"):
        return "mandoc is not installed"
    for page in sorted((ROOT / "man").iterdir()):
        run = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True,
                             text=True)
        expect(run.returncode == 0, run.stdout, run.stderr)
    return None


run_tests([no_verb, version, help_lists_verbs, help_of_each_verb, unknown_verb, bad_arguments,
           check_good, spec_error, missing_spec, missing_disk, overrides, defaults_are_a_spec,
           spec_lists_keys, full_output, manual_of_verbs, manuals_are_clean], sys.argv[1])
