"""guest.py - what the tests of running guests share: making them, starting one, talking to it.

Everything that takes long is made once, in build/guests, and stays there: a guest gets copies of
what it may change. SOSIA_TEST_LONG=1 asks for whole matrices instead of samples of them;
SOSIA_TEST_SANITIZED=1 tells that the program is several times slower than it should be;
SOSIA_TEST_ENGINE=NAME has all guests executed by that engine.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

from tap import Skip, expect, write

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "guests"
LONG = bool(os.environ.get("SOSIA_TEST_LONG"))
ENGINE = os.environ.get("SOSIA_TEST_ENGINE", "auto")
SANITIZED = bool(os.environ.get("SOSIA_TEST_SANITIZED"))

SLOW = 6 if SANITIZED else 1
BOOT = 120 * SLOW  # seconds until the demo guest's prompt; it takes 5 where nothing else runs
ANSWER = 30 * SLOW  # seconds for a small command in it
END = 60 * SLOW  # seconds from poweroff to the end of the process
PROMPT = r"sosia:\S*# "


# ---- guests ----

@contextlib.contextmanager
def _locked(name):
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / name, "w", encoding="utf-8") as f:
        fcntl.flock(f, fcntl.LOCK_EX)  # two tests may want the same guest at once
        yield


def _make(script, *args, timeout):
    run = subprocess.run([ROOT / "scripts" / script, *args], capture_output=True, text=True,
                         timeout=timeout, stdin=subprocess.DEVNULL)
    if run.returncode:
        raise Skip(f"{script} failed: " + (run.stderr.strip().splitlines() or ["?"])[-1])


def need(*programs):
    """Skips the test where a program is missing."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    for program in programs:
        if not shutil.which(program, path=path):
            raise Skip(f"{program} is not installed (scripts/setup.sh)")


def demo():
    """The demo guest as a spec: kernel and initrd, no disk."""
    need("busybox", "cpio", "depmod", "xz")
    with _locked("demo.lock"):
        _make("demo-guest.sh", CACHE / "demo", timeout=300)
    return {"memory": "256M", "kernel": str(CACHE / "demo" / "vmlinuz"),
            "initrd": str(CACHE / "demo" / "initrd"), "cmdline": "console=ttyS0"}


@contextlib.contextmanager
def debian_disk(name="debian", *args):
    """A copy of a bootable Debian disk: its path. `args` of debian-disk.sh make another one, with a
    name of its own."""
    need("mmdebstrap", "sfdisk", "mke2fs")
    disk, script = CACHE / f"{name}.img", ROOT / "scripts" / "debian-disk.sh"
    copy = CACHE / f"{name}-{os.getpid()}.img"
    with _locked("debian.lock"):
        if not disk.exists() or disk.stat().st_mtime < script.stat().st_mtime:
            _make("debian-disk.sh", CACHE / "debian.new", *args, timeout=1200)
            os.rename(CACHE / "debian.new", disk)
    try:
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", disk, copy], check=True)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


# ---- processes ----

def session(sid):
    """The processes of a session, dead ones aside."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_sid = stat.read_text().rsplit(")", 1)[1].split()[:4]
            if int(its_sid) == sid and state != "Z":
                found.append(int(stat.parent.name))
    return found


class Guest:
    """A VM in a process of its own; `spec` is a dict, for JSON is YAML. Use it in a `with`."""

    def __init__(self, program, folder, spec, *args, env=None, drop=""):
        """`drop`: a pattern of what is left out of the output before it is searched."""
        self.drop = re.compile(drop + "|\x1b[^A-Za-z]*$") if drop else None
        self.folder = pathlib.Path(folder)
        self.scratch = self.folder / "scratch"  # where the program would leave temporary files
        self.scratch.mkdir(exist_ok=True)
        self.text, self.seen, self.ended = "", 0, False
        self.news = threading.Condition()
        # Its offset is the program's, too: that must append, wherever stderr() has read.
        (self.folder / "stderr").unlink(missing_ok=True)
        self.errors = open(self.folder / "stderr", "a+", encoding="utf-8", errors="replace")
        spec = {"engine": ENGINE, **spec}
        self.process = subprocess.Popen(
            [os.path.abspath(program), "run", write(folder, "vm.yaml", json.dumps(spec)), *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            start_new_session=True, env=dict(os.environ, TMPDIR=str(self.scratch), **(env or {})))
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.process.stdin.close()
        self.errors.close()

    def _read(self):
        begun = ""  # an escape sequence that is not complete yet
        while data := os.read(self.process.stdout.fileno(), 65536):
            text = begun + data.decode("latin-1")
            if self.drop:
                begun = re.search("(\x1b[^A-Za-z]*)?$", text)[0]
                text = self.drop.sub("", text)
            with self.news:
                self.text += text
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def expect(self, pattern, timeout=ANSWER):
        """Waits until the output since the last match holds `pattern`; returns the match."""
        end = time.monotonic() + timeout
        found = re.compile(pattern)
        with self.news:
            while not (m := found.search(self.text, self.seen)):
                left = end - time.monotonic()
                why = "the output ended before" if self.ended else f"waited {timeout} s for"
                expect(left > 0 and not self.ended, why, repr(pattern), "\nlast output:\n",
                       self.text[-1500:], "\nstderr:\n", self.stderr())
                self.news.wait(left)
            self.seen = m.end()
            return m

    def send(self, text):
        """Types `text`, at once."""
        self.process.stdin.write(text.encode("latin-1"))
        self.process.stdin.flush()

    def type(self, line, timeout=ANSWER):
        """Types a line as a person does, each key after the echo of the one before: firmware has a
        buffer for few keys. Then the Enter key."""
        for key in line:
            self.send(key)
            self.expect(re.escape(key), timeout)
        self.send("\r")

    def ask(self, command, timeout=ANSWER, code=0):
        """Runs a command in the guest's shell; returns its output without the line's end."""
        self.send(f"echo '<''begin>'; {command}; echo '<''end' $?'>'\r")
        self.expect(r"<begin>\r*\n", timeout)
        start = self.seen
        m = self.expect(r"<end (\d+)>\r*\n", timeout)
        output = self.text[start:m.start()].replace("\r", "").strip("\n")
        expect(code is None or int(m[1]) == code, f"{command}: exit {m[1]}\n{output}")
        return output

    def boot(self, timeout=BOOT, prompt=PROMPT):
        """Waits for the shell."""
        self.expect(prompt, timeout)
        return self

    def power_off(self):
        """Leaves the guest through its own power-off."""
        self.send("poweroff\r")
        self.end(0)

    def end(self, code, err="", timeout=END):
        """Waits for the end of the process; `err` is a part of stderr, "" demands silence. Nothing
        may be left behind."""
        try:
            got = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            got = f"no end within {timeout} s"
        self.reader.join(5)
        seen = f"{got}\nlast output:\n{self.text[-1500:]}\nstderr:\n{self.stderr()}"
        expect(got == code, f"expected exit {code}, got", seen)
        expect(err in self.stderr() if err else not self.stderr(), f"expected {err!r}, got", seen)
        expect(not session(self.process.pid), "it left processes behind")
        left = list(self.scratch.iterdir())
        expect(not left, "it left files behind", left)

    def cpu_share(self, seconds):
        """How much of one core the process uses, from now on for so long."""
        def used():
            stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
            fields = stat.rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        before, start = used(), time.monotonic()
        time.sleep(seconds)
        return (used() - before) / (time.monotonic() - start)
