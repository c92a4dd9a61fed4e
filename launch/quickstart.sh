#!/usr/bin/env bash
# From a fresh checkout to the study's table and report on a CPU, in a few minutes. Called again, it goes on.
# Arguments go to the study, for example: ./launch/quickstart.sh --config.study.jobs=1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh

SECONDS=0
say "1/3 Python"
make_venv
echo "$("$venv/bin/python" --version) in $venv after $SECONDS s"

say "2/3 Packages (JAX and the like; about a minute the first time)"
install ""
echo "installed after $SECONDS s"

say "3/3 The study: SFT and PPO from the same start, under actions seen and unseen"
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
started=$SECONDS
"$venv/bin/python" -m sftrl_jax study --config=configs/study/virl_cpu.py:quick --workdir=runs/quickstart "$@"
echo "study after $((SECONDS - started)) s, all of it after $SECONDS s"

report="$PWD/runs/quickstart/report/report.html"
echo "Report: $report"
if [ -z "${CI:-}" ]; then
  if [ "$(uname)" = Darwin ]; then
    open "$report" || true
  elif [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && command -v xdg-open >/dev/null; then
    xdg-open "$report" >/dev/null 2>&1 || true
  fi
fi
