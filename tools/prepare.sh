# Sourced by the scripts beside it: finds a Python, installs what the system lacks, makes virtual environments.
# shellcheck shell=sh

say() { printf '\n==> %s\n' "$*"; }

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND...: run it as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# is_missing COMMAND...: true if none of these commands is installed. Debian keeps servers where only root looks.
is_missing() {
    for command in "$@"; do
        PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$command" >/dev/null 2>&1 && return 1
    done
    return 0
}

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
# NEEDED is a command that is called like its package, or several that do the same, the package's first: `a|b`.
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
        # shellcheck disable=SC2046
        is_missing $(printf '%s' "$needed" | tr '|' ' ') && packages="$packages ${needed%%|*}"
    done
    [ -z "$packages" ] && return
    is_missing apt-get && fail "please install with your system's package manager:$packages${otherwise:-}"
    if [ "$(id -u)" != 0 ] && is_missing sudo; then
        commands="apt-get update && apt-get install --no-install-recommends$packages"
        fail "this needs root; run as root: $commands${otherwise:-}"
    fi
    say "installing$packages"
    as_root apt-get update
    keep_stopped
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages || installed=$?
    let_start
    [ "${installed:-0}" = 0 ] || fail "apt-get could not install:$packages"
}

# keep_stopped, let_start: between the two, packages do not start the servers that they bring (invoke-rc.d(8)); what
# is wanted of nginx is the program. A policy that the machine has already is left as it is.
policy=/usr/sbin/policy-rc.d
keep_stopped() {
    [ -e $policy ] && return
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    our_policy=yes
    trap let_start EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
let_start() {
    [ -n "${our_policy:-}" ] || return 0
    as_root rm -f $policy
    our_policy=
    trap - EXIT INT TERM
}

# python_package: the name of Debian's package of the interpreter found.
python_package() { "$interpreter" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'; }

# make_venv FOLDER: a virtual environment there, unless it is there already.
make_venv() {
    [ -x "$1/bin/python" ] && return
    say "creating $1"
    "$(find_python)" -m venv "$1"
}
