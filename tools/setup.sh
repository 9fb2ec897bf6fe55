#!/usr/bin/env bash
# Sets vmoe up in a virtual environment: tools/setup.sh [folder, default .venv]. `make` calls it when needed.
#
# Four steps: what FFCV is compiled with, the environment, the pinned packages, vmoe itself. Each looks first
# whether its work is done, so a call after an interrupted one goes on from there. PYTHON=… chooses the
# interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
if command -v flock >/dev/null; then # a second call waits for the first
    exec 9<tools/setup.sh
    flock 9
fi

venv=${1:-.venv}
uv_version=0.13.9
unfinished=$venv/.unfinished # there while packages are being installed
system_log=$(mktemp)
trap 'rm -f "$system_log"' EXIT

say() { printf 'setup: %s\n' "$*"; }

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# --- 1 the interpreter and what FFCV is compiled with -----------------------------------------------------

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    name=${PYTHON:-python3}
    fail "vmoe needs Python 3.11 or newer; $name is $({ "$name" --version || echo missing; } 2>/dev/null)." \
        "Install one and name it, for example: make test PYTHON=python3.12"
}

# Prints the Debian packages that are missing. FFCV's own build asks pkg-config for opencv4, else opencv, and
# for libturbojpeg.
missing_packages() {
    local version
    command -v "${CXX:-g++}" >/dev/null || echo g++
    command -v pkg-config >/dev/null || echo pkg-config
    pkg-config --exists opencv4 2>/dev/null || pkg-config --exists opencv 2>/dev/null || echo libopencv-dev
    pkg-config --exists libturbojpeg 2>/dev/null || echo libturbojpeg0-dev
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$version-venv"
    "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
        echo "$version-dev"
}

# Sets `as_root` to the command prefix that gives root's rights; false where there is none to be had.
become_root() {
    if [ "$(id -u)" = 0 ]; then
        as_root=(env)
    elif sudo -n true 2>/dev/null; then
        as_root=(sudo -n env)
    elif [ -t 0 ] && command -v sudo >/dev/null; then
        as_root=(sudo env) # asks for the password
    else
        return 1
    fi
}

install_packages() { # package...
    if ! command -v apt-get >/dev/null || ! become_root; then
        fail "missing: $*" \
            "FFCV is compiled at installation and needs them. They are installed here when apt-get and root's" \
            "rights (or sudo without a password) are at hand. Either install them, on Debian and Ubuntu:" \
            "    sudo apt-get install --no-install-recommends $*" \
            "or, without root, in a conda environment:" \
            "    conda install -c conda-forge pkg-config opencv libjpeg-turbo compilers" \
            "and run make again."
    fi
    say "installing system packages: $*"
    local apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -y -q)
    if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; } >"$system_log" 2>&1; then
        tail -n 20 "$system_log" >&2
        fail "apt-get could not install: $*"
    fi
}

python=$(find_python)
mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}"
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] || fail "installed, and still not found for $python: ${missing[*]}"
fi

# --- 2 the environment -------------------------------------------------------------------------------------

# Half-installed packages look like installed ones; what an interrupted call left is built anew.
if [ -e "$unfinished" ]; then
    say "an earlier set-up did not finish: starting $venv anew"
    "$python" -m venv --clear "$venv"
elif ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "creating $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
new_enough "$venv/bin/python" || fail "$venv holds a Python older than 3.11: remove it (make clean) and run make again"
touch "$unfinished"

# --- 3 the pinned packages ---------------------------------------------------------------------------------

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
uv() { "$venv/bin/uv" --quiet pip install --python "$venv/bin/python" "$@"; }

say "installing the packages of requirements.lock; the first time this downloads PyTorch, which takes minutes"
if ! pip install --quiet "uv==$uv_version" || ! uv -r requirements.lock; then
    say "uv could not do it; trying again with pip, which is slower"
    pip install --quiet --use-pep517 -r requirements.lock
fi

if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then
    # Python may not keep what it compiles here, so every process would compile PyTorch again, for seconds.
    say "compiling the packages' bytecode"
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$venv/bin/python" -m compileall -q -j 0 "$site" >/dev/null || true # some packages hold templates that are no Python
fi

# --- 4 vmoe itself, and a check ----------------------------------------------------------------------------

pip install --quiet --no-deps --no-build-isolation --editable .
"$venv/bin/python" -c 'import torch, timm, ffcv, vmoe' ||
    fail "the packages are installed but cannot be imported; the lines above say why"
rm "$unfinished"
say "done"
