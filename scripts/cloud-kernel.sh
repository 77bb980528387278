#!/bin/sh
# cloud-kernel.sh DIR MODULE... - Debian's cloud kernel, without root:
#   DIR/vmlinuz          as it is
#   DIR/release          its release, as uname -r says it
#   DIR/modules/*.ko     the modules and what they need
#   DIR/modules/order    their file names, what a module needs before it
set -eu

out=${1:?usage: cloud-kernel.sh DIR MODULE...}
shift
PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$out/modules"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() {
    echo "cloud-kernel.sh: $*" >&2
}

# The package that the cloud kernel's name stands for today.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        awk '/Depends: linux-image-[0-9]/ { print $2; exit }'
}

download() {
    package=$(kernel_package)
    [ -n "$package" ] || return 1
    say "downloading $package"
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "$package")
}

update_lists() {
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq
    else
        sudo apt-get update -qq
    fi
}

download || { update_lists && download; } || {
    say "cannot download Debian's kernel: is there a network?"
    exit 1
}
dpkg -x "$work"/linux-image-*.deb "$work/kernel"
release=$(ls "$work/kernel/lib/modules")
depmod -b "$work/kernel" "$release"

for module; do
    modprobe -d "$work/kernel" -S "$release" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/modules"
while read -r path; do
    name=$(basename "$path" .xz)
    case $path in
    *.xz) xz -dc "$path" >"$out/modules/$name" ;;
    *) cp "$path" "$out/modules/$name" ;;
    esac
    echo "$name" >>"$work/order"
done <"$work/modules"
mv "$work/order" "$out/modules/order"
echo "$release" >"$out/release"
cp "$work/kernel/boot/vmlinuz-$release" "$out/vmlinuz"
