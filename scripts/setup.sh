#!/usr/bin/env bash
# Installs what a build (`setup.sh build`) or the tests (`setup.sh test`) need and this machine lacks: Debian
# packages through apt-get where we may, else it says exactly which are missing. Nothing is done twice.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}

missing=()
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
need_header() { # need_header FILE PACKAGE; multiarch directories included
    compgen -G "/usr/include/$1" >/dev/null || compgen -G "/usr/include/*/$1" >/dev/null || missing+=("$2")
}

need gcc gcc
need g++ g++
need make make
need pkg-config pkg-config
need perl perl
need_header openssl/ssl.h libssl-dev
need_header zlib.h zlib1g-dev
if [ "$what" = test ]; then
    need python3 python3
    need faketime faketime
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    if [ "${ORLOJ_TEST_KAFKA:-on}" != off ]; then
        need java default-jre-headless
        need mvn maven
    fi
fi

if [ ${#missing[@]} -gt 0 ]; then
    packages=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "setup: missing: $packages(Debian names); install them with this system's package manager" >&2
        exit 1
    fi
    sudo=()
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
            sudo=(sudo -n)
        else
            echo "setup: missing packages. Run this, then try again:" >&2
            echo "  sudo apt-get install -y $packages" >&2
            exit 1
        fi
    fi
    echo "setup: installing $packages" >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: no Rust toolchain (cargo). Install Rust 1.89 or newer, for example with rustup, then try again." >&2
    exit 1
fi

if [ "$what" = test ]; then
    if [ "${ORLOJ_TEST_KAFKA:-on}" != off ]; then
        tests/kafka/fetch.sh
    fi
    if ! cmp -s tests/golden/requirements.txt .venv/installed.txt; then
        python3 -m venv .venv
        .venv/bin/python -m pip install --quiet -r tests/golden/requirements.txt
        cp tests/golden/requirements.txt .venv/installed.txt
    fi
fi
