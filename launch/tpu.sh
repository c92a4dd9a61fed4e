# Sourced by the tpu_*.sh that people call and by gke_xpk.sh, from the root of the checkout: which machine is meant,
# what it runs, the token of the hub, and how files and commands reach every worker.
# shellcheck shell=bash

source launch/words.sh

WHERE='  --zone=ZONE        for example us-central2-b; without it CLOUDSDK_COMPUTE_ZONE of the environment
  --project=PROJECT  without it CLOUDSDK_CORE_PROJECT, and without that what `gcloud config` has
  --queued           NAME is a queued resource; without it SFTRL_QUEUED=yes of the environment
  --dry-run          prints the exact commands, runs nothing'
HOME_THERE=/opt/sftrl   # of the checkout on a worker: one place whoever logs in, and for the start-up script

# named WORD: sets name. The rule is that of Google Cloud.
named() {
  [ $# -gt 0 ] || refuse "there is no NAME: see ${0##*/} --help."
  matches "$1" '[a-z]([-a-z0-9]{0,61}[a-z0-9])?' || refuse "the name is '$1', but should begin with a lower-case" \
    "letter, go on with lower-case letters, digits and hyphens, and have 63 characters at most: for example my-pod-1."
  name="$1"
}

# placed: checks --zone and --project and sets the flags that say where to gcloud.
placed() {
  zone="${zone:-${CLOUDSDK_COMPUTE_ZONE:-}}" project="${project:-${CLOUDSDK_CORE_PROJECT:-}}"
  [ -n "$zone" ] || refuse "--zone is missing: write --zone=us-central2-b, or export CLOUDSDK_COMPUTE_ZONE."
  matches "$zone" '[a-z]+(-[a-z]+[0-9]+)+-[a-z][a-z0-9]*' ||
    refuse "--zone is '$zone', but a zone is a region and a letter: for example us-central2-b."
  [ -z "$project" ] || matches "$project" '([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]' || refuse "--project is" \
    "'$project', but should be the id of a project (6 to 30 lower-case letters, digits, hyphens), not its title."
  where=(--zone="$zone" ${project:+--project="$project"})
}

# kind: sets kind and the flags that mean every worker (and every slice) of NAME.
kinded() {
  if [ "${queued:-${SFTRL_QUEUED:-}}" = yes ]; then
    kind=queued-resources all=(--worker=all --node=all)
  else
    kind=tpu-vm all=(--worker=all)
  fi
}

# typed: turns --type into Google's accelerator type and sets the runtime version of its generation where none is given.
typed() {
  [ -n "$type" ] || refuse "--type is missing: write --type=v6e-16, for example (v4-N, v5e-N, v5p-N, v6e-N)."
  matches "$type" '(v4|v5e|v5litepod|v5p|v6e)-[1-9][0-9]{0,4}' ||
    refuse "--type is '$type', but should be v4-N, v5e-N (the same as v5litepod-N), v5p-N or v6e-N: N chips for v5e" \
      "and v6e, N cores (two a chip) for v4 and v5p."
  case "$type" in
    v4-*) accelerator="$type" version=tpu-ubuntu2204-base ;;
    v5e-* | v5litepod-*) accelerator="v5litepod-${type##*-}" version=v2-alpha-tpuv5-lite ;;
    v5p-*) accelerator="$type" version=v2-alpha-tpuv5 ;;
    v6e-*) accelerator="$type" version=v2-alpha-tpuv6e ;;
  esac
  version="${runtime:-$version}"
}

# bucketed: sets record, where a machine that is made anew finds its code and command ("" without a bucket), and cache.
bucketed() {
  bucket="${bucket:-${SFTRL_BUCKET:-}}" record=""
  [ -n "$bucket" ] || return 0
  bucket="${bucket%/}"
  matches "$bucket" 'gs://[a-z0-9][-_.a-z0-9]*(/[-_.=A-Za-z0-9]+)*' ||
    refuse "--bucket is '$bucket', but should be gs://BUCKET or gs://BUCKET/FOLDER without spaces."
  record="$bucket/launch/$name"
  cache="${cache:-$bucket/cache}"
}

# installed: checks --extras.
installed() {
  matches "${extras:=hf}" '[a-z0-9]+(,[a-z0-9]+)*' ||
    refuse "--extras is '$extras', but should be extras of pyproject.toml: --extras=hf,gguf."
}

# commanded WORD...: the command is one that a worker has.
commanded() {
  [ "${1:-}" = sftrl ] && [ $# -gt 1 ] ||
    refuse "the command is '$(quoted "$@")', but should be as on one machine: sftrl rl --config=... --workdir=gs://..."
}

# packed: runs/launch/NAME/code.tar.gz is the checkout as it was committed. Sets folder.
packed() {
  local changed
  folder="runs/launch/$name"
  git rev-parse --verify -q HEAD >/dev/null ||
    stop "this directory has no commit, and what is sent is the last one: git init && git add . && git commit."
  changed="$(git status --porcelain | wc -l | tr -d ' ')"
  [ "$changed" = 0 ] || note "note: $changed files differ from the last commit and stay as they are there; sent is" \
    "$(git log -1 --format='%h (%s)')."
  call mkdir -p "$folder"
  call git archive --format=tar.gz --output="$folder/code.tar.gz" HEAD
}

# job WORD...: runs/launch/NAME/job.sh, which a worker sources: the command, its variables, and what to install.
job() {
  local text
  text="# What every worker of $name runs; written by ${0##*/} at commit $(git log -1 --format=%h).
environment=($([ -z "$cache" ] || quoted "JAX_COMPILATION_CACHE_DIR=$cache"))
extras=$(quoted "$extras")
secret=$(quoted "${hf_secret:-}")
command=($(quoted "$@"))"
  if [ "$dry_run" = yes ]; then
    printf 'cat >%s <<"EOF"\n%s\nEOF\n' "$(quoted "$folder/job.sh")" "$text"
  else
    printf '%s\n' "$text" >"$folder/job.sh"
  fi
}

# everywhere COMMAND: on all workers at once, by ssh.
everywhere() { call gcloud compute tpus "$kind" ssh "$name" "${where[@]}" "${all[@]}" --command="$1"; }

# sent FILE...: into the directory in which ssh begins, on all workers.
sent() { call gcloud compute tpus "$kind" scp "$@" "$name:" "${where[@]}" "${all[@]}"; }

# The command, for `everywhere`, that puts what was sent in its place and calls the worker's own script there.
# Whatever else is in that place stays: .venv, and the workdirs of runs on one host.
arrived() {
  printf '%s' 'set -eu; sudo mkdir -p '$HOME_THERE'; cd '$HOME_THERE'; sudo rm -rf sftrl_jax configs launch tests; ' \
    'sudo tar -xzf "$HOME/code.tar.gz"; ' \
    'for file in job.sh hf_token; do if [ -f "$HOME/$file" ]; then sudo install -m 600 "$HOME/$file" .; fi; done; ' \
    'rm -f "$HOME/code.tar.gz" "$HOME/job.sh" "$HOME/hf_token"; ' "sudo bash launch/tpu_worker.sh $1"
}
