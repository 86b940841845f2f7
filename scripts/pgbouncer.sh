#!/usr/bin/env bash
# Sees to it that PgBouncer is on this machine: a slow test puts it between the Edge Functions and Postgres.
# It is the package `pgbouncer` of Debian and Ubuntu. Exit code 1, and what to do, where it cannot be installed from here.
set -euo pipefail

found() { PATH="$PATH:/usr/sbin" command -v pgbouncer; }

refuse() {
    echo "pgbouncer is missing: $1. Install the package \`pgbouncer\` as an administrator, and run this again." >&2
    exit 1
}

if ! found; then
    command -v apt-get >/dev/null || refuse "this system has no apt-get"
    administrator=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || refuse "this account may not install packages"
        administrator=(sudo -n)
    fi
    # RUNLEVEL: the package would start a pooler of its own, which nobody needs
    install=(env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends pgbouncer)
    "${administrator[@]}" "${install[@]}" ||
        { "${administrator[@]}" apt-get update --quiet && "${administrator[@]}" "${install[@]}"; } ||
        refuse "apt-get could not install it"
    found || refuse "the package did not bring it"
fi
