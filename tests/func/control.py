#!/usr/bin/env python3
"""control.py SOSIA - the control socket: QMP's wire format, its commands, and clients that do not
behave. The guest is a BIOS that finds nothing to boot."""

import json
import os
import pathlib
import stat
import sys
import time

from guest import SLOW
from tap import expect, run_tests
from vms import Qmp, catalog, error, get, ok


def with_vm(test):
    """Gives the test a running VM "web" without disks."""
    def run(folder, prog):
        with catalog(folder, prog) as top:
            ok(prog, "create", "web", "--memory", "32M")
            ok(prog, "start", "web")
            test(top, prog)
    run.__doc__ = test.__doc__
    return run


def alive(top):
    """The VM still answers, and quickly; nothing is wrong in its log."""
    start = time.monotonic()
    with Qmp(top, "web") as q:
        expect(q.call("query-status")["running"], "it does not run")
    expect(time.monotonic() - start < 5 * SLOW, "it takes long to answer")
    log = (top / "vms/web/logs/vmm.log").read_text()
    expect("error" not in log and "ended" not in log, log)


@with_vm
def greets(top, prog):
    """greeting, negotiation, ids, errors as QEMU's"""
    mode = stat.S_IMODE(os.stat(top / "vms/web/control").st_mode)
    expect(mode == 0o600, oct(mode))
    with Qmp(top, "web", negotiate=False) as q:
        expect(set(q.greeting["QMP"]) == {"version", "capabilities"}, q.greeting)
        expect(q.ask("query-status")["error"]["class"] == "CommandNotFound", "before negotiation")
        expect(q.call("qmp_capabilities") == {}, "negotiation")
        expect(q.ask("frobnicate")["error"]["class"] == "CommandNotFound", "unknown")
        for text, part in (('{"execute": "stop", "arguments": {"a": 1}}', "unexpected"),
                           ('{"execute": "x-sosia-engine"}', "missing"),
                           ('{"execute": "x-sosia-engine", "arguments": {"engine": 1}}', "type"),
                           ('{"execute": "stop", "arguments": []}', "object"),
                           ('{"execute": 1}', "execute"), ('{"a": 1}', "execute"),
                           ('{"execute": "stop",}', "JSON parse error"),
                           ('{"a": 1, "a": 2}', "JSON parse error"), ("[]", "JSON parse error"),
                           ("hello", "JSON parse error"), ("}{", "JSON parse error")):
            q.send(text.encode() + b"\n")
            told = q.answer()["error"]
            expect(told["class"] == "GenericError" and part in told["desc"], text, told)
        q.send({"execute": "query-version", "id": {"a": [1]}})
        expect(q.answer()["id"] == {"a": [1]}, "the id is lost")
        q.send({"execute": "query-name", "id": "a\"{b\\"})
        expect(q.answer()["id"] == "a\"{b\\", "an id with a quotation mark, a brace and a backslash")
        q.send(b'{"execute":"query-name"}{"execute":\n"query-status"}')
        expect(q.answer()["return"] == {"name": "web"}, "two on a line")
        expect(q.answer()["return"]["status"] == "running", "one on two lines")


@with_vm
def queries(top, prog):
    """what it tells about the machine"""
    with Qmp(top, "web") as q:
        names = {c["name"] for c in q.call("query-commands")}
        expect({"stop", "cont", "quit", "system_reset", "human-monitor-command"} <= names, names)
        pid = get(prog, "info", "web")["pid"]
        cpus = q.call("query-cpus-fast")
        expect(len(cpus) == 1 and pathlib.Path(f"/proc/{pid}/task/{cpus[0]['thread-id']}").exists(),
               cpus)
        expect(q.call("query-block") == [], "no disks")
        expect(q.call("x-sosia-info")["pid"] == pid, "info")
        for topic, part in (("registers", "CR0="), ("mem", "paging is off"), ("tlb", "paging is off"),
                            ("pic", "pic0: irr="), ("lapic", "lvt timer"), ("mtree", "memory:"),
                            ("status", "running")):
            text = q.call("human-monitor-command", **{"command-line": f"info {topic}"})
            expect(part in text, topic, text)
        for line in ("info registrs", "info", "quit", "info " + "x" * 500):
            expect("error" in q.ask("human-monitor-command", **{"command-line": line}), line)


@with_vm
def pauses(top, prog):
    """stop, cont, system_reset: answered when done, told to everybody"""
    with Qmp(top, "web") as q, Qmp(top, "web") as other:
        expect(q.call("stop") == {}, "stop")
        expect(q.call("query-status") == {"running": False, "singlestep": False,
                                          "status": "paused"}, "status")
        other.event("STOP")
        expect(get(prog, "info", "web")["state"] == "paused", "info")
        before = q.call("x-sosia-info")["time-ns"]
        expect(q.call("stop") == {} and q.call("x-sosia-info")["time-ns"] == before, "time goes on")
        expect("CPU#0" in q.call("human-monitor-command", **{"command-line": "info registers"}),
               "registers while paused")
        q.call("system_reset")
        expect(other.event("RESET")["data"] == {"guest": False, "reason": "host-qmp-system-reset"},
               "RESET")
        expect(not q.call("query-status")["running"], "a reset let it go on")
        expect(q.call("cont") == {}, "cont")
        other.event("RESUME")
        expect(q.call("x-sosia-engine", engine="interp")["engine"] == "interp", "engine")
        expect(other.event("X_SOSIA_ENGINE")["data"] == {"engine": "interp"}, "X_SOSIA_ENGINE")
        expect("error" in q.ask("x-sosia-engine", engine="warp"), "an engine that there is not")
        expect(q.call("quit") == {}, "quit")
        expect(other.event("SHUTDOWN")["data"]["reason"] == "host-qmp-quit", "SHUTDOWN")
    ok(prog, "wait", "web", "--for", "stopped", "--timeout", "20")
    expect(not (top / "vms/web/control").exists(), "the socket is left behind")
    listed = get(prog, "events", "web")["events"]
    expect([e["event"] for e in listed][-1] == "SHUTDOWN", listed)


def disk_sizes(q):
    return {d["device"]: d["inserted"]["image"]["virtual-size"] for d in q.call("query-block")}


def grows_disk(folder, prog):
    """block_resize and `sosia resize`: a disk in use becomes larger, and stays so"""
    with catalog(folder, prog) as top:
        ok(prog, "create", "web", "--memory", "32M", "--disk", "16M")
        error(prog, 4, "state", "resize", "web", "disk0", "32M")  # it does not run
        ok(prog, "start", "web")
        with Qmp(top, "web") as q:
            expect(disk_sizes(q) == {"disk0": 16 << 20}, disk_sizes(q))
            for args in ({"device": "disk1", "size": 32 << 20}, {"device": "disk0x", "size": 32 << 20},
                         {"device": "disk0", "size": 8 << 20}, {"device": "disk0", "size": (16 << 20) + 1},
                         {"device": "disk0", "size": -512}):
                expect("error" in q.ask("block_resize", **args), args)
            expect(q.call("block_resize", device="disk0", size=20 << 20) == {}, "block_resize")
            expect(disk_sizes(q) == {"disk0": 20 << 20}, disk_sizes(q))
            ok(prog, "resize", "web", "disk0", "+4M")
            expect(disk_sizes(q) == {"disk0": 24 << 20}, disk_sizes(q))
            error(prog, 2, "usage", "resize", "web", "disk1", "1G")
            error(prog, 2, "usage", "resize", "web", "disk0", "much")
            error(prog, 4, "state", "resize", "web", "disk0", "1M")
        ok(prog, "stop", "-f", "web")
        image = next((top / "vms/web").rglob("*.qcow2"))
        expect(get(prog, "disk", "info", str(image))["virtual-size"] == 24 << 20, "what the image has")


@with_vm
def presses_keys(top, prog):
    """keys: what there is and what there is not"""
    with Qmp(top, "web") as q:
        expect("error" in q.ask("send-key", keys=[]), "none")
        expect("error" in q.ask("send-key", keys=[{"type": "qcode", "data": "any"}]), "any")
        expect("error" in q.ask("send-key", keys=["a"]), "no object")
        expect("error" in q.ask("x-sosia-type", text="\u00e4"), "no such character")
        expect("error" in q.ask("x-sosia-type", text="x" * 5000), "too many")
        expect("return" in q.ask("x-sosia-type", text="Ab1!\n"), "type")
        expect("return" in q.ask("send-key", keys=[{"type": "qcode", "data": k}
                                                   for k in ("ctrl", "alt", "f1")]), "send-key")
    alive(top)


@with_vm
def garbage(top, prog):
    """garbage, half messages, no end of line, too much: refused; the others are served"""
    with Qmp(top, "web") as good:
        for junk in (b"\0" * 5000, os.urandom(5000), b"{" * 200, b"[" * 60000 + b"\n",
                     b'{"a":' * 3000, b'{"execute": "' + b"x" * 70000 + b'"}\n', b'{"a": "\\', b"{",
                     b'{"execute": "stop", "arguments": {"\xff": 1}}\n'):
            with Qmp(top, "web") as q:
                try:
                    q.send(junk)
                except OSError:
                    pass  # cut off
                expect(good.call("query-status")["running"], junk[:20])
    alive(top)


@with_vm
def crowds(top, prog):
    """more clients than there may be: the last are refused, the first stay"""
    clients = [Qmp(top, "web") for _ in range(16)]
    late = Qmp(top, "web", negotiate=False)
    expect("too many" in late.greeting["error"]["desc"], late.greeting)
    expect(late.file.readline() == b"", "it is not closed")
    for q in clients:
        expect(q.call("query-status")["running"], "one of the first")
    for q in [*clients, late]:
        q.__exit__()
    alive(top)


@with_vm
def silent(top, prog):
    """clients that connect and say nothing, or half a line, keep nobody out, and end nothing"""
    mute = [Qmp(top, "web", negotiate=False) for _ in range(16)]
    mute[1].send(b'{"execute": "qmp_')
    expect(get(prog, "pause", "web")["state"] == "paused", "pause")
    expect(get(prog, "resume", "web")["state"] == "running", "resume")
    expect("said nothing" in mute[0].read()["error"]["desc"], "the first one makes room")
    mute[1].send(b'capabilities"}')
    expect(mute[1].answer() == {"return": {}}, "the other half of the line")
    for q in mute:
        q.__exit__()
    alive(top)


@with_vm
def slow_readers(top, prog):
    """a client that never reads is cut off; memory stays what it was; the others are served"""
    pid = get(prog, "info", "web")["pid"]

    def memory():
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    with Qmp(top, "web") as deaf, Qmp(top, "web") as good:
        before = memory()
        ask = json.dumps({"execute": "query-commands"}).encode() + b"\n"
        deaf.socket.settimeout(5)
        try:
            for _ in range(20000):
                deaf.send(ask)
        except OSError:
            pass
        else:
            expect(False, "nobody cut it off")
        expect(good.call("query-status")["running"], "the other one")
        expect(memory() - before < 8192 * SLOW, before, memory())
    alive(top)


run_tests([greets, queries, pauses, grows_disk, presses_keys, garbage, crowds, silent, slow_readers], sys.argv[1])
