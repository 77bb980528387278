"""vms.py - what the tests of running VMs of a catalog share."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess

from guest import SLOW, demo, need
from tap import expect, expect_run, sosia


def home(folder):
    """A catalog of its own for a test; its path."""
    path = pathlib.Path(folder) / "home"
    os.environ["SOSIA_HOME"] = str(path)
    return path


def ok(prog, *args, **more):
    """Runs a verb that must succeed; its standard output."""
    r = sosia(prog, *args, **more)
    expect_run(r, 0)
    return r.out


def get(prog, *args):
    """The JSON of a verb that must succeed."""
    return json.loads(ok(prog, *args, "--json"))


def error(prog, code, word, *args):
    """A verb must fail with this exit code, in words and in JSON; the message."""
    plain = sosia(prog, *args)
    expect_run(plain, code, out="", err="sosia: ")
    r = sosia(prog, *args, "--json")
    expect_run(r, code, err="")
    told = json.loads(r.out)["error"]
    expect(told["code"] == word, f"expected {word}, got", told)
    expect(set(told) - {"where"} == {"code", "message", "hint"}, told)
    return told["message"]


@contextlib.contextmanager
def catalog(folder, prog):
    """A catalog whose VMs are ended at the end."""
    top = home(folder)
    try:
        yield top
    finally:
        for vm in get(prog, "ls")["vms"]:
            if vm["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(vm["pid"], signal.SIGKILL)


def make_demo(prog, name, *args):
    """A VM with the demo guest."""
    spec = demo()
    ok(prog, "create", name, "--memory", spec["memory"], "--kernel", spec["kernel"], "--initrd",
       spec["initrd"], "--cmdline", spec["cmdline"], *args)


def snapshots(prog, vm):
    return [s["name"] for s in get(prog, "snap", "ls", vm)["snapshots"]]


def layers(top, vm):
    return sorted(p.name for p in (top / "vms" / vm / "disks").glob("layer-*"))


def needed(top, vm):
    """The layers that the VM's disk rests on, as QEMU sees it."""
    need("qemu-img")
    run = subprocess.run(["qemu-img", "info", "--backing-chain", "--output=json",
                          str(top / "vms" / vm / "disks/disk0.qcow2")], check=True,
                         capture_output=True)
    return sorted(pathlib.Path(image["filename"]).name for image in json.loads(run.stdout)[1:])


def nothing_left(prog, top, vm, *where):
    """Removes all snapshots; then there are no folders of any, and no layers but those that the disk
    rests on."""
    ok(prog, "snap", "take", vm, "last")
    ok(prog, "snap", "rm", vm, *snapshots(prog, vm))
    left = [str(p.relative_to(top)) for p in sorted((top / "vms" / vm / "snapshots").rglob("*"))]
    expect(not left, *where, "left over:", left)
    there, want = set(layers(top, vm)), set(needed(top, vm))
    expect(there == want, *where, "left over:", there - want, "missing:", want - there)


def wait_text(prog, name, regex, seconds):
    """Until the guest has written that; not by sosia(), whose patience is less."""
    run = subprocess.run([prog, "wait", name, "--for", f"text:{regex}", "--timeout", str(seconds)],
                         capture_output=True, text=True, timeout=seconds + 30)
    expect(run.returncode == 0, run.stderr, "\nlast output:\n", ok(prog, "logs", "--serial", name)[-800:])


class Qmp:
    """A connection to a VM's control socket."""

    def __init__(self, top, name, negotiate=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20 * SLOW)
        fd = os.open(top / "vms" / name, os.O_RDONLY)  # the name of a socket must be short
        try:
            self.socket.connect(f"/proc/self/fd/{fd}/control")
        finally:
            os.close(fd)
        self.file = self.socket.makefile("rb")
        self.events = []
        self.greeting = self.read()
        if negotiate:
            expect(self.call("qmp_capabilities") == {}, "qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()
        self.socket.close()

    def read(self):
        line = self.file.readline()
        expect(line.endswith(b"\n"), "the connection ended, or half a line:", line)
        return json.loads(line)

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n")

    def answer(self):
        """The next answer; events go to self.events."""
        while "event" in (message := self.read()):
            self.events.append(message)
        return message

    def ask(self, command, **arguments):
        """The whole answer."""
        self.send({"execute": command, "arguments": arguments})
        return self.answer()

    def call(self, command, **arguments):
        """What it returns."""
        message = self.ask(command, **arguments)
        expect("return" in message, command, message)
        return message["return"]

    def event(self, name):
        """Waits for an event."""
        while not any(e["event"] == name for e in self.events):
            message = self.read()
            expect("event" in message, message)
            self.events.append(message)
        found = next(e for e in self.events if e["event"] == name)
        self.events.remove(found)
        return found
