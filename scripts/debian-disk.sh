#!/bin/bash
# debian-disk.sh OUT.img [SIZE [PACKAGES]]: makes a bootable Debian 12 disk from Debian packages.
# Partition table and GRUB in the MBR, one ext4 root with systemd, console on the serial port
# (115200), root without a password. SIZE: default 1200M. PACKAGES: more of them, with commas.
# Needs: mmdebstrap, e2fsprogs, fdisk;
# not root where user namespaces work.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 OUT.img [SIZE [PACKAGES]]" >&2; exit 2; }
PATH=$PATH:/usr/sbin:/sbin
for tool in mmdebstrap mke2fs sfdisk; do
    command -v $tool >/dev/null || { echo "$0: $tool is missing; run scripts/setup.sh" >&2; exit 1; }
done
out=$(readlink -f "$1")
[ -n "$out" ] || { echo "$0: the folder of $1 does not exist" >&2; exit 1; }
size=$(numfmt --from=iec "${2:-1200M}")
start=2048 # first sector of the root partition; GRUB's core image lies before it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

cat >"$work/customize" <<'EOF'
#!/bin/sh
# Runs with the new tree in $1: configuration, GRUB's menu and core image, then the file system.
set -eu
root=$1 work=$2 fs_kib=$3
echo sosia-guest >"$root/etc/hostname"
echo "/dev/disk/by-label/root / ext4 errors=remount-ro 0 1" >"$root/etc/fstab"
chroot "$root" passwd -d root >/dev/null
kernel=$(basename "$root"/boot/vmlinuz-*)
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<GRUB
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=1
menuentry "Debian" {
    search --no-floppy --set=root --label root
    linux /boot/$kernel root=LABEL=root ro console=ttyS0,115200 net.ifnames=0
    initrd /boot/initrd.img-${kernel#vmlinuz-}
}
GRUB
cp -r "$root/usr/lib/grub/i386-pc" "$root/boot/grub/"
cp "$root/usr/lib/grub/i386-pc/boot.img" "$work/boot.img"
chroot "$root" grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o /tmp/core.img \
    biosdisk part_msdos ext2 normal
mv "$root/tmp/core.img" "$work/core.img"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
# /proc, /sys and /dev are mounted in the tree at this moment: copy what is below them.
cp -ax "$root" "$work/tree"
/sbin/mke2fs -q -F -t ext4 -L root -d "$work/tree" "$work/root.fs" "${fs_kib}k"
rm -rf "$work/tree"
EOF
chmod 755 "$work/customize"
mkdir -m 777 "$work/parts"
fs_kib=$(((size - start * 512) / 1024))
mmdebstrap --quiet --variant=minbase \
    --include=systemd-sysv,udev,dbus,kmod,login,passwd,util-linux,procps,e2fsprogs,grub-pc-bin,grub-common,initramfs-tools,linux-image-cloud-amd64${3:+,$3} \
    --customize-hook="$work/customize \"\$1\" $work/parts $fs_kib" \
    bookworm /dev/null

# GRUB's boot sector loads the core image from sector 1 on, where its own defaults expect it.
core=$(stat -c %s "$work/parts/core.img")
[ "$core" -le $(((start - 1) * 512)) ] || { echo "GRUB's core image is too large" >&2; exit 1; }
rm -f "$out"
truncate -s "$size" "$out"
echo "$start,,L,*" | sfdisk -q "$out"
dd if="$work/parts/boot.img" of="$out" bs=440 count=1 conv=notrunc status=none
dd if="$work/parts/core.img" of="$out" bs=512 seek=1 conv=notrunc status=none
dd if="$work/parts/root.fs" of="$out" bs=1M seek=$((start * 512)) oflag=seek_bytes \
    conv=notrunc,sparse status=none
echo "$out: Debian 12, root without a password"
