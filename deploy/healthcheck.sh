#!/bin/sh
# Whether the database had a heartbeat of this container's worker within the last minute. Exit code 1: no.
set -eu
if [ -n "${ENVIRONMENT_FILE:-}" ]; then
    # shellcheck disable=SC1090
    . "$ENVIRONMENT_FILE"
fi
headless-wan2gp-debug workers --json | python3 -c '
import json, os, socket, sys
name = os.environ.get("WORKER_ID") or socket.gethostname()
ours = [each for each in json.load(sys.stdin) if each["id"].rpartition("-")[0] == name]  # the name, and a mark of the start
sys.exit(not any(each["health"] == "healthy" for each in ours))
'
