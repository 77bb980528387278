"""packages.py - Debian packages as test material: downloaded and unpacked, nothing installed.

The system's package sources serve, with lists of our own in build/guests/apt-ARCH: so it works
without root, for another architecture, and with lists of today.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from guest import CACHE, LONG, SANITIZED, need
from tap import Skip

DOWNLOAD = 900  # seconds


class Apt:
    def __init__(self, arch):
        self.arch, self.folder = arch, CACHE / f"apt-{arch}"
        self.config = self.folder / "apt.conf"
        self.env = dict(os.environ, APT_CONFIG=str(self.config), LC_ALL="C")

    def prepare(self):
        if self.config.exists():
            return
        for sub in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        self.config.write_text(
            f'APT::Architecture "{self.arch}"; APT::Architectures {{ "{self.arch}"; }};\n'
            f'Dir::State "{self.folder}/state"; Dir::State::status "{self.folder}/status";\n'
            f'Dir::Cache "{self.folder}/cache"; APT::Sandbox::User "";\n', encoding="utf-8")

    def run(self, *argv, cwd=None):
        return subprocess.run(argv, env=self.env, cwd=cwd, capture_output=True, text=True,
                              timeout=DOWNLOAD, stdin=subprocess.DEVNULL)

    def update(self):
        self.run("apt-get", "-q", "update")  # a list that cannot be had leaves the others

    def download(self, name, folder):
        """The path of the package's file, or None."""
        self.run("apt-get", "-q", "download", name, cwd=folder)
        return next(iter(pathlib.Path(folder).glob("*.deb")), None)

    def dependencies(self, name, prefix=""):
        """The packages with this prefix that `name` depends on."""
        lines = self.run("apt-cache", "depends", name).stdout.splitlines()
        words = [line.split("Depends: ")[-1].strip() for line in lines if "Depends: " in line]
        return [w for w in words if w.startswith(prefix) and not w.startswith("<")]

    def dependency(self, name, prefix):
        """The first one of them, or None."""
        return next(iter(self.dependencies(name, prefix)), None)


@contextlib.contextmanager
def _locked():
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "packages.lock", "w", encoding="utf-8") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def package(name, arch="amd64", names=None):
    """The folder with the unpacked package. `names` is the prefix of what to take instead of
    `name`, which only depends on it. Raises Skip where it cannot be had."""
    need("apt-get", "dpkg-deb")
    unpacked, apt = CACHE / f"{name}-{arch}", Apt(arch)
    with _locked():
        if unpacked.exists():
            return unpacked
        apt.prepare()
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            for attempt in (1, 2):
                real = apt.dependency(name, names) if names else name
                deb = apt.download(real, folder) if real else None
                if deb:
                    break
                if attempt == 1:
                    apt.update()
            else:
                raise Skip(f"the package {name}:{arch} cannot be downloaded")
            new = pathlib.Path(folder) / "new"
            subprocess.run(["dpkg-deb", "-x", deb, new], check=True)
            new.chmod(0o755)
            shutil.move(new, unpacked)
    return unpacked


def _provider(lib, name):
    """The path of a shared library that package `name` needs, and the package it is in."""
    for other in [name, *Apt("amd64").dependencies(name)]:
        found = sorted(package(other).rglob(lib))
        if found:
            return found[0], other
    raise Skip(f"{lib}, which {name} needs, cannot be found")


def _gather(name, program, root):
    """Copies a program of package `name`, and the shared libraries it needs, to the tree `root`."""
    todo, done = [(package(name) / program, name, root / program)], set()
    while todo:
        elf, owner, target = todo.pop()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(elf, target)
        dynamic = subprocess.run(["readelf", "-d", elf], capture_output=True, text=True, check=True,
                                 env=dict(os.environ, LC_ALL="C")).stdout
        for lib in set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)) - done:
            done.add(lib)
            folder = "lib64" if lib.startswith("ld-linux") else "lib"
            todo.append((*_provider(lib, owner), root / folder / lib))


def copy_program(name, program, root):
    """The same, gathered once: to ask apt where each library is takes minutes."""
    need("readelf")
    gathered = CACHE / f"{name}-program"
    if not gathered.exists():
        package(name)  # makes the folder, too
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            _gather(name, program, pathlib.Path(folder) / "new")
            with _locked():
                if not gathered.exists():
                    os.rename(pathlib.Path(folder) / "new", gathered)
    shutil.copytree(gathered, root, dirs_exist_ok=True)


def sample():
    """Skips what takes minutes with sanitizers, unless everything is wanted."""
    if SANITIZED and not LONG:
        raise Skip("too slow with sanitizers; make check-long runs it")


def one(folder, pattern):
    """The only file below `folder` that matches."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise Skip(f"{folder.name} has {len(found)} files {pattern}")
    return found[0]


INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
dmesg -n 4
export PS1='guest:# '
exec setsid cttyhack sh
"""


def busybox_initrd(path, arch="amd64", fill=None):
    """Writes an initrd with a static busybox of that architecture, which gives a shell with the
    prompt `guest:# ` on the kernel's console; fill(root), if given, adds to its tree."""
    need("cpio")
    busybox = package("busybox-static", arch) / "bin" / "busybox"
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        for sub in ("bin", "proc", "sys", "dev", "tmp"):
            (root / sub).mkdir()
        shutil.copy(busybox, root / "bin" / "busybox")
        for applet in ("sh mount dmesg setsid cttyhack cat echo uname nproc poweroff ls grep sleep "
                       "md5sum sha1sum gzip seq head dd expr").split():
            (root / "bin" / applet).symlink_to("busybox")
        (root / "init").write_text(INIT, encoding="utf-8")
        (root / "init").chmod(0o755)
        if fill:
            fill(root)
        names = "\n".join(str(p.relative_to(root)) for p in sorted(root.rglob("*")))
        with open(path, "wb") as out:
            subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=root,
                           input=names.encode(), stdout=out, check=True)
    return str(path)


def add_modules(root, names, applets):
    """Adds modules of Debian's kernel, and what they need, to the tree of an initrd, where /load
    inserts them; and links for applets of busybox, `insmod` among them."""
    need("depmod", "modprobe")
    kernel = package("linux-image-amd64", names="linux-image-6")
    release = one(kernel, "lib/modules/*").name
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not (kernel / "lib/modules" / release / "modules.dep").exists():
        subprocess.run(["depmod", "-b", kernel, release], check=True, env=env)
    paths = []
    for name in names:
        out = subprocess.run(["modprobe", "-d", kernel, "-S", release, "--show-depends", name],
                             check=True, env=env, capture_output=True, text=True).stdout
        paths += [line.split()[1] for line in out.splitlines() if line.startswith("insmod")]
    paths = list(dict.fromkeys(paths))
    (root / "modules").mkdir()
    for path in paths:
        shutil.copy(path, root / "modules")
    load = "".join(f"insmod /modules/{os.path.basename(p)}\n" for p in paths)
    (root / "load").write_text("#!/bin/sh\n" + load, encoding="utf-8")
    (root / "load").chmod(0o755)
    for applet in applets.split():
        (root / "bin" / applet).symlink_to("busybox")
