"""Keys that may be "auto": what a run may then choose from. The choice is made in plan/automatic.py.

A recorded config never holds "auto": build_experiment replaces it by the leanest choice, for programs that train
nothing, and a command that trains by what fits the memory.
"""

from collections.abc import Mapping
from typing import Any

from sftrl_jax.programs.config import nested

AUTO = "auto"
MICROBATCHES, REMAT = "compute.microbatches", "model.remat"
KEYS = (MICROBATCHES, REMAT)
# From fastest to leanest. "offload" is not among them: what it costs depends on the link to the host.
REMATS = ("none", "light", "full")


def asked(config: Mapping) -> tuple[str, ...]:
  """The keys of KEYS that are "auto" in this config."""
  flat = nested.flat(nested.plain(config))
  return tuple(key for key in KEYS if flat.get(key) == AUTO)


def counts(rows: int, shards: int) -> list[int]:
  """Ascending numbers of microbatches of `rows` rows: each microbatch has as many rows for each of the shards, and each
  number is at least twice the one before. [1] where there is none."""
  possible = [count for count in range(1, rows + 1) if rows % count == 0 and rows // count % shards == 0] or [1]
  chosen = possible[:1]
  for count in possible:
    if count >= 2 * chosen[-1] or count == possible[-1] != chosen[-1]:
      chosen.append(count)
  return chosen


def rows_of_update(config: Mapping) -> int:
  """Rows of SFT, or episodes of RL, that one update learns from."""
  section = config.get(config.get("algorithm", ""), {})
  section = config["sft"] if config.get("sft", {}).get("loss") == "psft" else section
  return max(1, config["batch"] // section.get("minibatches", 1))


def leanest(config: Mapping, shards: int) -> dict[str, Any]:
  """The value of least memory of each key that is "auto". shards: into which the mesh splits rows."""
  values = {MICROBATCHES: counts(rows_of_update(config), shards)[-1], REMAT: REMATS[-1]}
  return {key: values[key] for key in asked(config)}


def with_values(config: Mapping, values: Mapping[str, Any]) -> dict:
  """The config as a dict, with some dotted keys changed."""
  tree = nested.plain(config)
  for key, value in values.items():
    nested.put(tree, key, value)
  return tree
