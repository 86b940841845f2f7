#!/bin/sh
# Entry point of a container: the supervisor takes the place of this shell, so signals of the runtime reach it. Further
# arguments are those of worker.py. Start the container with an init (docker run --init), and give it longer to stop than
# three times SHUTDOWN_GRACE_S and 10 s: docker stop --time 90.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" worker.py --supervise "$@"
