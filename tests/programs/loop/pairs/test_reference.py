"""What DPO compares with: scored by the start alone, kept, and of no other start."""

import json

import numpy as np
import pytest

from sftrl_jax.programs import preference
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.loop.pairs import reference


def test_the_reference_is_that_of_the_start_and_another_start_is_refused(pair_config, tmp_path):
  made = lambda steps, **more: pair_config(steps=steps, checkpoint__every=1, **more)
  preference.run(made(1), tmp_path / "run")
  path = tmp_path / "run" / reference.FILE
  record = json.loads(path.read_text())
  values = np.asarray(record["logprobs"])
  assert values.shape == (18, 2) and (values < 0).all()
  path.write_text(json.dumps({**record, "fingerprint": "of another start"}))
  with pytest.raises(ConfigError, match="reference.json holds the start's log-probabilities.*of other parameters"):
    preference.run(made(2), tmp_path / "run")
  for content in ("{", json.dumps({**record, "logprobs": record["logprobs"][:-1]}), json.dumps({"logprobs": 3})):
    path.write_text(content)
    with pytest.raises(ConfigError, match="reference.json holds .* it is damaged"):
      preference.run(made(2), tmp_path / "run")
  path.unlink()   # scored anew, by the same start
  preference.run(made(2), tmp_path / "run")
  assert json.loads(path.read_text()) == record
