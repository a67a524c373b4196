#!/bin/sh
# Sets up .venv with everything that requirements.lock names, once; says what is missing and how to get it. Called by the Makefile.
set -eu
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }

command -v make >/dev/null 2>&1 || say "make is not installed. Debian/Ubuntu: apt install make; Fedora: dnf install make; macOS: xcode-select --install
(without it, run the commands of the Makefile by hand)"

python=''
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "dcsup needs Python 3.11 or newer. Debian/Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3; macOS: brew install python
If it is installed under another name: PYTHON=/path/to/python make ..."
    exit 2
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    say "This Python ($python) has no venv module. Debian/Ubuntu: apt install python3-venv; elsewhere install the full Python"
    exit 2
fi

wanted=$("$python" -c 'import hashlib, pathlib, sys
files = [pathlib.Path(name).read_bytes() for name in ("requirements.lock", "pyproject.toml")]
print(hashlib.sha256(b"".join(files)).hexdigest(), sys.version_info[:2], pathlib.Path.cwd())')
if [ -f .venv/dcsup-stamp ] && [ "$(cat .venv/dcsup-stamp)" = "$wanted" ] && .venv/bin/python -c 'import statemachines' 2>/dev/null; then
    exit 0
fi
say "setting up .venv (once) ..."
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
printf '%s\n' "$wanted" >.venv/dcsup-stamp
