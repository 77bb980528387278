#!/usr/bin/env python3
"""import.py SOSIA - VMs made from what other programs call one: the spec, the disks, what is told."""

import json
import os
import pathlib
import sys

from tap import expect, expect_run, run_tests, sosia, write
from vms import error, get, home, ok

VMX = """config.version = "8"
displayName = "Old Mail"
memsize = "128"
numvcpus = "2"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "mail.vmdk"
ethernet0.present = "TRUE"
"""
VBOX = """<?xml version="1.0"?>
<VirtualBox version="1.19-linux"><Machine name="web">
  <MediaRegistry><HardDisks>
    <HardDisk uuid="{1}" location="web.vdi" format="VDI" type="Normal"/>
  </HardDisks></MediaRegistry>
  <Hardware><Memory RAMSize="64"/><StorageControllers>
    <StorageController name="SATA" type="AHCI">
      <AttachedDevice type="HardDisk" port="0" device="0"><Image uuid="{1}"/></AttachedDevice>
    </StorageController></StorageControllers></Hardware>
</Machine></VirtualBox>
"""
DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"
RW 2048 FLAT "%s" 0
"""


def vmware(folder, extent="mail-flat.vmdk"):
    """A VM of VMware in a folder of its own; the path of its file."""
    at = pathlib.Path(folder) / "old"
    at.mkdir()
    (at / "mail.vmdk").write_text(DESCRIPTOR % extent)
    (at / "mail-flat.vmdk").write_bytes(b"mail" * (1 << 18))
    return write(at, "mail.vmx", VMX)


def vmx(folder, prog):
    """.vmx: a VM with an overlay on the image, and both lists"""
    top = home(folder)
    vmware(folder)
    r = sosia(prog, "import", "old/mail.vmx", cwd=folder)
    expect_run(r, 0, out="")
    for said in ("memory: 128M", "cpus: 2", "no network card", "imported Old-Mail"):
        expect(said in r.err, said, r.err)
    expect("could not be started" not in r.err, r.err)
    info = get(prog, "info", "Old-Mail")
    expect((info["cpus"], info["memory"]) == (2, 128 << 20), info)
    overlay = str(top / "vms/Old-Mail/disks/disk0.qcow2")
    expect(info["disks"][0]["file"] == overlay, info)
    told = json.loads(ok(prog, "disk", "info", "--backing-anywhere", "--json", overlay))
    expect(f"{folder}/old/mail.vmdk" in json.dumps(told), told)
    expect_run(sosia(prog, "check", "Old-Mail"), 0, out="ok")
    error(prog, 4, "state", "import", f"{folder}/old/mail.vmx")
    made = get(prog, "import", f"{folder}/old/mail.vmx", "two")
    expect(made["name"] == "two" and made["state"] == "stopped", made)
    expect({"from": "memsize", "as": "memory: 128M"} in made["understood"], made)
    expect(any(d["from"] == "ethernet0.*" and d["why"] for d in made["dropped"]), made)


def copies(folder, prog):
    """--copy: the VM needs nothing of the other one any more"""
    top = home(folder)
    path = vmware(folder)
    ok(prog, "import", "--copy", path, "web")
    os.unlink(f"{folder}/old/mail.vmdk")
    out = f"{folder}/raw.img"
    ok(prog, "disk", "convert", "--format", "raw", str(top / "vms/web/disks/disk0.qcow2"), out)
    expect(pathlib.Path(out).read_bytes() == b"mail" * (1 << 18), "the copy is another")
    error(prog, 1, "io", "import", "--copy", path, "no")
    expect(ok(prog, "ls", "--names") == "web\n", "made in spite of an error")


def shows(folder, prog):
    """--dry-run: the spec, and nothing is made"""
    top = home(folder)
    path = vmware(folder)
    r = sosia(prog, "import", "--dry-run", path)
    expect_run(r, 0, out="disks/disk0.qcow2", err="memsize")
    expect(not top.exists(), "something was made")
    write(folder, "vm.yaml", r.out)
    spec = get(prog, "import", "--dry-run", path)["spec"]
    expect(spec == r.out, spec)


def qemu(folder, prog):
    """a command line of QEMU, as an argument and from standard input"""
    top = home(folder)
    write(folder, "a.img", "x" * 4096)
    line = "qemu-system-x86_64 -m 64 -smp 2 \\\n -drive file=a.img,format=raw,if=virtio -nic user"
    r = sosia(prog, "import", "--qemu", line + " -name 'my vm'", cwd=folder)
    expect_run(r, 0, out="", err="no network card")
    info = get(prog, "info", "my-vm")
    expect((info["cpus"], info["disks"][0]["file"]) == (2, f"{folder}/a.img"), info)
    expect_run(sosia(prog, "check", "my-vm"), 0, out="ok")
    expect_run(sosia(prog, "import", "-", "b", stdin=line + " -snapshot\n", cwd=folder), 0)
    expect((top / "vms/b/disks/disk0.qcow2").exists(), "no overlay")
    expect("what shall it be called" in error(prog, 2, "usage", "import", "--qemu", line), "name")
    error(prog, 2, "usage", "import", "--qemu", line, "c", "d")
    error(prog, 2, "usage", "import")
    error(prog, 1, "format", "import", "--qemu", "ls", "c")


def vbox(folder, prog):
    """.vbox: a disk that can be written stays where it is"""
    home(folder)
    ok(prog, "disk", "create", "--format", "vdi", f"{folder}/web.vdi", "1M")
    path = write(folder, "web.vbox", VBOX)
    made = get(prog, "import", path)
    expect(made["name"] == "web" and made["dropped"] == [], made)
    info = get(prog, "info", "web")
    expect((info["memory"], info["disks"][0]["file"]) == (64 << 20, f"{folder}/web.vdi"), info)
    expect_run(sosia(prog, "check", "web"), 0, out="ok")


def refuses(folder, prog):
    """what is no description, or names files that it must not: told, and nothing is made"""
    home(folder)
    write(folder, "a.vmx", "hello\n")
    write(folder, "a.txt", VMX)
    expect("not a .vmx" in error(prog, 1, "format", "import", f"{folder}/a.vmx"), "no VM")
    error(prog, 2, "usage", "import", f"{folder}/a.txt")
    error(prog, 3, "not-found", "import", f"{folder}/gone.vmx")
    path = vmware(folder, extent="/etc/passwd")
    error(prog, 2, "usage", "import", path, "a/b")
    expect(ok(prog, "ls") == "", ok(prog, "ls"))
    r = sosia(prog, "import", path)
    expect_run(r, 0, out="", err="cannot be used now")
    os.unlink(f"{folder}/old/mail.vmdk")
    expect_run(sosia(prog, "import", path, "b"), 0, out="", err="could not be started now")


run_tests([vmx, copies, shows, qemu, vbox, refuses], sys.argv[1])
