#!/usr/bin/env bash
# Ends a pod and what it costs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/tpu.sh

usage="./launch/tpu_delete.sh NAME --zone=ZONE [FLAGS]

Deletes the pod NAME with the disks of its machines, after asking. Whatever is on gs:// stays, but for the record of the
command in the bucket: a new pod of this name begins nothing by itself.

  --bucket=gs://...  as in tpu_create.sh; without it SFTRL_BUCKET of the environment
  --yes              without asking
$WHERE"
values="zone project bucket" switches="queued yes" leading=2
parse "$@"
named "${words[@]+"${words[@]}"}"
[ "${#words[@]}" = 1 ] || refuse "'${words[1]}' is one word too many: ./launch/tpu_delete.sh NAME [FLAGS]."
placed; kinded; bucketed
if [ "$yes" != yes ] && [ "$dry_run" != yes ]; then
  [ -t 0 ] || refuse "nobody is here to be asked whether $name may be deleted: give --yes."
  read -rp "Delete $name in $zone, with the disks of its machines? [y/N] " answer
  case "$answer" in y | Y | yes) ;; *) stop "$name stays." ;; esac
fi
if [ -n "$record" ]; then
  call gcloud storage rm --recursive "$record" || note "note: nothing is kept in $record."
fi
if [ "$kind" = tpu-vm ]; then
  call gcloud compute tpus tpu-vm delete "$name" "${where[@]}" --quiet
else
  call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
fi
