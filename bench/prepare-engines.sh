#!/bin/sh
# prepare-engines.sh DIR - makes what engines.py runs on, beyond what prepare.sh makes; no root:
#   DIR/debian        Debian 12 with the programs, and the suite in /bench: for native runs
#   DIR/tree.img      the same as an ext4 file system: the disk of the guests
#   DIR/initrd-disk   busybox, the modules for the disk, and engines-init
# Does nothing for what is there and newer than its sources. Packages: scripts/setup.sh bench
set -eu
PATH=$PATH:/usr/sbin:/sbin

out=${1:?usage: prepare-engines.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
"$here/prepare.sh" "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

newer() { # FILE SOURCE...: whether FILE is newer than each SOURCE
    [ -s "$1" ] || return 1
    file=$1
    shift
    [ -z "$(find "$@" -newer "$file")" ]
}

# Python's own library as text to compress, and what else the programs work on.
make_data() { # TREE
    data=$1/bench/data
    mkdir -p "$data"
    cp "$here"/programs/* "$here/pb/int.c" "$here/pb/pb.h" "$data/"
    (cd "$1/usr/lib/python3.11" && find . -name '*.py' | LC_ALL=C sort | xargs cat 2>/dev/null) |
        head -c 4194304 >"$data/text"
    head -c 1048576 "$data/text" >"$data/text.small"
    cat "$data/text" "$data/text" "$data/text" "$data/text" >"$data/text4"
    gzip -1 -c "$data/text" >"$data/text.gz"
    zstd -q -3 -c "$data/text" >"$data/text.zst"
    xz -0 -c "$data/text" >"$data/text.xz"
    awk 'BEGIN {
        x = 12345
        for (i = 0; i < 60000; i++) {
            x = (x * 1103515245 + 12345) % 2147483648
            printf "%d w%d line%dx\n", x, x % 997, (x * 7) % 65536
        }
    }' >"$data/lines"
    printf '%s%s%s\n' C2F7A5A1D1A0B8E5D9F3C4B7A6958473625140F1E2D3C4B5A697887766554433221100FF \
        EEDDCCBBAA99887766554433221100F0E1D2C3B4A5968778695A4B3C2D1E0F112233445566778899AABB \
        CCDDEEFF01 >"$data/prime"
}

packages=gzip,zstd,xz-utils,bzip2,grep,gawk,sed,lua5.4,python3-minimal,libpython3-stdlib,perl
packages=$packages,sqlite3,gcc,libc6-dev,openssl,busybox-static
if [ ! -d "$out/debian" ]; then
    echo "prepare-engines.sh: a Debian tree with the programs, some minutes" >&2
    mkdir "$work/debian"
    # By way of an archive, so that every file belongs to who runs this.
    mmdebstrap --quiet --variant=minbase --include=$packages bookworm - |
        tar -x -C "$work/debian" --no-same-owner --exclude=./dev
    mkdir "$work/debian/dev"
    mv "$work/debian" "$out/debian"
fi

if ! newer "$out/tree.img" "$out/pb" "$here"/programs/* "$0"; then
    rm -rf "$out/debian/bench"
    make_data "$out/debian"
    cp "$out/pb" "$here/programs/suite.sh" "$here/programs/programs.sh" "$out/debian/bench/"
    truncate -s 1G "$work/tree.img"
    mke2fs -q -F -t ext4 -O ^has_journal -d "$out/debian" "$work/tree.img"
    mv "$work/tree.img" "$out/tree.img"
fi

if ! newer "$out/initrd-disk" "$out/vmlinuz" "$here/engines-init" "$0"; then
    root=$work/root
    mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/root"
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp -r "$out/modules" "$root/modules"
    install -m 755 "$here/engines-init" "$root/init"
    (cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) |
        gzip -9 >"$work/initrd"
    mv "$work/initrd" "$out/initrd-disk"
fi
