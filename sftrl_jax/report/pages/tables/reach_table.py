"""A row a method: the FLOPs after which it first comes to a success in distribution."""

import math
from collections.abc import Collection

from sftrl_jax.report.labels import flops_text, temperature_label
from sftrl_jax.report.pages.blocks import Block, Heading, Table
from sftrl_jax.report.records import MEASURE_LABELS, Study
from sftrl_jax.report.stats.reach import reached


def reach_blocks(study: Study) -> list[Block]:
  """[] where no run rises through a level. Greedy, or at the lowest temperature."""
  temperature = min(study.temperatures, default=0.0)
  methods = reached(study, temperature)
  levels = list(dict.fromkeys(level for of_method in methods.values() for level in of_method))
  if not levels:
    return []
  rows = [(study.methods[method], *(_cell(of_method[level].values()) for level in levels))
          for method, of_method in methods.items()]
  rate, inside = MEASURE_LABELS[study.measure], study.labels.variant(study.id)
  header = (f"FLOPs to {rate} on {inside}, {temperature_label(temperature)}",
            *(f"{100 * level:g}%" for level in levels))
  return [Heading("How much a success costs", 3), Table(header, tuple(rows), (
      "FLOPs of post-training after which a run first has the rate, linear between evaluations: the mean of the runs "
      "that come to it, in parentheses the least and the most, and how many they are where some do not. 0: there at "
      "the start. What it costs a run that does not come to it is not known: a mean over fewer runs is too low."))]


def _cell(flops: Collection[float]) -> str:
  """`4.1e11 (3.2e11 to 5e11), 4 of 5`."""
  there = [value for value in flops if value < math.inf]
  if not there:
    return "not reached"
  mean = flops_text(sum(there) / len(there))
  spread = f" ({flops_text(min(there))} to {flops_text(max(there))})" if min(there) < max(there) else ""
  return f"{mean}{spread}" + (f", {len(there)} of {len(flops)}" if len(there) < len(flops) else "")
