#!/usr/bin/env bash
# What root does on a worker of a pod, in the checkout that was sent there. tpu_setup.sh, tpu_run.sh and tpu_startup.sh
# call it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/words.sh
source launch/venv.sh

usage='sudo ./launch/tpu_worker.sh install EXTRAS   Python, and the package with jax[tpu] and these extras
sudo ./launch/tpu_worker.sh start            the command of job.sh, as the unit sftrl of systemd
sudo ./launch/tpu_worker.sh supervise        what that unit is: restart.sh around the command
sudo ./launch/tpu_worker.sh stop             SIGTERM for the command, which is forgotten
  --dry-run   prints the commands, runs nothing'
values="" switches="" leading=9
parse "$@"
verb="${words[0]-}"
umask 022

# The images have Python 3.10. uv brings a whole new one, and apt would bring a candidate of 3.11 on Ubuntu 22.04: so uv
# first, from the package index by the old Python's pip, else from its own site.
newer_python() {
  if [ -x .venv/bin/python ] || [ -n "$(newest_python)" ] || command -v uv >/dev/null; then return; fi
  python3 -m pip install -q uv || curl -LsSf https://astral.sh/uv/install.sh |
    env UV_INSTALL_DIR=/usr/local/bin UV_NO_MODIFY_PATH=1 sh || note "note: no uv is to be had; apt is asked."
  hash -r
}

set_up() {
  if [ "$dry_run" = yes ]; then printf '%s\n' make_venv "install '[tpu,$1]'"; return; fi
  export HOME="${HOME:-/root}" PATH="$PATH:/usr/local/bin:/snap/bin"
  # The start-up script and a person may come at the same time.
  exec 9>.installing
  flock 9
  newer_python
  make_venv
  install "[tpu,$1]"
  flock -u 9
  say "$HOSTNAME: $(.venv/bin/python --version), jax $(.venv/bin/python -c 'import importlib.metadata as m
print(m.version("jax"), "libtpu", m.version("libtpu"))' 2>&1 | tail -n 1)"
}

read_job() {
  [ -f job.sh ] || stop "no command was sent here: ./launch/tpu_run.sh NAME sftrl ..."
  environment=() extras=hf secret="" command=()
  # shellcheck source=/dev/null
  source ./job.sh
}

case "$verb" in
  install)
    set_up "${words[1]:?EXTRAS is missing}" ;;
  start)
    read_job
    if [ "$dry_run" != yes ] && systemctl is-active --quiet sftrl; then
      if cmp -s job.sh .running; then note "$HOSTNAME: it runs already."; exit 0; fi
      stop "$HOSTNAME runs another command: ./launch/tpu_run.sh NAME --stop ends it at a checkpoint."
    fi
    set_up "$extras"
    if [ -n "$secret" ] && [ "$dry_run" != yes ]; then
      (umask 077; gcloud secrets versions access latest --secret="$secret" >hf_token) ||
        stop "$HOSTNAME cannot read $secret: its service account needs the role secretmanager.secretAccessor."
    fi
    # A unit that has failed keeps its name until it is forgotten.
    call systemctl reset-failed sftrl 2>/dev/null || true
    call cp job.sh .running
    # mixed: SIGTERM for restart.sh alone, which hands it on; SIGKILL for all that is left two minutes later.
    call systemd-run --unit=sftrl --property=KillMode=mixed --property=TimeoutStopSec=120 \
      --property=LimitMEMLOCK=infinity --property=LimitNOFILE=1048576 --property=WorkingDirectory="$PWD" \
      --property=StandardOutput=append:"$PWD/log.txt" --property=StandardError=append:"$PWD/log.txt" \
      bash launch/tpu_worker.sh supervise ;;
  supervise)
    read_job
    export PATH="$PWD/.venv/bin:$PATH" HOME="${HOME:-/root}" PYTHONUNBUFFERED=1
    for variable in ${environment[@]+"${environment[@]}"}; do export "${variable?}"; done
    if [ -f hf_token ]; then export HF_TOKEN_PATH="$PWD/hf_token"; fi
    if [ "$dry_run" = yes ]; then call bash launch/restart.sh "${command[@]}"; exit 0; fi
    note "$(date -u '+%F %T') $HOSTNAME: $(quoted "${command[@]}")"
    exec bash launch/restart.sh "${command[@]}" ;;
  stop)
    call rm -f job.sh
    call systemctl stop sftrl ;;
  *)
    refuse "'$verb' is none of install, start, supervise, stop: see --help." ;;
esac
