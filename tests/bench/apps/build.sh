#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Build the disk with the applications that the benchmark runs in its guest:
# Debian's packages, unpacked and not installed, and the scripts of this folder.

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
output=${1:?usage: build.sh OUTPUT, a folder; makes OUTPUT/apps.img}
packages="redis-server sqlite3 gcc libc6-dev coreutils dash"

inputs=$(cat "$here"/* | sha256sum)
if [ "$(cat "$output/inputs" 2>/dev/null)" = "$inputs" ]; then
    exit 0
fi
rm -rf "$output"
mkdir -p "$output"/{archives/partial,root}
touch "$output/status"
echo "fetching the applications' packages"
# shellcheck disable=SC2086
apt-get -qq -y -oAPT::Sandbox::User=root -oDebug::NoLocking=1 \
    -oDir::State::status="$output/status" \
    -oDir::Cache::archives="$output/archives/" \
    --no-install-recommends --download-only install $packages >"$output/log"
root=$output/root
for package in "$output"/archives/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
rm -rf "$root"/usr/share/{doc,man,locale,info} "$output/archives"
mkdir -p "$root"/{dev,proc,tmp,mm}
cp "$here"/*.sh "$root/mm"
chmod 755 "$root"/mm/*.sh
awk -v n=2000 -f "$here/big.awk" >"$root/mm/big.c"
size=$(du -sm "$root" | cut -f1)
truncate -s $((size * 5 / 4 + 64))M "$output/apps.img"
mke2fs -q -t ext4 -O '^has_journal' -d "$root" "$output/apps.img"
rm -rf "$root"
echo "$inputs" >"$output/inputs"
