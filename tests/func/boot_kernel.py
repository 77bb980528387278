#!/usr/bin/env python3
"""boot_kernel.py SOSIA - a Linux kernel started directly: the demo guest from boot to its end, and
each device in it. Long: more vCPUs, every way to reboot, each device alone. With sanitizers: one
guest that has all.
"""

import calendar
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

from guest import ANSWER, BOOT, LONG, SANITIZED, Guest, demo
from tap import Skip, case, expect, run_tests

IDLE = 0.05  # of a core: what a guest that does nothing may cost
MIB = 1 << 20
CPUS = (1, 2, 4, 8) if LONG else (1, 4)  # other tests here are of two
REBOOTS = ("", "t", "k", "p") if LONG else ("", "t")  # kernel-parameters.txt, reboot=
WAYS = {"": "the default way", "t": "a triple fault", "k": "the keyboard controller",
        "p": "PCI's reset register"}


def with_cmdline(spec, more):
    return dict(spec, cmdline=f"{spec['cmdline']} {more}".strip())


def idles(guest, seconds):
    """Settles first: after a boot the kernel has delayed work to do."""
    end = time.monotonic() + 60
    while (share := guest.cpu_share(seconds)) >= IDLE and time.monotonic() < end:
        pass
    expect(share < IDLE, f"the guest does nothing and uses {share:.0%} of a core")


# ---- life ----

def boots(folder, prog, cpus):
    with Guest(prog, folder, dict(demo(), cpus=cpus)) as g:
        g.boot()
        expect(g.ask("nproc") == str(cpus), "nproc: ", g.text[-200:])
        expect(g.ask("echo $((6 * 7)) | tr 0-9 a-j") == "ec", g.text[-200:])
        expect(g.ask("dmesg | grep -iE 'bug:|oops|call trace|soft lockup|rcu.*stall'", code=None)
               == "", g.text[-2000:])
        idles(g, 5)
        g.power_off()


def reboots(folder, prog, way):
    with Guest(prog, folder, with_cmdline(demo(), f"reboot={way}" if way else "")) as g:
        g.boot()
        g.ask("touch /gone")
        g.send("reboot -f\r")
        g.expect(r"reboot: Restarting|Rebooting", ANSWER)
        g.boot()
        expect(g.ask("ls /gone", code=1).startswith("ls:"), "it did not really start again")
        g.power_off()


def halts(folder, prog):
    """halt -f: the VM stays, costs nothing, and SIGTERM ends it"""
    with Guest(prog, folder, dict(demo(), cpus=2)) as g:
        g.boot().send("halt -f\r")
        g.expect("reboot: System halted")
        idles(g, 3)
        g.process.send_signal(signal.SIGTERM)
        g.end(1, err="ended by a signal")


def input_ends(folder, prog):
    """the end of standard input does not end the VM"""
    with Guest(prog, folder, demo()) as g:
        g.boot().send("sleep 3; echo 'still ''there'; poweroff -f\r")
        g.process.stdin.close()
        g.expect("still there")
        g.end(0)


def floods_and_leaves(folder, prog):
    """a great deal of output arrives whole and in order; Ctrl-A h lists the keys, Ctrl-A x leaves: exit 0"""
    with Guest(prog, folder, demo()) as g:
        g.boot()
        expect(g.ask("seq 1 20000", 4 * ANSWER).split() == [str(n) for n in range(1, 20001)],
               "lines got lost")
        g.send("\x01h")
        expect(g.ask("echo on") == "on", "")
        expect("Ctrl-A x" in g.stderr(), g.stderr())
        g.send("\x01x")
        g.end(0, err="leave")


def serial_file(folder, prog):
    """serial: {file: ...} gets what the guest writes"""
    log = pathlib.Path(folder, "console.log")
    spec = dict(demo(), serial={"file": str(log)})
    with Guest(prog, folder, spec) as g:
        end = time.monotonic() + BOOT
        while "Welcome to Linux" not in (log.read_text(errors="replace") if log.exists() else ""):
            expect(time.monotonic() < end, "the file does not say that the guest is up")
            time.sleep(0.2)
        expect(not g.text, g.text)
        g.process.terminate()
        g.end(1, err="ended by a signal")


# ---- devices ----

def random_file(folder, name, size):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(os.urandom(size))
    return path


def md5(data):
    return hashlib.md5(data).hexdigest()


def read_file(path):
    return pathlib.Path(path).read_bytes()


def writable_disk(g, device, image):
    """A file system on it survives its unmounting; what lies in a sector reaches the image."""
    g.ask(f"mke2fs {device} && mount {device} /mnt")
    made = g.ask("head -c 3000000 /dev/urandom >/mnt/f && md5sum </mnt/f")
    g.ask(f"umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount {device} /mnt")
    expect(g.ask("md5sum </mnt/f") == made, "the file came back changed")
    g.ask("umount /mnt")
    g.ask(f"echo '<''sector of {device}>' | dd of={device} bs=512 seek=7 conv=sync && sync")
    with open(image, "rb") as f:
        f.seek(7 * 512)
        expect(f.read(512).startswith(f"<sector of {device}>".encode()), "the image lacks a sector")


def readonly_disk(g, device, image):
    """What the guest reads is the image; it cannot write."""
    before = read_file(image)
    name = device.rsplit("/", 1)[1]
    expect(g.ask(f"cat /sys/block/{name}/ro") == "1", f"{device} is not read-only")
    expect(g.ask(f"md5sum <{device}").split()[0] == md5(before), f"{device} reads wrong")
    g.ask(f"dd if=/dev/zero of={device} bs=512 count=1 conv=fsync", code=1)
    expect(read_file(image) == before, "the guest changed a read-only disk")


def random_numbers(g):
    expect(g.ask("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng"), "no rng")
    a, b = (g.ask("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | md5sum") for _ in "ab")
    expect(a != b and md5(b"") not in a, a, b)


def disks(folder, prog, bus, device):
    images = [random_file(folder, "rw", 16 * MIB), random_file(folder, "ro", 2 * MIB)]
    spec = dict(demo(), disks=[{"file": images[0], "bus": bus},
                               {"file": images[1], "bus": bus, "readonly": True}])
    with Guest(prog, folder, spec) as g:
        g.boot()
        g.ask("umount /data", code=None)  # the demo guest takes the first virtio disk
        g.ask("mkdir /mnt")
        writable_disk(g, f"/dev/{device}a", images[0])
        if bus == "virtio":
            readonly_disk(g, f"/dev/{device}b", images[1])
        g.power_off()


def make_iso(folder):
    tool = next((t for t in ("genisoimage", "xorrisofs", "mkisofs") if shutil.which(t)), None)
    if not tool:
        raise Skip("neither genisoimage nor xorriso is installed (scripts/setup.sh)")
    tree = os.path.join(folder, "tree")
    os.mkdir(tree)
    data = read_file(random_file(tree, "file", 3 * MIB))
    iso = os.path.join(folder, "cd.iso")
    subprocess.run([tool, "-quiet", "-V", "SOSIA", "-R", "-o", iso, tree], check=True,
                   capture_output=True)
    return iso, md5(data)


def cdrom_in(g, iso, digest):
    g.ask("mkdir -p /cd && mount -t iso9660 -r /dev/sr0 /cd")
    expect(g.ask("md5sum </cd/file").split()[0] == digest, "a file of the CD-ROM reads wrong")
    g.ask("umount /cd && echo 3 >/proc/sys/vm/drop_caches")
    whole = g.ask(f"head -c {os.path.getsize(iso)} /dev/sr0 | md5sum").split()[0]
    expect(whole == md5(read_file(iso)), "the CD-ROM reads wrong")
    g.ask("dd if=/dev/zero of=/dev/sr0 bs=2048 count=1", code=1)


def cdrom(folder, prog):
    """the CD-ROM is mounted and read, twice"""
    iso, digest = make_iso(folder)
    with Guest(prog, folder, dict(demo(), cdrom=iso)) as g:
        g.boot()
        for _ in range(2):
            cdrom_in(g, iso, digest)
        g.power_off()


def rng(folder, prog):
    """/dev/hwrng gives random numbers"""
    with Guest(prog, folder, demo()) as g:
        random_numbers(g.boot())
        g.power_off()


def console(folder, prog):
    """the virtio console as the terminal, no serial port"""
    spec = dict(demo(), serial="none", console="terminal", cmdline="console=hvc0")
    with Guest(prog, folder, spec) as g:
        g.boot()
        expect(g.ask("tty") == "/dev/hvc0", g.text)
        expect(g.ask("seq 1 20000", 4 * ANSWER).split() == [str(n) for n in range(1, 20001)],
               "lines got lost")
        idles(g, 3)
        g.power_off()


def data_stays(folder, prog):
    """what the demo guest leaves in /data is there next time"""
    image = os.path.join(folder, "disk.img")
    with open(image, "wb") as f:
        f.truncate(32 * MIB)
    for command in ("echo kept >/data/file", "test \"$(cat /data/file)\" = kept"):
        with Guest(prog, folder, dict(demo(), disks=[image])) as g:
            g.boot().ask(command)
            g.power_off()


def everything(folder, prog):
    """two vCPUs and every device at once: disks, CD-ROM, random numbers, console"""
    iso, digest = make_iso(folder)
    images = [random_file(folder, name, 8 * MIB) for name in ("virtio", "ide", "ro")]
    spec = dict(demo(), cpus=2, cdrom=iso,
                disks=[images[0], {"file": images[1], "bus": "ide"},
                       {"file": images[2], "readonly": True}])
    with Guest(prog, folder, spec) as g:
        g.boot()
        expect(g.ask("nproc") == "2", "nproc")
        g.ask("umount /data", code=None)
        g.ask("mkdir /mnt; (while :; do dd if=/dev/vdb of=/dev/null bs=64k iflag=direct; done)"
              ">/dev/null 2>&1 & disturb=$!")
        writable_disk(g, "/dev/vda", images[0])
        writable_disk(g, "/dev/sda", images[1])
        g.ask("kill $disturb")
        readonly_disk(g, "/dev/vdb", images[2])
        cdrom_in(g, iso, digest)
        random_numbers(g)
        g.power_off()


# ---- time ----

def rtc(g):
    return calendar.timegm(time.strptime(g.ask("cat /sys/class/rtc/rtc0/date "
                                               "/sys/class/rtc/rtc0/time"), "%Y-%m-%d\n%H:%M:%S"))


def clock(folder, prog, kind, offset):
    """5 seconds in the guest are 5 seconds, too, on its clock, its timers and its RTC."""
    zone = {"TZ": "TST-05:30"}  # POSIX: 5:30 h east of Greenwich
    with Guest(prog, folder, dict(demo(), clock=kind), env=zone) as g:
        g.boot()
        before = int(time.time())
        shown = rtc(g) - offset
        after = time.time()
        expect(before - 1 <= shown <= after + 1, "the RTC is off by", shown - before, "s")
        system = int(g.ask("date +%s")) - offset
        expect(abs(system - time.time()) < 5, "the system clock is off by", system - time.time())
        start, start_rtc = time.monotonic(), rtc(g)
        spent = g.ask("a=$(cut -d. -f1 /proc/uptime); sleep 5; b=$(cut -d. -f1 /proc/uptime);"
                      "echo $((b - a))", 2 * ANSWER)
        took, took_rtc = time.monotonic() - start, rtc(g) - start_rtc
        expect(5 <= int(spent) <= 6, f"uptime says {spent} s")
        expect(5 <= took < 8, f"sleep 5 took {took:.1f} s")
        expect(abs(took_rtc - took) < 2, f"the RTC went {took_rtc} s in {took:.1f} s")
        g.power_off()


def guest_clock(g):
    return int(re.search(r"now at (\d+)", g.ask("grep -m1 'now at' /proc/timer_list"))[1]) / 1e9


def kvm_guest(folder, prog, cmdline, clock):
    with Guest(prog, folder, with_cmdline(dict(demo(), cpus=2), cmdline)) as g:
        g.boot()
        log = g.ask("dmesg")
        lines = ["Booting paravirtualized kernel on KVM", "setup PV IPIs", "pv remote TLB flush",
                 "PV spinlocks enabled"]
        for line in lines + clock * ["kvm-clock: Using msrs 4b564d01 and 4b564d00"]:
            expect(line in log, f"not in the log: {line!r}\n{log}")
        sources = "/sys/devices/system/clocksource/clocksource0"
        expect(("kvm-clock" in g.ask(f"cat {sources}/available_clocksource")) == clock, log)
        if clock:  # Linux has chosen the TSC, which is as good
            g.ask(f"echo kvm-clock >{sources}/current_clocksource")
        start = time.monotonic(), guest_clock(g)
        time.sleep(5)
        end = time.monotonic(), guest_clock(g)
        off = (end[1] - start[1]) - (end[0] - start[0])
        expect(abs(off) < ANSWER / 60, f"in 5 s the clock was off by {off:.3f} s")
        g.power_off()


ALL = ([case(f"boots to a shell, is idle there, powers off: {n} vCPU{'s' * (n > 1)}", boots, n)
        for n in CPUS] +
       [case(f"reboots by {WAYS[way]}", reboots, way) for way in REBOOTS] +
       [halts, input_ends, floods_and_leaves, serial_file,
        console, data_stays, everything,
        case("Linux uses KVM's interface and keeps time", kvm_guest, "", True),
        case("Linux keeps time without KVM's clock", kvm_guest, "no-kvmclock", False),
        case("clock: utc; time passes", clock, "utc", 0),
        case("clock: localtime; time passes", clock, "localtime", 19800)])

EACH_ALONE = [case("virtio disks: written, read again, read-only", disks, "virtio", "vd"),
              case("IDE disk: written and read again", disks, "ide", "sd"), cdrom, rng]

run_tests([everything] if SANITIZED and not LONG else ALL + EACH_ALONE * LONG, sys.argv[1])
