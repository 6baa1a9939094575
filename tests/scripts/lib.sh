# SPDX-License-Identifier: GPL-2.0-or-later
#
# Helpers of the tests of the scripts: TAP output, and a scratch copy of the
# fork over a base of a few lines, so that a whole cycle takes a second.
# Sourced, never run.

set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
chmod 755 "$scratch"
trap 'rm -rf "$scratch"' EXIT
tests=0

# pass_if NAME COMMAND...: the test passes if COMMAND succeeds.
pass_if()
{
    local name=$1
    shift
    tests=$((tests + 1))
    if "$@" >"$scratch/output" 2>&1; then
        echo "ok $tests - $name"
    else
        echo "not ok $tests - $name"
        sed 's/^/# /' "$scratch/output"
    fi
}

# refused NAME TEXT COMMAND...: the test passes if COMMAND fails and says TEXT.
refused()
{
    local name=$1 text=$2 status=0
    shift 2
    tests=$((tests + 1))
    "$@" >"$scratch/output" 2>&1 || status=$?
    if [ $status -ne 0 ] && grep -qF -- "$text" "$scratch/output"; then
        echo "ok $tests - $name"
    else
        echo "not ok $tests - $name"
        echo "# exit status $status; expected a failure that says: $text"
        sed 's/^/# /' "$scratch/output"
    fi
}

# says TEXT COMMAND...: whether COMMAND succeeds and says TEXT.
says()
{
    local text=$1
    shift
    "$@" >"$scratch/said" 2>&1 || { cat "$scratch/said"; return 1; }
    grep -qF -- "$text" "$scratch/said" || { cat "$scratch/said"; return 1; }
}

finish()
{
    echo "1..$tests"
}

git()
{
    command git -c user.name=tester -c user.email=tester@localhost \
        -c init.defaultBranch=main "$@"
}

# A base of a few files, with QEMU's names where the scripts look at them.
make_base()
{
    local dir=$1 number
    mkdir -p "$dir/hw" "$dir/scripts"
    echo 7.2.99 >"$dir/VERSION"
    for number in $(seq 300); do
        echo "int line_$number;"
    done >"$dir/hw/device.c"
    echo "project('base')" >"$dir/meson.build"
    cat >"$dir/configure" <<'EOF'
#!/bin/sh
printf '%s\n' "$@" >arguments
touch build.ninja
EOF
    chmod +x "$dir/configure"
}

# make_patch NAME FILE SED-COMMAND: a patch for FILE of the base.
make_patch()
{
    local name=$1 file=$2 command=$3 work=$scratch/patch-work
    rm -rf "$work"
    cp -a "$scratch/base" "$work"
    git -C "$work" init -q
    git -C "$work" add -A
    git -C "$work" commit -qm base
    sed -i "$command" "$work/$file"
    git -C "$work" add -A
    git -C "$work" commit -qm "$name: a hook

Reason: missing extension point"
    git -C "$work" format-patch -q --stdout -1 --zero-commit --no-signature \
        --full-index --no-stat --keep-subject -N >"$fork/patches/$name.patch"
    echo "$name.patch" >>"$fork/patches/series"
}

# A fork with one file and one patch. Its scripts are the real ones.
make_fork()
{
    fork=$scratch/fork
    build=$fork/build
    make_base "$scratch/base"
    mkdir -p "$fork/patches" "$fork/hw"
    cp -a "$top/configure" "$top/scripts" "$top/.gitignore" "$fork"
    : >"$fork/patches/series"
    cat >"$fork/hw/added.c" <<'EOF'
/* SPDX-License-Identifier: GPL-2.0-or-later */
int added;
EOF
    echo "# SPDX-License-Identifier: GPL-2.0-or-later" >"$fork/meson.build"
    printf 'F: %s\n' .gitignore configure hw/ MAINTAINERS meson.build \
        patches/ scripts/ >"$fork/MAINTAINERS"
    make_patch hook hw/device.c 's/line_20;/line_20, hooked;/'
    git -C "$fork" init -q
    git -C "$fork" add -A
    git -C "$fork" commit -qm fork
}

fetch_base()
{
    "$fork/scripts/fetch-base" "$build" "$scratch/base"
}

materialise()
{
    "$fork/scripts/materialise" --build-dir="$build" "$@"
}

refresh()
{
    "$fork/scripts/refresh" --build-dir="$build"
}

check_fork()
{
    "$fork/scripts/check-fork" --build-dir="$build"
}

# Whether the repository is as it was committed.
repository_unchanged()
{
    [ -z "$(git -C "$fork" status --porcelain | tee /dev/stderr)" ]
}
