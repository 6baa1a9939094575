#!/bin/bash
# Build the Linux guest that the functional tests and the demo boot
#
# The kernel and busybox come out of Debian's packages, which are unpacked and
# not installed; the initramfs holds busybox, the drivers that QEMU's devices
# need, and the guest agent of this folder.  Packages are fetched once and
# kept; the rest is rebuilt when its sources change.
#
# SPDX-License-Identifier: GPL-2.0-or-later

set -euo pipefail

usage()
{
    cat <<'EOF'
Usage: tests/guest/build.sh [OPTION]...

Build the test guest: OUTPUT/vmlinuz, OUTPUT/initrd, OUTPUT/version.

  --output=DIR      where to build (default: build/guest)
  --kernel=FILE     use this bzImage instead of Debian's cloud kernel
  --modules=DIR     modules of that kernel (default: /lib/modules/<version>
                    of the name "vmlinuz-<version>")
  --busybox=FILE    use this statically linked busybox instead of Debian's
  --help            print this

CC and CFLAGS are respected.  Without --kernel and --busybox, the packages
linux-image-cloud-amd64 and busybox-static are downloaded with apt-get; no
privilege is needed, and nothing outside of OUTPUT is changed.
EOF
}

# Drivers of the devices that tests attach, and of the file system on the disk of
# the benchmark's applications; those they depend on are added.
modules="virtio_pci virtio_blk virtio_balloon virtio_mem virtio_net ext4"
here=$(cd "$(dirname "$0")" && pwd)
output=$here/../../build/guest
kernel='' module_dir='' busybox=''

for option; do
    case $option in
    --output=*) output=${option#*=} ;;
    --kernel=*) kernel=${option#*=} ;;
    --modules=*) module_dir=${option#*=} ;;
    --busybox=*) busybox=${option#*=} ;;
    --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
done

fail()
{
    echo "build.sh: $*" >&2
    exit 1
}

mkdir -p "$output"
output=$(cd "$output" && pwd)
exec 9> "$output/.lock"
flock 9

# --- Packages ---------------------------------------------------------------

# Private package lists, for when the system's are missing or out of date.
private=("-oDir::State::Lists=$output/apt/lists"
         "-oDir::Cache=$output/apt/cache")

# apt-get as root would rather download as another user, who cannot write here.
apt_quiet=(-qq -oAPT::Sandbox::User=root)

# The name of the newest cloud kernel package, behind its metapackage's name
kernel_package()
{
    apt-cache "$@" depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' |
        head -n 1
}

# Download package $1 ("kernel" for the newest one) with apt options $2...
download()
{
    local package=$1
    shift
    if [ "$package" = kernel ]; then
        package=$(kernel_package "$@")
        [ -n "$package" ] || return 1
    fi
    (cd "$output/packages" &&
        apt-get "${apt_quiet[@]}" "$@" download "$package")
}

# Unpack package $1 into OUTPUT/$2, from the system's package lists if they
# are good for it and otherwise from fresh private ones
fetch()
{
    local package=$1 root=$output/$2
    if [ -e "$root.complete" ]; then
        return
    fi
    command -v apt-get > /dev/null ||
        fail "no apt-get here; give --kernel, --modules and --busybox"
    rm -rf "$root" "$output/packages"
    mkdir -p "$root" "$output/packages"
    echo "fetching the guest's $package package"
    if ! download "$package" 2> "$output/apt.log"; then
        mkdir -p "$output/apt/lists/partial" "$output/apt/cache/archives"
        apt-get "${apt_quiet[@]}" "${private[@]}" update ||
            fail "cannot update the package lists; is the network there?"
        download "$package" "${private[@]}" ||
            fail "cannot download $package; give --$2 to use another one"
    fi
    dpkg-deb --extract "$output"/packages/*.deb "$root"
    rm -rf "$output/packages"
    touch "$root.complete"
}

if [ -z "$kernel" ]; then
    fetch kernel kernel
    kernel=$(echo "$output"/kernel/boot/vmlinuz-*)
    version=${kernel##*/vmlinuz-}
    module_dir=$output/kernel/lib/modules/$version
else
    version=${kernel##*/vmlinuz-}
    module_dir=${module_dir:-/lib/modules/$version}
fi
if [ -z "$busybox" ]; then
    fetch busybox-static busybox
    busybox=$output/busybox/bin/busybox
fi
[ -e "$kernel" ] || fail "no kernel $kernel"
[ -d "$module_dir" ] || fail "no modules in $module_dir; give --modules"

# --- Is everything up to date? ----------------------------------------------

inputs=$(cat "$here"/*.[ch] "$here/init" "$here/build.sh" "$busybox" \
    "$kernel" | sha256sum)
inputs="$inputs ${CC:-gcc} ${CFLAGS:-} $module_dir"
if [ "$(cat "$output/inputs" 2> /dev/null)" = "$inputs" ]; then
    exit 0
fi
rm -f "$output/inputs"

# --- Agent and initramfs ----------------------------------------------------

tree=$output/initramfs
rm -rf "$tree"
mkdir -p "$tree"/{bin,dev,proc,sys,tmp,modules}

# shellcheck disable=SC2086
${CC:-gcc} -std=gnu11 -O2 -Wall -Wextra -Wno-unused-parameter -Werror \
    ${CFLAGS:-} -static -pthread -o "$tree/guest-workload" "$here"/*.c -lm
cp "$busybox" "$tree/bin/busybox"
cp "$here/init" "$tree/init"
chmod 755 "$tree/init" "$tree/bin/busybox"

# Add module $1 after those that it depends on.  The packages carry no
# modules.dep, so the answer comes from the module itself.
add_module()
{
    local file dependency
    if grep -qx "$1" "$tree/modules/order"; then
        return
    fi
    file=$(find "$module_dir" -name "$1.ko" -o -name "${1//_/-}.ko")
    if [ -z "$file" ]; then
        grep -q "/\(${1//_/[-_]}\)\.ko$" "$module_dir/modules.builtin" ||
            fail "kernel $version has no driver $1"
        return
    fi
    for dependency in $(grep -az '^depends=' "$file" | tr ',\0=' '   ' |
                        cut -d ' ' -f 2-); do
        add_module "$dependency"
    done
    cp "$file" "$tree/modules/$1.ko"
    echo "$1" >> "$tree/modules/order"
}

touch "$tree/modules/order"
for module in $modules; do
    add_module "$module"
done

# Not compressed: an emulated CPU unpacks more slowly than QEMU loads.
(cd "$tree" && find . | "$busybox" cpio -o -H newc -R 0:0 2> /dev/null) \
    > "$output/initrd"
cp "$kernel" "$output/vmlinuz"
echo "$version" > "$output/version"
echo "$inputs" > "$output/inputs"
echo "guest: Linux $version, $(($(stat -c %s "$output/initrd") >> 10)) KiB" \
     "initramfs in $output"
