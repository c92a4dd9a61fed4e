#!/usr/bin/env bash
# Runs the linter and the tests; makes .venv and installs what they need first. Arguments go to pytest:
#   ./launch/test.sh                                     everything but the cases of tests/long_cases.txt
#   ./launch/test.sh --long                              everything
#   ./launch/test.sh tests/envs -k gold                  some of it
#   PYTHON=python3.11 VENV=.venv-3.11 ./launch/test.sh   with another Python, in an environment of its own
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh

SECONDS=0
make_venv
install "[test]"
say "$("$venv/bin/python" --version) and packages ready in $venv after $SECONDS s"

unset PYTHON VENV   # the scripts under test choose their own
export JAX_PLATFORMS=cpu
export SFTRL_TEST_CACHE="${SFTRL_TEST_CACHE-$venv/compiled}"   # much is compiled the second time; "": nothing
status=0
"$venv/bin/python" -m ruff check . || status=$?
# loadfile keeps the tests of one file in one process, which compiles what they share once.
"$venv/bin/python" -m pytest -n 2 --dist loadfile "$@" || status=$?
say "Done after $SECONDS s"
exit "$status"
