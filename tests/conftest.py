"""Tests run on eight pretended CPU devices, and arrays of different ranks are not broadcast unasked.

Only the environment is touched, and before anyone imports jax: tests of rooms without jax stay without it.
"""

import os
import sys

DEVICES = "--xla_force_host_platform_device_count"

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
if DEVICES not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}=8".strip()
if "jax" in sys.modules:  # a plugin was quicker: XLA_FLAGS still counts until the first device is asked for
  sys.modules["jax"].config.update("jax_platforms", "cpu")
  sys.modules["jax"].config.update("jax_numpy_rank_promotion", "raise")
