#!/bin/sh
# Installs what the tests need beside cargo: a C toolchain to link with, a Vulkan device in software for the tests of GPU
# shares, and a Python environment in target/python with the client that checks our inference protocol. Does nothing when all is there; needs the network the first time.
set -eu
cd "$(dirname "$0")/.."
venv="${CARGO_TARGET_DIR:-target}/python"
wanted=tests/python/requirements.txt

missing=
command -v cargo >/dev/null 2>&1 || { echo "cargo is missing: https://rustup.rs" >&2; exit 1; }
command -v cc >/dev/null 2>&1 || missing="$missing build-essential"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3 python3-venv"
# Any Vulkan driver will do. Without one those tests say that they did not run.
vulkan=
set -- /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json
for driver in "$@"; do
    [ -e "$driver" ] && vulkan=$driver
done
{ [ -n "$vulkan" ] && ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; } || vulkan=
if [ -z "$vulkan" ] && [ "$(uname)" = Linux ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        missing="$missing mesa-vulkan-drivers libvulkan1"
    else
        echo "no Vulkan device: the tests of GPU shares on a device will not run (mesa-vulkan-drivers has one)" >&2
    fi
fi
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -q
        # shellcheck disable=SC2086 # a list of names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    else
        echo "please install:$missing" >&2
        exit 1
    fi
fi

if ! cmp -s "$wanted" "$venv/installed.txt"; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$wanted"
    # Last, so that an installation that was cut off is made again.
    cp "$wanted" "$venv/installed.txt"
fi
