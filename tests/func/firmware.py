#!/usr/bin/env python3
"""firmware.py SOSIA - SeaBIOS starts what the spec's boot order says: sector by sector, with a boot
sector of our own that is the same for every medium.
"""

import os
import shutil
import subprocess
import sys
import time

from guest import BOOT, Guest, need
from tap import Skip, case, expect, run_tests, sosia

SECTOR = 512
TEXT_AT = 2 * SECTOR  # of the image; INT 13h must read it
# It says who it is, whence it was started and what lies in a later sector of its medium,
# on COM1; then has the BIOS power off (APM 1.2, INT 15h AX=5307h). A CD-ROM's "sectors" of 2 KiB
# were loaded all at once (El Torito: no emulation), so there it only has to look.
SOURCE = r"""
    .code16
    .globl _start
_start:
    ljmp $0, $start                 # some firmware enters at 07C0h:0
start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
    sti                             # four ticks: until the BIOS has sent the rest of its screen
    movw $4, %cx
1:  hlt
    loop 1b
    cli
    movw $hello, %si
    call print
    movb drive, %al
    shrb $4, %al
    call digit
    movb drive, %al
    call digit
    cmpb $0xe0, drive               # CD-ROM
    jae loaded
    movw $0x0201, %ax               # read one sector: cylinder 0, head 0, sector 3
    movw $0x0003, %cx
    movb $0, %dh
    movb drive, %dl
    movw $0x7c00 + TEXT_AT, %bx
    int $0x13
    jc failed
loaded:
    movw $0x7c00 + TEXT_AT, %si
    call print
    movw $0x5301, %ax               # APM: connect, real mode
    xorw %bx, %bx
    int $0x15
    movw $0x5307, %ax               # APM: all devices off
    movw $1, %bx
    movw $3, %cx
    int $0x15
failed:
    movw $sorry, %si
    call print
stop:
    cli
    hlt
    jmp stop

digit:                              # low half of %al
    andb $15, %al
    addb $'0', %al
    cmpb $'9', %al
    jbe put
    addb $'a' - '9' - 1, %al
put:                                # %al, once the transmitter is empty
    pushw %ax
    movw $0x3fd, %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    popw %ax
    movw $0x3f8, %dx
    outb %al, %dx
    ret
print:                              # text at %si
    lodsb
    testb %al, %al
    jz 2f
    call put
    jmp print
2:  ret

drive: .byte 0
hello: .asciz "boot sector started from drive "
sorry: .asciz "\r\nfailed\r\n"
    .org 510
    .byte 0x55, 0xaa
"""


def boot_code(folder, name):
    """The boot sector, an empty one and one with a text that names the medium."""
    need("as", "ld", "objcopy")
    source, obj, elf, flat = (os.path.join(folder, "boot." + s) for s in ("s", "o", "elf", "bin"))
    with open(source, "w", encoding="ascii") as f:
        f.write(SOURCE.replace("TEXT_AT", str(TEXT_AT)))
    subprocess.run(["as", "--32", "-o", obj, source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x7c00", "-e", "_start", "-o", elf, obj],
                   check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", elf, flat], check=True)
    with open(flat, "rb") as f:
        code = f.read()
    expect(len(code) == SECTOR, len(code))
    return (code + bytes(SECTOR) + f", medium {name}\r\n\0".encode("ascii")).ljust(2048, b"\0")


def image(folder, name, size, bootable=True):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(boot_code(folder, name) if bootable else b"nothing to start here")
        f.truncate(size)
    return path


def disk(folder, name="disk", bootable=True):
    return image(folder, name, 4 << 20, bootable)


def floppy(folder, name="floppy", bootable=True):
    return image(folder, name, 2880 * SECTOR, bootable)


def iso(folder, name="cdrom"):
    tool = next((t for t in ("genisoimage", "xorrisofs", "mkisofs") if shutil.which(t)), None)
    if not tool:
        raise Skip("neither genisoimage nor xorriso is installed (scripts/setup.sh)")
    tree, out = os.path.join(folder, "tree-" + name), os.path.join(folder, name)
    os.mkdir(tree)
    with open(os.path.join(tree, "boot.img"), "wb") as f:
        f.write(boot_code(folder, name))
    subprocess.run([tool, "-quiet", "-o", out, "-b", "boot.img", "-c", "boot.cat", "-no-emul-boot",
                    "-boot-load-size", "4", tree], check=True, capture_output=True)
    return out


def starts(folder, prog, spec, drive, medium, times=1):
    """The firmware starts `medium` as BIOS drive `drive`, which then powers off."""
    for _ in range(times):
        with Guest(prog, folder, dict(spec, memory="32M", firmware="seabios")) as g:
            g.expect(f"boot sector started from drive {drive}, medium {medium}\r\n", BOOT)
            g.end(0)


def floppy_boot(folder, prog):
    """a floppy"""
    starts(folder, prog, {"floppy": floppy(folder)}, "00", "floppy", times=2)


def cdrom_boot(folder, prog):
    """a CD-ROM, by El Torito"""
    starts(folder, prog, {"cdrom": iso(folder)}, "e0", "cdrom", times=2)


def cdrom_on(folder, prog, bus):
    disks = [disk(folder), {"file": iso(folder), "bus": bus, "media": "cdrom"}]
    starts(folder, prog, {"disks": disks, "boot": "cdrom"}, "e0", "cdrom")


def disk_boot(folder, prog, bus, cpus):
    disks = [{"file": disk(folder), "bus": bus}]
    starts(folder, prog, {"disks": disks, "cpus": cpus}, "80", "disk")


def readonly_boot(folder, prog):
    """a read-only virtio disk"""
    path = disk(folder)
    os.chmod(path, 0o444)
    starts(folder, prog, {"disks": [{"file": path, "readonly": True}]}, "80", "disk")


def array_boot(folder, prog, level):
    """The first chunk of stripes is the first member's, which is also what a mirror begins with."""
    members = [disk(folder), os.path.join(folder, "second")]
    with open(members[1], "wb") as f:
        f.truncate(4 << 20)
    made = sosia(prog, "disk", "raid", *members, "--level", level, "--destroy-contents")
    expect(made.code == 0, made.err)
    spec = {"disks": [{"raid": int(level), "members": members}]}
    for _ in range(5):  # the guest may be done before the copy is
        starts(folder, prog, spec, "80", "disk")
        if "rebuilding" not in sosia(prog, "disk", "info", members[1]).out:
            break
    if level == "1":  # from the copy alone
        os.unlink(members[0])
        spec["disks"][0].update(members=members[1:], degraded=True)
        with Guest(prog, folder, dict(spec, memory="32M", firmware="seabios")) as g:
            g.expect("boot sector started from drive 80, medium disk\r\n", BOOT)
            g.end(0, "is missing")


def order(folder, prog):
    """the boot order decides, and what has no boot sector is passed over"""
    media = {"disks": [disk(folder)], "cdrom": iso(folder), "floppy": floppy(folder)}
    starts(folder, prog, dict(media, boot="floppy"), "00", "floppy")
    starts(folder, prog, dict(media, boot=["cdrom", "disk"]), "e0", "cdrom")
    starts(folder, prog, dict(media, boot=["disk", "cdrom"]), "80", "disk")
    media["disks"] = [disk(folder, "empty", bootable=False)]
    starts(folder, prog, dict(media, boot=["disk", "floppy", "cdrom"]), "00", "floppy")
    starts(folder, prog, media, "e0", "cdrom")


def first_disk(folder, prog):
    """of several disks the first of the spec, whatever their buses"""
    virtio = {"file": disk(folder, "virtio"), "bus": "virtio"}
    ide = {"file": disk(folder, "ide"), "bus": "ide"}
    starts(folder, prog, {"disks": [ide, virtio]}, "80", "ide")
    starts(folder, prog, {"disks": [virtio, ide]}, "80", "virtio")
    ahci = {"file": disk(folder, "ahci"), "bus": "ahci"}
    starts(folder, prog, {"disks": [ahci, virtio, ide]}, "80", "ahci")


def unsigned_floppy(folder, prog):
    """a floppy without the signature 55 AA, as those of the first PCs"""
    path = floppy(folder)
    with open(path, "r+b") as f:
        f.seek(SECTOR - 2)
        f.write(b"\0\0")
    starts(folder, prog, {"floppy": path}, "00", "floppy")


def nothing(folder, prog, spec):
    """SeaBIOS, whose screen is the terminal, too, says so and waits for good, idle."""
    with Guest(prog, folder, dict(spec, memory="32M")) as g:
        g.expect("No bootable device", BOOT)
        time.sleep(1)
        share = g.cpu_share(3)
        expect(share < 0.05, f"the firmware waits and uses {share:.0%} of a core")
        expect("Retrying" not in g.text, "the firmware will reboot in a loop\n", g.text)
        g.send("\x01x")
        g.end(0)


def no_disk(folder, prog):
    """nothing to start from"""
    nothing(folder, prog, {})


def no_boot_sector(folder, prog):
    """media without boot sectors"""
    disks = [disk(folder, "a", False), {"file": disk(folder, "b", False), "bus": "ide"}]
    nothing(folder, prog, {"disks": disks, "cdrom": disk(folder, "c", False)})


run_tests([no_disk, no_boot_sector, floppy_boot, unsigned_floppy, cdrom_boot] +
          [case(f"the MBR of a disk on {bus}, vCPUs: {cpus}", disk_boot, bus, cpus)
           for bus in ("ide", "virtio") for cpus in (1, 4)] +
          [case(f"the MBR of a disk on {bus}", disk_boot, bus, 2) for bus in ("ahci", "nvme", "scsi")] +
          [case(f"a CD-ROM on {bus}", cdrom_on, bus) for bus in ("ahci", "scsi")] +
          [case(f"RAID {level}", array_boot, level) for level in "01"] +
          [readonly_boot, order, first_disk], sys.argv[1])
