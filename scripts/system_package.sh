#!/usr/bin/env bash
# Sees to it that a program is on this machine that no wheel brings, and prints where it is:
#     scripts/system_package.sh pgbouncer    # a slow test puts it between the Edge Functions and Postgres
#     scripts/system_package.sh chromium     # the browser tests of the page drive it
# The package of Debian and Ubuntu is called like the program. Exit code 1, and what to do, where it cannot be installed
# from here.
set -euo pipefail
program=$1

found() { PATH="$PATH:/usr/sbin" command -v "$program"; }

refuse() {
    echo "$program is missing: $1. Install the package \`$program\` as an administrator, and run this again." >&2
    exit 1
}

if ! found; then
    command -v apt-get >/dev/null || refuse "this system has no apt-get"
    administrator=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || refuse "this account may not install packages"
        administrator=(sudo -n)
    fi
    # RUNLEVEL: a package would start a server of its own, which nobody needs
    install=(env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "$program")
    "${administrator[@]}" "${install[@]}" ||
        { "${administrator[@]}" apt-get update --quiet && "${administrator[@]}" "${install[@]}"; } ||
        refuse "apt-get could not install it"
    found || refuse "the package did not bring it"
fi
