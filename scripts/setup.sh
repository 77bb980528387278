#!/bin/sh
# setup.sh [bench] - installs the Debian 12 packages that are missing for the build, the tests and
# the demo guest; with `bench` those for the benchmarks, too. Does nothing, and asks for nothing,
# where all of them are there.
set -eu

packages='
binutils        objects
gcc             compiler
libc6-dev       headers
make            entry
meson           build
ninja-build     build
pkg-config      build
acpica-tools    ACPI
libexpat1-dev   XML
libjansson-dev  JSON
libiscsi-dev    disks
libnbd-dev      disks
libseccomp-dev  sandbox
libuv1-dev      events
liburing-dev    disks
libyaml-dev     spec
libzstd-dev     compression
libzydis-dev    decoder
zlib1g-dev      compression
seabios         firmware
clang-format    style
clang           fuzzers
libclang-rt-14-dev fuzzers
libcmocka-dev   tests
mandoc          manuals
python3         tests
busybox-static  guest
cpio            initrd
gzip            initrd
kmod            modules
xz-utils        modules
e2fsprogs       disk
fdisk           disk
mmdebstrap      disk
genisoimage     CD-ROM
qemu-utils      images
'

bench_packages='
bochs             rival
bochs-term        display
bochsbios         firmware
vgabios           firmware
grub-common       CD-ROM
grub-pc-bin       CD-ROM
xorriso           CD-ROM
qemu-system-x86   rival
zstd              data
'
case ${1-} in
bench) packages=$packages$bench_packages ;;
'') ;;
*)
    echo "usage: setup.sh [bench]" >&2
    exit 2
    ;;
esac

missing=
for p in $(echo "$packages" | awk 'NF { print $1 }'); do
    # pkg-config is a virtual package on newer systems: its program is what matters.
    [ "$p" = pkg-config ] && command -v pkg-config >/dev/null && continue
    dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed ||
        missing="$missing $p"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "setup.sh: as root, please: apt-get install$missing" >&2
        exit 1
    }
    as_root=sudo
fi
echo "setup.sh: installing$missing" >&2
install() {
    # shellcheck disable=SC2086 # a list of words on purpose
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
}
# The package lists of a fresh or an old machine do not name what the archive holds today.
install 2>/dev/null || {
    $as_root apt-get update -qq
    install
}
