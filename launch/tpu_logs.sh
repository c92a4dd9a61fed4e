#!/usr/bin/env bash
# What the workers of a pod print.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/tpu.sh

usage="./launch/tpu_logs.sh NAME --zone=ZONE [FLAGS]

Prints the last lines of every worker of the pod NAME, each with the worker's host name before it.

  --follow           goes on with new ones until Ctrl-C, which ends this and not the run
  --lines=50         of every worker
  --worker=0         of these workers alone: 0, or 1,3, or 2-5 (default: all)
  --out=DIR          writes DIR/0.log, DIR/1.log, ... instead
$WHERE"
values="zone project lines worker out" switches="queued follow" leading=2
lines=50
parse "$@"
named "${words[@]+"${words[@]}"}"
[ "${#words[@]}" = 1 ] || refuse "'${words[1]}' is one word too many: ./launch/tpu_logs.sh NAME [FLAGS]."
placed; kinded
is_count "$lines" || refuse "--lines is '$lines', but should be a whole number above 0."
[ "$follow" != yes ] || [ -z "$out" ] || refuse "--follow never ends, so --out would hold no whole file: give one."
if [ -n "$worker" ]; then
  matches "$worker" 'all|[0-9]+([,-][0-9]+)*' || refuse "--worker is '$worker', but should be 0, or 1,3, or 2-5."
  all[0]="--worker=$worker"
fi
if [ -n "$out" ]; then
  call mkdir -p "$out"
  all+=(--output-directory="$out")
fi
tail=(tail -n "$lines")
[ "$follow" != yes ] || tail+=(-F)
everywhere "sudo $(quoted "${tail[@]}" "$HOME_THERE/log.txt")"' | sed -u "s/^/[$HOSTNAME] /"'
