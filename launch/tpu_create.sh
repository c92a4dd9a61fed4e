#!/usr/bin/env bash
# A TPU pod, as TPU VMs or as a queued resource, which goes on by itself when it was preempted or restarted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/tpu.sh
source launch/hub.sh

usage="./launch/tpu_create.sh NAME --type=TYPE --zone=ZONE [FLAGS] [sftrl VERB --config=FILE.py ...]

Makes the pod NAME and waits until it is there. With the command that it is for, a mistake in its config, and a token of
the Hugging Face hub that is missing, are shown before anything is paid for; and with --bucket as well, the pod begins
the command by itself once it is there, so that nobody has to wait for a queue. Without it: tpu_setup.sh, tpu_run.sh.

  --type=TYPE        v4-N, v5e-N (v5litepod-N), v5p-N or v6e-N
  --runtime=VERSION  the image; without it that of the generation (tpu-ubuntu2204-base, v2-alpha-tpuv5-lite,
                     v2-alpha-tpuv5, v2-alpha-tpuv6e)
  --spot             cheaper, and may be taken away; without it on demand
  --reserved         of a reservation
  --slices=N         several slices, joined by the data centre's network (only with --queued)
  --valid-for=6h     how long a queued request waits for machines (only with --queued)
  --bucket=gs://...  where code and command are kept for a machine that is made anew, under launch/NAME; without it
                     SFTRL_BUCKET of the environment. The machine's service account must be able to read it
  --cache=gs://...   compiled programs (default: cache in the bucket)
  --hf-secret=NAME   of Secret Manager: a token of the hub that the machine reads itself
  --extras=hf,gguf   what is installed besides jax[tpu] (default: hf)
  --gcloud=FLAGS     further flags for gcloud's create, for example --gcloud='--network=n --subnetwork=s'
  --replace          deletes the pod NAME first: what to do when it was preempted
  --keep             stays, looks, and makes the pod again whenever it is preempted (needs --bucket);
                     ends when the pod was deleted
  --no-wait          returns when the request is placed
  --poll=30          seconds between two looks (default: 30 while waiting, 60 for --keep)
$WHERE"
values="type runtime zone project slices valid-for bucket cache hf-secret extras gcloud poll"
switches="spot reserved queued replace keep no-wait" leading=2
parse "$@"
named "${words[@]+"${words[@]}"}"
placed; kinded; typed; bucketed; installed
command=(${words[@]+"${words[@]:1}"})
if [ "${#command[@]}" -gt 0 ]; then commanded "${command[@]}"; fi
[ "$spot$reserved" != yesyes ] || refuse "--spot and --reserved are two kinds of machines: give one."
[ -z "$keep" ] || [ -n "$record" ] || refuse "--keep needs --bucket=gs://..., where a new machine finds its command."
for flag in slices poll; do
  [ -z "${!flag}" ] || is_count "${!flag}" || refuse "--$flag is '${!flag}', but should be a whole number above 0."
done
if [ "$kind" = tpu-vm ]; then
  for flag in slices valid_for; do
    [ -z "${!flag}" ] || refuse "--${flag//_/-} is for queued resources: give --queued too."
  done
fi
if [ "${#command[@]}" -gt 0 ]; then
  if [ -z "$hf_secret" ]; then tokened "${command[@]}"; fi
  if [ -n "$record" ] && [ -n "${token:-}" ]; then
    note "note: a pod that begins by itself has no token yet; this one waits for tpu_run.sh, which brings it. With" \
      "--hf-secret=NAME it reads the token itself (gcloud secrets create NAME --data-file=-)."
    waits_for_token=yes
  fi
fi

flags=("${where[@]}" --accelerator-type="$accelerator")
if [ "$kind" = tpu-vm ]; then flags+=(--version="$version"); else
  flags+=(--runtime-version="$version")
  # A single node has the name of its queued resource, so that `gcloud ... tpu-vm` finds it by NAME as well.
  if [ "${slices:-1}" = 1 ]; then flags+=(--node-id="$name"); else
    flags+=(--node-count="$slices" --node-prefix="$name")
  fi
  [ -z "$valid_for" ] || flags+=(--valid-until-duration="$valid_for")
fi
[ -z "$spot" ] || flags+=(--spot)
[ -z "$reserved" ] || flags+=(--reserved)
# Checkpoints, compiled programs and the record are in a bucket.
flags+=(--scopes=https://www.googleapis.com/auth/cloud-platform)
[ -z "$record" ] || flags+=(--metadata=sftrl-record="$record")
flags+=(--metadata-from-file=startup-script=launch/tpu_startup.sh)
# shellcheck disable=SC2206  # several flags in one text
flags+=($gcloud)

make() { call gcloud compute tpus "$kind" create "$name" "${flags[@]}"; }
unmake() {
  if [ "$kind" = tpu-vm ]; then call gcloud compute tpus tpu-vm delete "$name" "${where[@]}" --quiet; else
    call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
  fi
}
state() {
  local key=state
  [ "$kind" = tpu-vm ] || key=state.state
  gcloud compute tpus "$kind" describe "$name" "${where[@]}" --format="value($key)"
}

# await: until the pod is there. A TPU VM is there when `create` returns; a queued one may come hours later.
await() {
  local now="" before=""
  while [ "$kind" = queued-resources ]; do
    now="$(state)" || stop "gcloud does not say how $name is, see above."
    [ "$now" = "$before" ] || note "$name is $now."
    before="$now"
    case "$now" in
      ACTIVE) break ;;
      FAILED | SUSPENDING | SUSPENDED)
        stop "$name is $now, so no machine comes of it: the same command with --replace asks again." ;;
    esac
    sleep "${poll:-30}"
  done
}

# watch: makes the pod again whenever it was taken away. It ends when three questions in a row find no pod.
watch() {
  local now="" lost=0
  while [ "$lost" -lt 3 ]; do
    sleep "${poll:-60}"
    if now="$(state)"; then lost=0; else lost=$((lost + 1)); continue; fi
    case "$now" in
      SUSPENDED | FAILED | PREEMPTED | TERMINATED)
        note "$name is $now: made again."
        unmake || note "note: $name could not be deleted; the next look tries again."
        make || note "note: $name could not be made; the next look tries again." ;;
    esac
  done
  note "$name is gone: nothing is kept any more."
}

if [ "${#command[@]}" -gt 0 ] && [ -n "$record" ] && [ -z "${waits_for_token:-}" ]; then
  packed
  job "${command[@]}"
  call gcloud storage cp "$folder/code.tar.gz" "$folder/job.sh" "$record/"
fi
if [ "$replace" = yes ]; then unmake || note "note: there was no $name to delete, or it would not go, see above."; fi
make
if [ "$dry_run" = yes ] || [ "$no_wait" = yes ]; then exit 0; fi
await
note "$name is there. ./launch/tpu_delete.sh $name ${where[*]}$([ "$kind" = tpu-vm ] || printf ' --queued') ends it" \
  "and what it costs."
if [ "$keep" = yes ]; then watch; fi
