# Sourced by the scripts beside it, from the root of the checkout: makes a virtual environment and installs the package.
#   PYTHON=python3.13   the interpreter (default: the newest of 3.11 to 3.14 that is on this machine)
#   VENV=.venv-3.11     the directory of the environment (default: .venv)
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

venv="${VENV:-.venv}"

# is_good PYTHON: whether it is 3.11 or newer, and able to make virtual environments (Debian ships ensurepip apart).
is_good() {
  "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# first_python NAME...: the first interpreter of these names that is good, on the PATH or under pyenv; "" for none.
first_python() {
  local name path
  for name in "$@"; do
    for path in "$name" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/"$name"; do
      if is_good "$path"; then command -v "$path"; return; fi
    done
  done
}

# python 3.14 comes last: not every package has a wheel for it.
newest_python() { first_python python3.13 python3.12 python3.11 python3.14 python3; }
oldest_python() { first_python python3.11; }

# version_of PYTHON: 3.11
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

make_venv() {
  local python="${PYTHON:-}" present
  present="$(version_of "$venv/bin/python")"
  if [ -n "$python" ]; then
    is_good "$python" || fail "PYTHON=$python is no Python of 3.11 or newer that can make virtual environments."
    if [ "$present" = "$(version_of "$python")" ]; then return; fi
  elif "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    return
  else
    python="$(newest_python)"
  fi
  if [ -n "$python" ]; then
    "$python" -m venv --clear "$venv"
  elif command -v uv >/dev/null; then
    uv venv --clear --seed --python '>=3.11' "$venv"
  elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "No Python of 3.11 or newer: installing it with apt-get"
    apt-get update -qq && apt-get install -y -qq python3.11 python3.11-venv
    python="$(newest_python)"
    [ -n "$python" ] || fail "apt-get has no Python of 3.11 or newer: install one and call this again."
    "$python" -m venv --clear "$venv"
  else
    fail "no Python of 3.11 or newer that can make virtual environments. Install one, for example
  Debian, Ubuntu: sudo apt-get install python3.11 python3.11-venv
  macOS: brew install python@3.12
  anywhere: pip install uv
and call this script again."
  fi
}

# install EXTRAS ("" or "[test]"): nothing when this checkout's pyproject.toml is installed with them already.
install() {
  local extras="$1" stamp="$venv/installed$1" wanted
  wanted="$(pwd) $(cksum <pyproject.toml)"
  for stamp in "$stamp" "$venv/installed[test]"; do
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  done
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  # pip compiles every module of every package, which takes longer than the rest of the installation: compile by a first
  # import only what is imported.
  "$venv/bin/python" -m pip install -qq --no-compile -e ".$extras" ||
    fail "the installation failed, see above. It needs a package index (a network, or pip config)."
  PYTHONDONTWRITEBYTECODE="" JAX_PLATFORMS=cpu "$venv/bin/python" -c '
import flax.linen, jax, matplotlib.pyplot, ml_collections, numpy, optax, orbax.checkpoint, tqdm' ||
    fail "the packages are installed but cannot be imported, see above: remove $venv and call this again."
  printf '%s' "$wanted" >"$venv/installed$extras"
}
