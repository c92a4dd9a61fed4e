# Sourced after tpu.sh: whether a command reads the Hugging Face hub, and the token for it, which is asked for before a
# machine is paid for and never stands in a command line, a log or what --dry-run prints: it travels as a file.
# shellcheck shell=bash

UNKNOWN="(unknown)"

# reads_hub WORD...: prints what the command's config reads from the hub, or $UNKNOWN. Fails as the config does.
reads_hub() {
  local python code
  for python in .venv/bin/python python3; do
    code=0
    read_config "$python" "$@" || code=$?
    case "$code" in 0 | 1) return "$code" ;; esac
  done
  note "note: no Python here reads configs (./launch/quickstart.sh makes one), so a mistake in --config is found on" \
    "the pod, and whether a token of the hub is needed is up to you: export HF_TOKEN if it is."
  printf '%s\n' "$UNKNOWN"
}

# read_config PYTHON WORD...: the same by this Python; another code than 0 and 1 if it cannot.
read_config() {
  command -v "$1" >/dev/null || return 3
  "$1" - "${@:2}" <<'PYTHON'
import sys

try:
  if sys.version_info < (3, 11):
    raise ImportError("too old")
  import ml_collections
except ImportError:
  sys.exit(3)
from pathlib import Path

sys.path.insert(0, ".")
from sftrl_jax import main
from sftrl_jax.checkpoints.source import HUB_ID
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError

try:
  command = main.scan(sys.argv[2:])
  config = resolve.load(command.flags["--config"]) if "--config" in command.flags else {}
  study = config.get("study", {})
  specs = [*study.get("methods", {}).values(), study.get("base", "")]
  configs = [config, *(resolve.load(spec) for spec in specs if spec)]
except (main.Misuse, ConfigError) as error:
  sys.exit(f"error: {error}")
said = dict(command.overrides)
for each in configs:
  for value in (said.get("start", each.get("start", "")), said.get("data.path", each.get("data", {}).get("path", ""))):
    here = Path(str(value))
    if HUB_ID.fullmatch(str(value)) and not here.exists() and not here.parent.exists():
      print(value)
PYTHON
}

# The file in which the hub's own tools keep a token.
kept_token() { printf '%s' "${HF_TOKEN_PATH:-${HF_HOME:-$HOME/.cache/huggingface}/token}"; }

# tokened WORD...: sets token, "" where the command reads nothing from the hub, or nothing that wants one; a person is
# asked for it.
tokened() {
  local wanted file
  token=""
  wanted="$(reads_hub "$@" | sort -u | head -n 3 | tr '\n' ' ')" || exit 1
  case "$wanted" in
    "") return ;;
    "$UNKNOWN ") token="${HF_TOKEN:-}" ;;
    *)
      file="$(kept_token)" token="${HF_TOKEN:-}"
      if [ -z "$token" ] && [ -s "$file" ]; then token="$(cat "$file")"; fi
      if [ -z "$token" ] && [ "$dry_run" = yes ]; then
        note "note: ${wanted}on the hub: without --dry-run you are asked for a token, as HF_TOKEN is not set."
      elif [ -z "$token" ]; then
        [ -t 0 ] || refuse "HF_TOKEN is not set, and the command reads ${wanted}from the hub: export HF_TOKEN, or" \
          "HF_TOKEN=none if it is public."
        read -rsp "Token of the hub for $wanted(nothing if it is public): " token
        printf '\n'
        if [ -n "$token" ]; then
          mkdir -p "$(dirname "$file")"
          (umask 077; printf '%s' "$token" >"$file")
          note "It is kept in $file, for you alone, as \`hf auth login\` does: tpu_run.sh takes it from there."
        fi
      fi ;;
  esac
  if [ "$token" = none ]; then token=""; fi
  [ -z "$token" ] || matches "$token" '[[:graph:]]+' ||
    refuse "HF_TOKEN has spaces or line breaks in it, so it is no token of the hub."
}
