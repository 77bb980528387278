#!/usr/bin/env python3
"""layers.py ROOT - includes point one way: a folder of src/ includes itself and those above it.

The order is the house plan's (docs/architecture.md). One exception: chip, pci and virtio may include the
two pure contracts block/block.h and char/char.h, so that a device can speak to a back end it does
not know. Prints TAP: one point per folder.
"""

import pathlib
import re
import sys

ORDER = ("base spec mem isa engine chip pci virtio block net display input char state machine vmm "
         "catalog cli").split()
CONTRACTS = {"block/block.h", "char/char.h"}
MAY_USE_CONTRACTS = {"chip", "pci", "virtio"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def problems(src, folder):
    """Yields one line of text per include of `folder` that points the wrong way."""
    allowed = set(ORDER[:ORDER.index(folder) + 1])
    for path in sorted((src / folder).rglob("*.[chS]")):
        for inc in INCLUDE.findall(path.read_text(encoding="utf-8", errors="replace")):
            top = inc.split("/")[0]
            if "/" not in inc and not (src / inc).exists():
                continue  # made by the build, in the folder's own build directory
            if top in allowed or (folder in MAY_USE_CONTRACTS and inc in CONTRACTS):
                continue
            why = "is below" if top in ORDER else "is no folder of src/"
            yield f"{path.relative_to(src.parent)} includes {inc}: {top} {why}"


def main():
    src = pathlib.Path(sys.argv[1]) / "src"
    folders = sorted(p.name for p in src.iterdir() if p.is_dir())
    print(f"1..{len(folders)}")
    for n, folder in enumerate(folders, 1):
        bad = ([f"src/{folder} has no place in the order of layers"] if folder not in ORDER
               else list(problems(src, folder)))
        print(f"{'not ok' if bad else 'ok'} {n} - src/{folder} includes only upward")
        for line in bad:
            print(f"# {line}")
    return 0


sys.exit(main())
