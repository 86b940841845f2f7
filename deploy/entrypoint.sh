#!/bin/sh
# Entry point of a container: the supervisor takes the place of this shell, so signals of the runtime reach it. Further
# arguments are those of worker.py. Start the container with an init (docker run --init), and give it longer to stop than
# three times SHUTDOWN_GRACE_S and 10 s: docker stop --time 90.
# ENVIRONMENT_FILE: lines of a shell that are read first, such as those that the local stack writes.
set -eu
if [ -n "${ENVIRONMENT_FILE:-}" ]; then
    # shellcheck disable=SC1090
    . "$ENVIRONMENT_FILE"
fi
top=$(dirname "$0")/..
if [ ! -f "$top/worker.py" ]; then # installed as a package
    exec headless-wan2gp-worker --supervise "$@"
fi
cd "$top"
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" worker.py --supervise "$@"
