# Sourced by restart.sh and local_pod.sh: runs a command as a child that hears of SIGTERM and Ctrl-C.
# shellcheck shell=bash

attended="" received="" heard=0

# attend COMMAND...: runs it, hands on what signals come, and sets code (its exit code, 128 + n where signal n ended it)
# and received (the first signal that has come to this shell, TERM or INT; "" for none). A closed terminal is TERM.
attend() {
  # Job control gives the child a process group of its own, so that Ctrl-C of a terminal reaches it once, by way of
  # this shell; and without it a shell starts what is in the background deaf to SIGINT.
  set -m
  "$@" </dev/null &
  attended=$!
  set +m
  trap 'hand_on TERM' TERM HUP
  trap 'hand_on INT' INT
  if [ -n "$received" ]; then kill -s "$received" "$attended" 2>/dev/null || true; fi
  local before=-1
  code=0
  while [ "$before" != "$heard" ]; do  # a signal ends `wait`, not the child
    before=$heard
    code=0
    wait "$attended" || code=$?
  done
  attended=""
}

hand_on() {
  heard=$((heard + 1))
  received="${received:-$1}"
  if [ -n "$attended" ]; then kill -s "$1" "$attended" 2>/dev/null || true; fi
}
