#!/bin/sh
# demo-guest.sh DIR - makes a small Linux guest from Debian packages, without root:
#   DIR/vmlinuz    Debian's cloud kernel, as it is
#   DIR/initrd     busybox, the modules of the virtual hardware, and the files below
#   DIR/disk.img   an empty disk that the guest formats at its first start
#   DIR/demo.yaml  the spec file
# Does nothing if they are there and newer than this script.
set -eu

out=${1:?usage: demo-guest.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
modules='virtio_pci virtio_blk virtio_scsi virtio_rng virtio_console ata_piix nvme sd_mod sr_mod
    isofs button evdev'

mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -n "$(find "$out/demo.yaml" -newer "$0" 2>/dev/null)" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() {
    echo "demo-guest.sh: $*" >&2
}

# shellcheck disable=SC2086 # a list of names on purpose
"$here/cloud-kernel.sh" "$work/kernel" $modules

root=$work/root
mkdir -p "$root/bin" "$root/etc/acpi/PWRF" "$root/lib/modules" "$root/proc" "$root/sys" "$root/dev" \
    "$root/tmp" "$root/data"
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
done
ln -s bin "$root/sbin"
ln -s bin/busybox "$root/init" # busybox init: poweroff, reboot and job control work as usual

cp "$work/kernel/modules"/* "$root/lib/modules/"

cat >"$root/etc/inittab" <<'END'
::sysinit:/etc/start
::respawn:/bin/cttyhack /bin/sh -l
::restart:/init
::shutdown:/etc/stop
END
cat >"$root/etc/start" <<'END'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
hostname sosia
dmesg -n 4
while read -r module; do
    insmod "/lib/modules/$module"
done </lib/modules/order
if [ -b /dev/vda ]; then
    mount /dev/vda /data 2>/dev/null || { mke2fs /dev/vda >/dev/null 2>&1 && mount /dev/vda /data; }
fi
acpid -l /dev/null # the power button
END
cat >"$root/etc/acpi/PWRF/00000080" <<'END'
#!/bin/sh
poweroff
END
cat >"$root/etc/stop" <<'END'
#!/bin/sh
sync
umount -r /data 2>/dev/null
END
chmod +x "$root/etc/start" "$root/etc/stop" "$root/etc/acpi/PWRF/00000080"
cat >"$root/etc/profile" <<'END'
export PATH=/bin HOME=/ TERM=${TERM:-vt100} PS1='sosia:\w# '
cat <<WELCOME

Welcome to $(uname -sr) on $(grep -c ^processor /proc/cpuinfo) virtual CPU(s), up for $(cut -d. -f1 /proc/uptime) s.
  /data is the first disk: what you leave there is there next time.
  poweroff ends the VM; Ctrl-A x pulls its plug; Ctrl-A h lists the other keys.

WELCOME
END

(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) | gzip -9 >"$out/initrd.new"
mv "$out/initrd.new" "$out/initrd"
cp "$work/kernel/vmlinuz" "$out/vmlinuz"
[ -s "$out/disk.img" ] || truncate -s 64M "$out/disk.img"
cat >"$out/demo.yaml" <<'END'
# The demo guest. Its keys are explained in sosia.yaml(5) and by `sosia spec`.
name: demo
memory: 256M
kernel: vmlinuz
initrd: initrd
cmdline: console=ttyS0
disks:
  - disk.img
END
say "made the guest in $out: kernel $(cat "$work/kernel/release")"
