#!/bin/sh
# Makes the Python environment that the tests of the Open Inference Protocol run in: target/python.
# Quick when it is there already. PYTHON names another interpreter than python3 (3.11 or newer).
set -eu
cd "$(dirname "$0")/.."
wanted=tests/python/requirements.txt
venv="${CARGO_TARGET_DIR:-target}/python"
if cmp -s "$wanted" "$venv/installed.txt"; then
    exit 0
fi
rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$wanted"
# Last, so that an installation that was cut off is made again.
cp "$wanted" "$venv/installed.txt"
