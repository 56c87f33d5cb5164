#!/usr/bin/env bash
# Make .venv from requirements.lock, for the Makefile: `deploy/environment.sh .venv`.
# PYTHON names the interpreter; otherwise the first one that will do is taken.
set -euo pipefail
venv=$1

refuse() {
    echo "make: $1" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

system=$(uname -sm)
[ "$system" = "Linux x86_64" ] ||
    refuse "this is $system; the embedded servers are built for x86-64 Linux only: use such a machine"

if [ -n "${PYTHON:-}" ]; then
    new_enough "$PYTHON" || refuse "PYTHON=$PYTHON is not Python 3.11 or newer: name one that is"
    python=$PYTHON
else
    python=
    for candidate in python3.11 python3.12 python3.13 python3 python; do
        if new_enough "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] ||
        refuse "no Python 3.11 or newer found: install one (Debian, Ubuntu: sudo apt install python3 python3-venv) or name it (make PYTHON=/path/to/python3.11 ...)"
fi
"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    refuse "$python has no venv module: install it (Debian, Ubuntu: sudo apt install python3-venv)"

version=$("$python" --version)
echo "Making the environment in $venv with $version (once; a minute or so)."
# One that was broken, or made with another Python, is made anew.
if [ "$("$venv/bin/python" --version 2>/dev/null)" != "$version" ] ||
    ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv"
fi

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" 2>"$venv/install.err"
}
# pip's own account is several lines for each package; this is one line that counts them.
counted='
    /^(Collecting|Processing|Requirement already satisfied)/ {
        seen++
        if (tty) show(sprintf("  %d of %d packages", seen, all))
        else if (seen % 20 == 0 || seen == all) show(sprintf("  %d of %d packages", seen, all))
    }
    /^Installing collected/ { show("  unpacking them") }
    END { if (tty) printf "\n" }
    function show(line) { printf(tty ? "\r%-40s" : "%s\n", line); fflush() }'
# Those for another system are in the lock as well.
packages=$(grep '^[a-zA-Z0-9].*==' requirements.lock | grep -vc "win32\|python_full_version < '3.11.3'")
if [ -t 1 ]; then tty=1; else tty=0; fi
pip install --progress-bar off --no-deps --require-hashes --only-binary :all: -r requirements.lock |
    tee "$venv/install.log" | awk -v all="$packages" -v tty="$tty" "$counted" || {
    tail -n 20 "$venv/install.err" >&2
    refuse "the packages of requirements.lock could not be installed (above, and $venv/install.log)"
}
# Built with the setuptools of the lock, so nothing is fetched that has no hash.
pip install --quiet --no-deps --no-build-isolation --editable . || {
    tail -n 20 "$venv/install.err" >&2
    refuse "the project itself could not be installed into $venv (above)"
}
echo "The environment is ready."
