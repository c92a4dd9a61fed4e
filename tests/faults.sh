#!/usr/bin/env bash
# Runs the faults of tests/faults.md, each in a process of its own, and judges exit code, message and what is left
# behind. The last line says how many hold; the exit code is 0 if all do.
#   tests/faults.sh           all of them: a few minutes on two cores
#   tests/faults.sh D S3      a group and one fault
# PYTHON=... chooses another Python than that of .venv.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
if ! command -v "$python" >/dev/null; then python=python3; fi
export PYTHONPATH="$root:$root/tests/faults${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -c "import sys, campaign; sys.exit(campaign.main(sys.argv[1:]))" "$@"
