#!/usr/bin/env bash
# Remakes shipped bases, sftrl_jax/bases/<name>_<seed>.npz, from the runs of a full study:
#   .venv/bin/python -m sftrl_jax study --config=configs/study/virl_cpu.py --workdir=runs/virl
#   ./launch/bases.sh runs/virl virl 0 1 2
# Those of general_points are of an earlier study, whose bases were trained for 4,000 steps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage="usage: ./launch/bases.sh STUDY_DIR NAME SEED..."
study="${1:?$usage}"; name="${2:?$usage}"; shift 2
for seed in "$@"; do
  JAX_PLATFORMS=cpu .venv/bin/python - "$study/runs/base-$seed" "sftrl_jax/bases/${name}_$seed.npz" <<'PYTHON'
import sys
from pathlib import Path

import jax
import numpy as np

from sftrl_jax import trees
from sftrl_jax.checkpoints import store
from sftrl_jax.models import build
from sftrl_jax.programs.experiment.saved_run import config_of
from sftrl_jax.programs.experiment.build import build_experiment

workdir, out = Path(sys.argv[1]), Path(sys.argv[2])
experiment = build_experiment(config_of(workdir, []), "sft")
like = jax.jit(experiment.model.init)(jax.random.key(0))
params, step = store.restore_params(workdir, None, like)
np.savez_compressed(out, **{path: np.asarray(leaf) for path, leaf in trees.leaves(params).items()})
print(f"{out}: step {step} of {workdir}, {trees.size(params)} parameters, {out.stat().st_size} bytes")
PYTHON
done
