#!/usr/bin/env bash
# One command on all workers of a pod, which goes on after this terminal is closed, and after crashes and restarts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/tpu.sh
source launch/hub.sh

usage="./launch/tpu_run.sh NAME --zone=ZONE [FLAGS] sftrl VERB --config=FILE.py --workdir=gs://... [...]
./launch/tpu_run.sh NAME --zone=ZONE [FLAGS] --again      the commit and command that were sent last, after a preemption
./launch/tpu_run.sh NAME --zone=ZONE [FLAGS] --stop       SIGTERM: every worker writes its checkpoint and ends

Sends the last commit of this checkout, installs what has changed, and starts the command on every worker: by systemd,
as the unit sftrl, under restart.sh. systemd, because it outlives the login, refuses a second run on the same chips,
keeps a log, and hands a machine's shutdown on as SIGTERM, which is how a preempted one still writes its checkpoint.
tpu_logs.sh shows what happens. With several workers:  ssh-add ~/.ssh/google_compute_engine

  --bucket=gs://...  code and command are kept there too, under launch/NAME, so that a pod made anew with the same
                     bucket goes on by itself; without it SFTRL_BUCKET of the environment
  --cache=gs://...   compiled programs: JAX_COMPILATION_CACHE_DIR (default: cache in the bucket)
  --hf-secret=NAME   of Secret Manager: a token of the hub that the workers read themselves; without it HF_TOKEN of the
                     environment, else the one that \`hf auth login\` has kept, else you are asked for it
  --extras=hf,gguf   what is installed besides jax[tpu] (default: hf)
$WHERE"
values="zone project bucket cache hf-secret extras" switches="queued again stop" leading=2
parse "$@"
named "${words[@]+"${words[@]}"}"
placed; kinded; bucketed; installed
command=("${words[@]:1}")
[ "$again$stop" != yesyes ] || refuse "--again and --stop are two things to do: give one."
if [ -n "$again$stop" ]; then
  [ "${#command[@]}" = 0 ] ||
    refuse "--again and --stop take no command, but there is '$(quoted "${command[@]}")': leave one of them out."
else
  [ "${#command[@]}" -gt 0 ] || refuse "there is no command: ./launch/tpu_run.sh NAME sftrl rl --config=..."
  commanded "${command[@]}"
fi
folder="runs/launch/$name"

if [ "$stop" = yes ]; then
  if [ -n "$record" ]; then  # first, so that a machine which boots just now does not begin it again
    call gcloud storage rm "$record/job.sh" || note "note: $record has no command."
  fi
  everywhere "cd $HOME_THERE && sudo bash launch/tpu_worker.sh stop"
  exit 0
fi

if [ "$again" = yes ]; then
  [ -f "$folder/job.sh" ] && [ -f "$folder/code.tar.gz" ] ||
    stop "nothing was sent to $name from here ($folder is empty): give the command."
  command=()
  # shellcheck source=/dev/null
  source "$folder/job.sh"
  note "again: $(quoted "${command[@]}")"
  if [ -z "${secret:-}" ]; then tokened "${command[@]}"; fi
else
  if [ -z "$hf_secret" ]; then tokened "${command[@]}"; fi
  case " ${command[*]}" in *" --workdir=gs://"* | *" --workdir gs://"*) ;; *)
    note "note: without --workdir=gs://... what the run writes stays on the machines, and is lost with them." ;;
  esac
  packed
  job "${command[@]}"
fi
if [ -n "$record" ]; then
  call gcloud storage cp "$folder/code.tar.gz" "$folder/job.sh" "$record/"
fi
files=("$folder/code.tar.gz" "$folder/job.sh")
if [ -n "${token:-}" ]; then
  # In no command line, and for this user alone while it is on its way.
  files+=("$folder/hf_token")
  trap 'rm -f "$folder/hf_token"' EXIT
  if [ "$dry_run" != yes ]; then (umask 077; printf '%s' "$token" >"$folder/hf_token"); fi
fi
sent "${files[@]}"
everywhere "$(arrived start)"
if [ "$dry_run" = yes ]; then exit 0; fi
note "$name runs it. What it prints: ./launch/tpu_logs.sh $name ${where[*]}" \
  "$([ "$kind" = tpu-vm ] || printf -- '--queued ')--follow"
