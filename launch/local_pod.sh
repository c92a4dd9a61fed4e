#!/usr/bin/env bash
# Several processes of one run on this machine, as the hosts of a pod are: a real multi-controller system without one.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/words.sh
source "$here/words.sh"
# shellcheck source=launch/children.sh
source "$here/children.sh"

usage='[LOCAL_DEVICES=K] ./launch/local_pod.sh N [--restart] COMMAND...

Runs N copies of COMMAND, for example  LOCAL_DEVICES=2 ./launch/local_pod.sh 4 sftrl sft --config=F --workdir=DIR
Each finds the others by SFTRL_COORDINATOR (a free port here), SFTRL_PROCESSES=N and SFTRL_PROCESS=0, 1, ...
Lines of copy 0 begin with [0]. SIGTERM and Ctrl-C are handed on to all. It ends when all have ended, with the exit
code of the first that failed, in order of time; 0 if none did.

  LOCAL_DEVICES=K   every copy has K pretended CPU devices
  --restart         all N together are begun again, by the rule of restart.sh
  --dry-run         prints the commands, runs nothing'
values="" switches="restart" leading=2
parse "$@"
[ "${#words[@]}" -gt 1 ] || refuse "there is no command: ./launch/local_pod.sh N COMMAND..."
processes="${words[0]}" command=("${words[@]:1}")
is_count "$processes" || refuse "'$processes' is no number of processes: ./launch/local_pod.sh N COMMAND..."
if [ -n "${LOCAL_DEVICES:-}" ]; then
  is_count "$LOCAL_DEVICES" || refuse "LOCAL_DEVICES is '$LOCAL_DEVICES', but should be a number of CPU devices."
  export JAX_NUM_CPU_DEVICES="$LOCAL_DEVICES" JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
fi
if [ "$restart" = yes ] && [ "$dry_run" != yes ]; then
  exec bash "$here/restart.sh" bash "$here/local_pod.sh" "$processes" "${command[@]}"
fi

# Below the ports that systems give to outgoing connections.
free_port() {
  local port
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    port=$((20000 + RANDOM % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then printf '%s' "$port"; return; fi
  done
  stop "none of 20 ports between 20000 and 30000 is free: what listens there? See ss -tln."
}

# Lines as they come; a last one without an end is one too.
prefixed() {
  local line
  while IFS= read -r line || [ -n "$line" ]; do printf '[%s] %s\n' "$1" "$line"; done
}

SFTRL_COORDINATOR="127.0.0.1:$(free_port)"
export SFTRL_COORDINATOR SFTRL_PROCESSES="$processes"
if [ "$dry_run" = yes ]; then
  for ((i = 0; i < processes; i++)); do
    printf 'SFTRL_COORDINATOR=%s SFTRL_PROCESSES=%s SFTRL_PROCESS=%s ' "$SFTRL_COORDINATOR" "$processes" "$i"
    call "${command[@]}"
  done
  exit 0
fi

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
copies=() readers=()
for ((i = 0; i < processes; i++)); do
  mkfifo "$folder/out.$i" "$folder/err.$i"
  # A group of its own: what ends this by Ctrl-C or `timeout` leaves the readers to read to the end.
  set -m
  prefixed "$i" <"$folder/out.$i" & readers+=($!)
  prefixed "$i" <"$folder/err.$i" >&2 & readers+=($!)
  (
    trap - EXIT
    export SFTRL_PROCESS="$i"
    attend "${command[@]}" >"$folder/out.$i" 2>"$folder/err.$i"
    # The order of these lines is the order of time.
    printf '%s\n' "$code" >>"$folder/codes"
  ) & copies+=($!)
  set +m
done

tell_all() {
  for pid in "${copies[@]}"; do kill -s "$1" "$pid" 2>/dev/null || true; done
}
trap 'tell_all TERM' TERM HUP
trap 'tell_all INT' INT
for pid in "${copies[@]}" "${readers[@]}"; do
  while kill -0 "$pid" 2>/dev/null; do wait "$pid" || true; done
done
while read -r code; do
  if [ "$code" != 0 ]; then exit "$code"; fi
done <"$folder/codes"
