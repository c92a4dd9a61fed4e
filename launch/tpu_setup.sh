#!/usr/bin/env bash
# Python, the package and jax[tpu] on all workers of a pod, in the foreground, so that what goes wrong is seen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/tpu.sh

usage="./launch/tpu_setup.sh NAME --zone=ZONE [FLAGS]

Sends the last commit of this checkout to all workers of the pod NAME and installs it there with jax[tpu]. The images of
TPU VMs have Python 3.10, which is too old: a newer one comes with uv, or with apt where that is not to be had.
With several workers gcloud wants the key in an agent:  ssh-add ~/.ssh/google_compute_engine

  --extras=hf,gguf   what is installed besides jax[tpu] (default: hf)
$WHERE"
values="zone project extras" switches="queued" leading=2
parse "$@"
named "${words[@]+"${words[@]}"}"
[ "${#words[@]}" = 1 ] || refuse "'${words[1]}' is one word too many: ./launch/tpu_setup.sh NAME [FLAGS]."
placed; kinded; installed

packed
sent "$folder/code.tar.gz"
everywhere "$(arrived "install $extras")"
