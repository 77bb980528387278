#!/bin/sh
# prepare.sh DIR - makes what the benchmark runs on, without root:
#   DIR/vmlinuz   Debian's cloud kernel, as it is; DIR/modules: those that a disk needs
#   DIR/pb        the benchmarks, one static program for native runs and for guests
#   DIR/initrd    busybox, pb and guest-init
#   DIR/grub.iso  a CD-ROM with GRUB that starts the two, for Bochs, which cannot start a kernel;
#                 the kernel's command line is DIR/cmdline everywhere
# Does nothing for what is there and newer than its sources. Packages: scripts/setup.sh bench
set -eu

out=${1:?usage: prepare.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

newer() { # FILE SOURCE...: whether FILE is newer than each SOURCE
    [ -s "$1" ] || return 1
    file=$1
    shift
    [ -z "$(find "$@" -newer "$file")" ]
}

if [ ! -s "$out/modules/order" ]; then
    "$here/../scripts/cloud-kernel.sh" "$out" virtio_pci virtio_blk ext4
fi

newer "$out/pb" "$here"/pb/* "$0" ||
    gcc -std=gnu17 -O2 -Wall -Wextra -static -pthread -o "$out/pb" "$here"/pb/*.c -lm

if ! newer "$out/initrd" "$out/pb" "$here/guest-init" "$0"; then
    root=$work/root
    mkdir -p "$root/bin" "$root/dev" "$root/proc"
    cp "$(command -v busybox)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$out/pb" "$root/bin/pb"
    install -m 755 "$here/guest-init" "$root/init"
    (cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) |
        gzip -9 >"$work/initrd"
    mv "$work/initrd" "$out/initrd"
fi

if ! newer "$out/grub.iso" "$out/initrd" "$out/vmlinuz" "$0"; then
    # Mitigations off: a CPU model of Bochs' has the weaknesses of the real one, and Linux would
    # spend time on them that it does not spend on the other machines.
    echo "console=ttyS0 quiet panic=-1 mitigations=off bench=int/" >"$out/cmdline"
    mkdir -p "$work/iso/boot/grub"
    cp "$out/vmlinuz" "$out/initrd" "$work/iso/boot/"
    cat >"$work/iso/boot/grub/grub.cfg" <<END
serial --unit=0 --speed=115200
terminal_output serial
linux /boot/vmlinuz $(cat "$out/cmdline")
initrd /boot/initrd
echo @T,kernel
boot
END
    # The modules of the BIOS alone: no EFI image, and so no need for mtools.
    grub-mkrescue --directory=/usr/lib/grub/i386-pc -o "$work/grub.iso" "$work/iso" \
        >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
    mv "$work/grub.iso" "$out/grub.iso"
fi
