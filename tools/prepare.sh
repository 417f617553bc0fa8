# Sourced by the scripts beside it: finds a Python, installs what the system lacks, makes virtual environments.
# shellcheck shell=sh

say() { printf '\n==> %s\n' "$*"; }

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND...: run it as root, or say what to run.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        fail "this needs root; run: $*"
    fi
}

# is_missing COMMAND: true if no such command is on the PATH.
is_missing() { ! command -v "$1" >/dev/null 2>&1; }

# find_python: print a Python of at least 3.11: $PYTHON if set, else the newest of the usual names.
find_python() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# install_system NEEDED...: install, with apt, the packages that bring the commands named and what Python lacks.
install_system() {
    packages=""
    interpreter=$(find_python) || { packages="python3 python3-venv python3-dev"; interpreter=""; }
    if [ -n "$interpreter" ]; then
        "$interpreter" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages $(python_package)-venv"
        "$interpreter" - <<'HEADERS' || packages="$packages $(python_package)-dev"
import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())
HEADERS
    fi
    is_missing cc && packages="$packages gcc libc6-dev"
    for needed in "$@"; do
        is_missing "$needed" && packages="$packages $needed"
    done
    [ -z "$packages" ] && return
    is_missing apt-get && fail "please install with your system's package manager:$packages"
    say "installing$packages"
    as_root apt-get update
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
}

# python_package: the name of Debian's package of the interpreter found.
python_package() { "$interpreter" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'; }

# make_venv FOLDER: a virtual environment there, unless it is there already.
make_venv() {
    [ -x "$1/bin/python" ] && return
    say "creating $1"
    "$(find_python)" -m venv "$1"
}
