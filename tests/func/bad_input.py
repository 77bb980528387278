#!/usr/bin/env python3
"""bad_input.py SOSIA - spec files, kernels, disks and firmware that are not what they should be:
the program says what is wrong with which file and exits as documented; no signal, no hang, no leak.
"""

import os
import pathlib
import random
import subprocess
import sys
import time

from guest import LONG, SLOW, Guest, demo, need
from tap import Skip, case, expect, run_tests, write

LIMIT = 10 * SLOW  # seconds in which an error must be found
KIB, MIB = 1 << 10, 1 << 20

# A malformed spec, and what the message must hold. In the folder: `disk`, `empty`, `folder`.
SPECS = [
    # Keys
    ("memroy: 1G\n", 'did you mean "memory"?'),
    ("cpu: 2\n", "unknown key"),
    ("cpus: 1\ncpus: 2\n", "given twice"),
    ("[cpus]: 1\n", "a key must be a word"),
    ("~: 1\n", "a key must be a word"),
    ("<<: {cpus: 1}\n", "unknown key"),
    ("disks: [{file: disk, buss: ide}]\n", '"bus"'),
    ("serial: {fil: x}\n", '"file"'),
    # Kinds
    ("", "is empty"),
    ("# nothing\n", "is empty"),
    ("- cpus\n", "not a list"),
    ("just text\n", "not a single value"),
    ("cpus:\n", "no value"),
    ("cpus: [1]\n", "must be a number"),
    ("memory: {a: b}\n", "must be a size"),
    ("name: [a]\n", "must be a single value"),
    ("disks: disk\n", "must be a list"),
    ("disks: {file: disk}\n", "must be a list"),
    ("disks: [[disk]]\n", "a path or a map"),
    ("disks: [~]\n", "not nothing"),
    ("boot: {a: b}\n", "one of its words"),
    # Words
    ("engine: kvm\n", "auto | interp"),
    ("firmware: seabois\n", 'did you mean "seabios"?'),
    ("boot: [disk, disk]\n", "twice"),
    ("boot: []\n", "must name a device"),
    ("serial: file\n", "which file?"),
    ("console: ttyS0\n", "none | terminal"),
    ("console: terminal\n", "cannot both be the terminal"),
    ("clock: UTC\n", 'did you mean "utc"?'),
    ("disks: [{file: disk, bus: usb}]\n", "virtio | ide | ahci | nvme | scsi"),
    ("disks: [{file: disk, readonly: yes}]\n", "true or false"),
    ("disks: [{bus: ide}]\n", 'needs "file"'),
    # Numbers
    ("cpus: two\n", "1 to 32"),
    ("cpus: 0\n", "1 to 32"),
    ("cpus: 33\n", "1 to 32"),
    ("cpus: -1\n", "1 to 32"),
    ("cpus: 0x2\n", "1 to 32"),
    ("cpus: 99999999999999999999999\n", "1 to 32"),
    ("memory: lots\n", "512M or 2G"),
    ("memory: 512\n", "did you mean 512M?"),
    ("memory: 0\n", "from 1M"),
    ("memory: 1025K\n", "multiple of 1M"),
    ("memory: 2T\n", "to 1T"),
    ("memory: 1T\n", "this host has only"),
    ("memory: 18446744073709551615T\n", "cannot be"),
    # Texts
    ("name: a/b\n", "a name cannot have"),
    ("name: ''\n", "must not be empty"),
    ('kernel: "a\\nb"\n', "one line"),
    ("kernel: disk\ncmdline: " + 2048 * "x" + "\n", "limit is 2047"),
    # Files and what goes together
    ("cdrom: nope.iso\n", "nope.iso: No such file"),
    ("disks: [disk, nope.img]\n", "nope.img: No such file"),
    ("disks: [empty]\n", "is empty"),
    ("disks: [/dev/null]\n", "not a file or block device"),
    ("disks: [folder]\n", "not a file or block device"),
    ("kernel: folder\n", "is not a file"),
    ("initrd: disk\n", 'needs "kernel"'),
    ("cmdline: quiet\n", 'needs "kernel"'),
    ("firmware: none\n", "without firmware"),
    ("kernel: disk\nfirmware: seabios\n", "leave out"),
    ("disks: [" + 17 * "disk, " + "]\n", "more than 16 disks"),
    ("disks: [" + 5 * "{file: disk, bus: ide}, " + "]\n", "on IDE"),
    # YAML
    ("---\n---\n", "second document"),
    ("cpus: 1\n---\ncpus: 2\n", "second document"),
    ("cpus: &a 1\n", "anchors"),
    ("name: *a\n", "aliases"),
    ("cpus: !!int 1\n", "tags"),
    ("disks:\n\t- a\n", "use spaces"),
    ('name: "abc\n', "closing quote"),
    ("disks: [a, b\n", "not valid YAML"),
    ("cpus 1\nmemory: 1G\n", "not valid YAML"),
    ("disks: " + 10 * "[" + "a" + 10 * "]" + "\n", "8 levels"),
    (100000 * "[", "8 levels"),
    ("disks: [" + 5000 * "a," + "]\n", "1000 values"),
    (MIB * "#" + "\n", "larger than"),
]
BYTES = [  # as above, not UTF-8
    (b"name: \xff\n", "not UTF-8"),
    (b"name: \xed\xa0\x80\n", "not UTF-8"),
    (b"name: \x1b[31m\n", "not allowed"),
    (b"\xff\xfec\0p\0", "sosia: vm.yaml"),
    (bytes(4096), "not allowed"),
]


class Ended:
    """One run of the program that must end by itself."""

    def __init__(self, prog, folder, *args, env=None, wrap=()):
        try:
            run = subprocess.run([*wrap, os.path.abspath(prog), *args], cwd=folder, timeout=LIMIT,
                                 stdin=subprocess.DEVNULL, capture_output=True,
                                 env=dict(os.environ, **(env or {})))
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"{args}: no end within {LIMIT} s: {e.stdout} {e.stderr}") from e
        self.code, self.out = run.returncode, run.stdout.decode(errors="replace")
        self.err = run.stderr.decode(errors="replace")

    def expect(self, code, *say):
        seen = f"exit {self.code}\nstdout: {self.out[:500]}\nstderr: {self.err[:3000]}"
        expect(self.code == code, f"expected exit {code}, got", seen)
        expect(not self.out, "standard output is the guest's\n", seen)
        expect(self.err.startswith("sosia: "), seen)
        for part in say:
            expect(part in self.err, f"{part!r} is not in the message\n", seen)


# ---- spec files ----

def malformed(folder, prog, text, say):
    pathlib.Path(folder, "disk").write_bytes(bytes(512))
    pathlib.Path(folder, "empty").write_bytes(b"")
    pathlib.Path(folder, "folder").mkdir()
    pathlib.Path(folder, "vm.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    for verb in ("check", "run"):
        Ended(prog, folder, verb, "vm.yaml").expect(2, "vm.yaml", say)


def not_specs(folder, prog):
    """a folder, a device, a disk, nothing where the spec file should be"""
    pathlib.Path(folder, "disk.img").write_bytes(os.urandom(2 * MIB))
    for path in ("/", "/dev/zero", "/dev/null", "/proc/self/mem", "disk.img", "", "nope.yaml",
                 300 * "x"):
        Ended(prog, folder, "run", path).expect(2, path[:250])


def mutations(folder, prog):
    """a good spec with random damage: an error, or none"""
    good = (b"name: vm\nengine: interp\ncpus: 2\nmemory: 64M\nboot: [disk, cdrom]\n"
            b"disks:\n  - disk\n  - {file: disk, bus: ide, readonly: true}\n"
            b"serial: {file: out}\nclock: localtime\n")
    pathlib.Path(folder, "disk").write_bytes(bytes(512))
    rnd = random.Random(1)
    for _ in range(2000 if LONG else 60):
        text = bytearray(good)
        for _ in range(rnd.randint(1, 4)):
            at = rnd.randrange(len(text))
            text[at:at + rnd.randint(0, 3)] = rnd.choice([b"", b"\0", b"[", b"}", b": ", b"\n",
                                                          b"-", b"\xc3", b"9" * 20, b"'", b"&a "])
        pathlib.Path(folder, "vm.yaml").write_bytes(text)
        r = Ended(prog, folder, "check", "vm.yaml")
        if r.code:
            r.expect(2, "vm.yaml")


# ---- files that a spec names ----

def run_spec(prog, folder, *lines, **how):
    write(folder, "vm.yaml", "\n".join(lines) + "\n")
    return Ended(prog, folder, "run", "vm.yaml", **how)


def put(folder, name, data):
    path = pathlib.Path(folder, name)
    path.write_bytes(data)
    return path


def sparse(folder, name, size):
    with open(os.path.join(folder, name), "wb") as f:
        f.truncate(size)


def cut_kernels(folder, prog):
    """kernels cut off anywhere"""
    kernel = pathlib.Path(demo()["kernel"]).read_bytes()
    for size in (1, 2, 511, 512, 514, 600, 4096, 20480, 20481, 100000, len(kernel) // 2,
                 len(kernel) - 4096):
        put(folder, "kernel", kernel[:size])
        run_spec(prog, folder, "kernel: kernel").expect(1, "kernel: ")


def no_kernels(folder, prog):
    """what is no kernel: random bytes, an initrd, an ELF file, a script, zeroes, a huge file"""
    elf, initrd = pathlib.Path(prog).read_bytes()[:100000], pathlib.Path(demo()["initrd"])
    for data in (random.Random(2).randbytes(MIB), initrd.read_bytes(), elf, b"#!/bin/sh\n",
                 bytes(MIB)):
        put(folder, "kernel", data)
        run_spec(prog, folder, "kernel: kernel").expect(1, "kernel: ")
    sparse(folder, "kernel", 1 << 40)
    run_spec(prog, folder, "kernel: kernel").expect(1, "kernel: ")


def no_room(folder, prog):
    """memory too small for the kernel or the initrd: which, and how much it takes"""
    d = demo()
    for memory in ("1M", "16M", "40M"):
        run_spec(prog, folder, f"kernel: {d['kernel']}", f"memory: {memory}").expect(
            1, "vmlinuz: ", "memory")
    sparse(folder, "big", 1 << 32)
    run_spec(prog, folder, f"kernel: {d['kernel']}", "initrd: big", "memory: 256M").expect(
        1, "big: ", "memory")


def long_cmdline(folder, prog):
    """a command line that this kernel does not take"""
    kernel = bytearray(pathlib.Path(demo()["kernel"]).read_bytes())
    kernel[0x238:0x23c] = (100).to_bytes(4, "little")  # cmdline_size
    put(folder, "kernel", kernel)
    run_spec(prog, folder, "kernel: kernel", "cmdline: " + 101 * "x").expect(1, "kernel", "100")


def floppies(folder, prog):
    """images that no floppy drive has a format for"""
    for size in (1, 512, 1440 * KIB - 512, 1440 * KIB + 1, 10 << 30):
        sparse(folder, "floppy", size)
        run_spec(prog, folder, "floppy: floppy").expect(1, "floppy: ", "1440")


def unwritable(folder, prog):
    """a serial file in a folder that is not there"""
    run_spec(prog, folder, "serial: {file: nope/log}").expect(1, "nope/log")


def bad_firmware(folder, prog):
    """firmware that is none: too small, odd, huge"""
    env = {"SOSIA_FIRMWARE_DIR": folder}
    for name in ("bios-256k.bin", "vgabios-stdvga.bin"):
        for size in (0, 1, 65537, 5 * MIB, 1 << 40):
            sparse(folder, name, size)
            run_spec(prog, folder, "{}", env=env).expect(1, os.path.join(folder, name))
        os.unlink(os.path.join(folder, name))


def no_firmware(folder, prog):
    """no firmware on this host: exit 6, and which package has it"""
    need("unshare", "mount")
    hide = ("unshare", "-rm", "sh", "-c", "for d in /usr/share/seabios /usr/share/qemu; do "
            "[ ! -d $d ] || mount -t tmpfs none $d || exit 77; done; exec \"$@\"", "sh")
    if subprocess.run([*hide, "true"], capture_output=True).returncode:
        raise Skip("user namespaces do not work here")
    run_spec(prog, folder, "{}", wrap=hide, env={"SOSIA_FIRMWARE_DIR": folder}).expect(
        6, "bios-256k.bin", folder, "apt install seabios")


# ---- what only the guest sees ----

def terminate(guest):
    if guest.process.poll() is None:  # it may have found its way to a power-off
        guest.process.terminate()
        guest.end(1, err="ended by a signal")
    else:
        guest.end(0)


def unreadable_media(folder, prog):
    """odd sizes and random contents of disks and CD-ROMs are the guest's affair"""
    rnd = random.Random(3)
    media = []
    for name, size in (("a", 1), ("b", 513), ("c", 100000), ("cd", 5 * 2048 + 1)):
        media.append(str(put(folder, name, rnd.randbytes(size))))
    spec = {"memory": "1M", "cdrom": media[3],
            "disks": [media[0], {"file": media[1], "bus": "ide"}, media[2]]}
    with Guest(prog, folder, spec) as g:
        g.expect("No bootable device", LIMIT)
        terminate(g)


def random_code(folder, prog):
    """boot sectors full of random code"""
    for seed in range(200 if LONG else 6):
        code = random.Random(seed).randbytes(510) + b"\x55\xaa"
        disk = put(folder, "disk", code + bytes(MIB))
        spec = {"memory": "16M", "cpus": 1 + seed % 2, "disks": [str(disk)]}
        with Guest(prog, folder, spec) as g:
            g.expect("Booting from Hard Disk", LIMIT)
            time.sleep(1)
            terminate(g)


def damaged_kernels(folder, prog):
    """kernels with random damage in their header or code: refused, or started"""
    d = demo()
    kernel = pathlib.Path(d["kernel"]).read_bytes()
    for seed in range(200 if LONG else 6):
        rnd, data = random.Random(seed), bytearray(kernel)
        low, high = (0x1f1, 0x290) if seed % 2 else (20480, len(data))
        for _ in range(1 + seed % 3 if seed % 2 else 2000):
            data[rnd.randrange(low, high)] = rnd.randrange(256)
        put(folder, "kernel", data)
        with Guest(prog, folder, dict(d, kernel="kernel")) as g:
            time.sleep(1)
            if g.process.poll() == 1:
                g.end(1, err="kernel: ")
            else:
                terminate(g)


def shrinking_disk(folder, prog):
    """a disk that shrinks under the guest: errors there, the VM lives"""
    sparse(folder, "disk", 16 * MIB)
    disk = os.path.join(folder, "disk")
    with Guest(prog, folder, dict(demo(), disks=[disk])) as g:
        g.boot()
        g.ask("umount /data; dd if=/dev/vda of=/dev/null bs=64k count=4", code=None)
        os.truncate(disk, MIB)
        g.ask("dd if=/dev/vda of=/dev/null bs=64k iflag=direct skip=16 count=4", code=None)
        g.ask("dd if=/dev/zero of=/dev/vda bs=64k seek=64 count=4 conv=fsync", code=None)
        g.power_off()


def name_of(text):
    """Short, and without the # that TAP gives a meaning."""
    shown = repr(text).replace("#", "number sign")
    return shown if len(shown) <= 70 else shown[:60] + "..."


run_tests([case(f"spec {name_of(text)}", malformed, text, say) for text, say in SPECS + BYTES] +
          [not_specs, mutations, cut_kernels, no_kernels, no_room, long_cmdline, floppies,
           unwritable, bad_firmware, no_firmware, unreadable_media, random_code, damaged_kernels,
           shrinking_disk], sys.argv[1])
