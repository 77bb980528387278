"""driver.py - what the tests of images and remote disks share: running image_driver, and seeing that
a disk whose server dies fails.
"""

import os
import random
import subprocess
import time

from tap import expect

SEED = int(os.environ.get("SOSIA_TEST_SEED", random.randrange(1 << 30)))
MIB = 1 << 20


def call(*args, stdin="", code=0):
    run = subprocess.run(args, input=stdin, capture_output=True, text=True, timeout=240,
                         errors="replace")
    expect(run.returncode == code, " ".join(args), "exit", run.returncode, run.stdout[-2000:],
           run.stderr[-2000:], "seed", SEED)
    return run


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


def make_empty(path, size):
    with open(path, "wb") as f:
        f.truncate(size)


def wait_for_write(raw):
    """Until the first byte of the file is 1."""
    for _ in range(600):
        with open(raw, "rb") as f:
            if f.read(1) == b"\1":
                return
        time.sleep(0.05)
    expect(False, "the write does not arrive")


def cpu_time(pid):
    """Seconds that a process has used so far."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lose_server(driver, url, raw, server, says):
    """Kills the server, a process, of a disk in use; `raw` is what it serves. Every access fails
    from then on, and the message is told."""
    user = subprocess.Popen([driver, "write", url, "raw"], stdin=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    user.stdin.write("write 0 512 1\nflush 0 0 0\n")
    user.stdin.flush()
    wait_for_write(raw)
    expect(user.poll() is None, "it has left early")
    server.kill()
    server.wait()
    time.sleep(0.3)
    before = cpu_time(user.pid)
    time.sleep(0.5)
    expect(cpu_time(user.pid) - before < 0.3, "it is busy without a server")
    _, err = user.communicate("write 0 512 1\n", timeout=60)
    expect(user.returncode == 1 and "Input/output error" in err, user.returncode, err)
    expect(says in err, err)
