#!/usr/bin/env bash
# The start-up script of a TPU VM (metadata key startup-script, set by tpu_create.sh): root runs it at every boot,
# so that a machine which was restarted, or made anew after a preemption, goes on by itself. It stands alone: a new
# machine has nothing but this.
set -euo pipefail
home="${SFTRL_HOME:-/opt/sftrl}"
case "${1:-}" in
  --help | -h)
    printf '%s\n' 'launch/tpu_startup.sh [--dry-run]   on a TPU VM, as root, at boot

Fetches code.tar.gz and job.sh from where the metadata key sftrl-record says (gs://BUCKET/launch/NAME), or takes those
that are here already, installs them and starts the command (tpu_worker.sh start). Nothing recorded: it does
nothing. What it prints is in /opt/sftrl/log.txt.'
    exit 0 ;;
  --dry-run)
    printf '%s\n' "gcloud storage cp RECORD/code.tar.gz RECORD/job.sh $home/" \
      "tar -xzf $home/code.tar.gz -C $home" "bash $home/launch/tpu_worker.sh start"
    exit 0 ;;
esac
mkdir -p "$home"
cd "$home"
exec >>log.txt 2>&1
export PATH="$PATH:/snap/bin"
echo "$(date -u '+%F %T') $HOSTNAME: started up"

asked=http://metadata.google.internal/computeMetadata/v1/instance/attributes/sftrl-record
record="$(curl -sf -H 'Metadata-Flavor: Google' "$asked" || true)"
if [ -n "$record" ]; then
  if ! gcloud storage ls "$record/job.sh" >/dev/null; then
    echo "No command is recorded in $record: ./launch/tpu_run.sh gives one."
    exit 0
  fi
  gcloud storage cp "$record/code.tar.gz" "$record/job.sh" .
  chmod 600 job.sh
  rm -rf sftrl_jax configs launch tests
  tar -xzf code.tar.gz
  rm -f code.tar.gz
elif [ ! -f job.sh ]; then
  echo "No command was sent here yet: ./launch/tpu_run.sh gives one."
  exit 0
fi
exec bash launch/tpu_worker.sh start
