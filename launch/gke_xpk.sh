#!/usr/bin/env bash
# The same through xpk: a run as a workload of a GKE cluster with TPUs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/tpu.sh
source launch/hub.sh

usage="./launch/gke_xpk.sh NAME --cluster=CLUSTER --type=TYPE --zone=ZONE [FLAGS] sftrl VERB ... --workdir=gs://...
./launch/gke_xpk.sh NAME --cluster=CLUSTER --zone=ZONE --delete       the workload, not the cluster

Runs the command on every host, under restart.sh in its container; GKE makes a host that was taken away anew, and the
run goes on from its checkpoint. xpk comes with  pip install xpk  and needs gcloud, kubectl and docker.

  --cluster=CLUSTER     that has the TPUs
  --create-cluster      makes the cluster first (--spot: of spot machines; --reservation=R; without both on demand)
  --type=TYPE           v4-N, v5e-N (v5litepod-N), v5p-N or v6e-N
  --slices=1            joined by the data centre's network
  --base-image=IMAGE    has Python 3.11 or newer; the last commit is laid over it and installed (default: python:3.12)
  --image=IMAGE         has the checkout as its working directory, and the package installed: used as it is
  --max-restarts=50     how often GKE makes the hosts anew
  --bucket=gs://...     for compiled programs, in its cache; without it SFTRL_BUCKET of the environment
  --cache=gs://...      compiled programs: JAX_COMPILATION_CACHE_DIR
  --extras=hf,gguf      what is installed besides jax[tpu] (default: hf)
  --delete              ends the workload
  --zone=ZONE           without it CLOUDSDK_COMPUTE_ZONE of the environment
  --project=PROJECT     without it CLOUDSDK_CORE_PROJECT, and without that what \`gcloud config\` has
  --dry-run             prints the exact commands, runs nothing
A token of the hub is read from HF_TOKEN, from where \`hf auth login\` keeps it, or asked for."
values="cluster type zone project slices base-image image max-restarts bucket cache extras reservation"
switches="create-cluster spot delete" leading=2
slices=1 max_restarts=50
parse "$@"
named "${words[@]+"${words[@]}"}"
[ "${#name}" -le 40 ] || refuse "the name is '$name', but a workload of xpk has 40 characters at most."
placed
[ -n "$cluster" ] || refuse "--cluster is missing: write --cluster=CLUSTER; --create-cluster makes one."
matches "$cluster" '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' || refuse "--cluster is '$cluster', but should begin with a" \
  "lower-case letter, go on with lower-case letters, digits and hyphens, and have 40 characters at most."
command=("${words[@]:1}")
if [ "$delete" = yes ]; then
  [ "${#command[@]}" = 0 ] || refuse "--delete takes no command, but there is '$(quoted "${command[@]}")'."
  call xpk workload delete --workload="$name" --cluster="$cluster" "${where[@]}" --force
  exit 0
fi
typed; bucketed; installed
[ "${#command[@]}" -gt 0 ] || refuse "there is no command: ./launch/gke_xpk.sh NAME ... sftrl rl --config=..."
commanded "${command[@]}"
for flag in slices max_restarts; do
  is_count "${!flag}" || refuse "--${flag//_/-} is '${!flag}', but should be a whole number above 0."
done
[ -z "$image" ] || [ -z "$base_image" ] || refuse "--image and --base-image are two ways: give one."
[ -z "$spot" ] || [ -z "$reservation" ] || refuse "--spot and --reservation are two kinds of machines: give one."
tokened "${command[@]}"

if [ "$create_cluster" = yes ]; then
  tier=(--on-demand)
  [ -z "$spot" ] || tier=(--spot)
  [ -z "$reservation" ] || tier=(--reservation="$reservation")
  call xpk cluster create --cluster="$cluster" "${where[@]}" --tpu-type="$accelerator" --num-slices="$slices" \
    "${tier[@]}"
fi

# A line with a name alone is the variable as it is here, so that the token is in no file and in no command line.
folder="runs/launch/$name"
variables="PYTHONUNBUFFERED=1${cache:+
JAX_COMPILATION_CACHE_DIR=$cache}"
if [ -n "$token" ]; then export HF_TOKEN="$token"; variables="$variables
HF_TOKEN"; fi
if [ -n "$image" ]; then
  call mkdir -p "$folder"
  from=(--docker-image="$image")
  run="exec bash launch/restart.sh $(quoted "${command[@]}")"
else
  packed
  call mkdir -p "$folder/code"
  call tar -xzf "$folder/code.tar.gz" -C "$folder/code"
  from=(--base-docker-image="${base_image:-python:3.12}" --script-dir="$folder/code")
  run="source launch/venv.sh && make_venv && install '[tpu,$extras]' && export PATH=\$PWD/.venv/bin:\$PATH &&"
  run="$run exec bash launch/restart.sh $(quoted "${command[@]}")"
fi
if [ "$dry_run" = yes ]; then
  printf 'cat >%s <<"EOF"\n%s\nEOF\n' "$(quoted "$folder/variables")" "$variables"
else
  printf '%s\n' "$variables" >"$folder/variables"
fi
# restart.sh ends a container with 75 when its host is taken away; GKE begins it again there or elsewhere.
call xpk workload create --workload="$name" --cluster="$cluster" "${where[@]}" --tpu-type="$accelerator" \
  --num-slices="$slices" "${from[@]}" --env-file="$folder/variables" --max-restarts="$max_restarts" \
  --restart-on-exit-codes=75 --termination-grace-period-seconds=120 --command="$run"
