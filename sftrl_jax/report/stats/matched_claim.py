"""The estimate of a registered claim that reads runs where they first come to one success in distribution."""

import numpy as np

from sftrl_jax.report.records import RunKey, Study
from sftrl_jax.report.registered_claim import START, RegisteredClaim
from sftrl_jax.report.stats import bootstrap, flops_axis
from sftrl_jax.report.stats.curves import Curves, estimate_of, rate_of


def estimate(study: Study, comparison: flops_axis.Comparison, curves: Curves,
             claim: RegisteredClaim) -> bootstrap.Estimate | None:
  """The claim's difference over the bases on which its runs come to `claim.matched`; None where no run was measured.

  A run that starts there, or never comes there, has no value in that resample: `kept` is the share that have one.
  """
  values, episodes = {}, 0
  for key in comparison.at:
    rate_R = _where_matched(study, curves, key, claim) if key[1] == claim.method else None
    if rate_R is None:
      continue
    subtracted_R = _subtracted(study, comparison, curves, key, claim)
    if subtracted_R is None:
      continue
    values[key] = subtracted_R - rate_R if claim.comparison == claim.method else rate_R - subtracted_R
    episodes = curves[key, claim.variant, claim.temperature].episodes
  return estimate_of(values, episodes) if values else None


def _subtracted(study: Study, comparison: flops_axis.Comparison, curves: Curves, key: RunKey,
                claim: RegisteredClaim) -> np.ndarray | None:
  """[R+1], what the value of run `key` at the matched success is compared with; None where that was not measured."""
  if not claim.comparison:
    return np.zeros((), np.float32)
  if claim.comparison in (START, claim.method):
    rate_RK = rate_of(curves, key, claim.variant, claim.temperature, claim.measure)
    if claim.comparison == START:
      return rate_RK[:, 0]
    return flops_axis.read_at(curves[key, claim.variant, claim.temperature].flops, rate_RK, comparison.at[key])
  partner = (key[0], claim.comparison, key[2])
  return _where_matched(study, curves, partner, claim) if partner in comparison.at else None


def _where_matched(study: Study, curves: Curves, key: RunKey, claim: RegisteredClaim) -> np.ndarray | None:
  """[R+1], a run's value where its success in distribution first is `claim.matched`, NaN in resamples without such a
  place; None where the two variants were not evaluated at the same steps."""
  along_RK, read_RK = (rate_of(curves, key, variant, claim.temperature, claim.measure)
                       for variant in (study.id, claim.variant))
  if along_RK is None or read_RK is None or along_RK.shape != read_RK.shape or along_RK.shape[1] < 2:
    return None
  return flops_axis.first_crossing(along_RK, read_RK, np.full(len(along_RK), claim.matched, np.float32))
