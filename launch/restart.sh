#!/usr/bin/env bash
# Runs a command, and begins it again after exit code 75 (stopped by SIGTERM) and after crashes, never after 0, 1, 2.
set -euo pipefail
# shellcheck source=launch/words.sh
source "$(dirname "${BASH_SOURCE[0]}")/words.sh"
# shellcheck source=launch/children.sh
source "$(dirname "${BASH_SOURCE[0]}")/children.sh"

usage='./launch/restart.sh [--delay=5] [--longest=60] [--healthy=600] [--most=50] COMMAND...

Runs COMMAND until it is done:
  exit code 0             complete: ends with 0
  1, 2, 130               a wrong config, wrong words, Ctrl-C: ends with that code, since the same would happen again
  75 and any other code   stopped by SIGTERM, or a crash (134 of the coordination service, 137 of kill -9, ...): begun
                          again, which goes on from the last checkpoint
SIGTERM and Ctrl-C are handed on to COMMAND, and end this too, with the code of COMMAND.

  --delay=5       seconds before it is begun again; twice as many after each short life
  --longest=60    seconds at most: hosts of a pod wait for one another for 300 s, so none may be much later
  --healthy=600   seconds after which a life counts as long: the delay is the first one again
  --most=50       short lives in a row before this gives up, with the last code
  --dry-run       prints the command, runs nothing'
values="delay longest healthy most" switches="" leading=1
delay=5 longest=60 healthy=600 most=50
parse "$@"
[ "${#words[@]}" -gt 0 ] || refuse "there is no command: ./launch/restart.sh COMMAND..."
for flag in delay longest healthy most; do
  matches "${!flag}" '0|[1-9][0-9]{0,8}' || refuse "--$flag is '${!flag}', but should be a whole number, for example 5."
done
if [ "$dry_run" = yes ]; then call "${words[@]}"; exit 0; fi

code=0 short=0 pause=$delay
while :; do
  began=$SECONDS
  attend "${words[@]}"
  lived=$((SECONDS - began))
  if [ -n "$received" ]; then exit "$code"; fi
  case "$code" in 0 | 1 | 2 | 130) exit "$code" ;; esac
  if [ "$lived" -ge "$healthy" ] && [ "$healthy" -gt 0 ]; then short=0 pause=$delay; fi
  short=$((short + 1))
  if [ "$short" -gt "$most" ]; then
    note "restart.sh: exit code $code after $lived s, for the $short. time in a row: given up."
    exit "$code"
  fi
  note "restart.sh: exit code $code after $lived s; begun again in $pause s ($short of $most short lives in a row)."
  attend sleep "$pause"
  case "$received" in TERM) exit 75 ;; INT) exit 130 ;; esac
  pause=$((pause * 2 > longest ? longest : pause * 2))
done
