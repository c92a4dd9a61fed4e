"""The time of a planned step as published runs on the same chips let expect it, beside its lower bound."""

import dataclasses

from sftrl_jax.programs.plan.compilation import Plan
from sftrl_jax.programs.plan.published import calibration
from sftrl_jax.programs.plan.published.calibration import Efficiency


@dataclasses.dataclass(frozen=True)
class ExpectedStep:
  """least, most: seconds, by the highest and the lowest efficiency of a published run; share: of the lower bound that
  FLOPs bound. What memory or the network bounds has no published runs here, and counts as its bound."""

  efficiency: Efficiency
  least: float
  most: float
  share: float

  def __str__(self) -> str:
    known = self.efficiency
    rest = "" if self.share > 0.995 else (f"\n  (known for what FLOPs bound, {self.share:.0%} of it; the rest is "
                                          "counted as its bound)")
    return (f"expected: {self.least:.3g} to {self.most:.3g} s a step: {known.runs} published training runs on such "
            f"chips took {1 / known.highest:.2f} to {1 / known.lowest:.2f} times their bound "
            f"(sftrl plan --published){rest}")

  def to_json(self) -> dict:
    return {"text": str(self), "seconds": [self.least, self.most], "calibrated_share_of_bound": self.share,
            "runs": self.efficiency.runs, "efficiency": [self.efficiency.lowest, self.efficiency.highest]}


def expected_step(plan: Plan) -> ExpectedStep | None:
  """The expected time of a step of a run; None for chips without published runs, and where FLOPs bound nothing."""
  efficiency = calibration.efficiency(plan.where.chip.kind)
  bounds = [(function.calls * seconds, resource) for function in plan.functions
            for seconds, resource in (function.bound(plan.machine),)]
  total = sum(seconds for seconds, _ in bounds)
  computed = sum(seconds for seconds, resource in bounds if resource == "flops")
  if efficiency is None or not computed:
    return None
  rest = total - computed
  return ExpectedStep(efficiency, rest + computed / efficiency.highest, rest + computed / efficiency.lowest,
                      computed / total)
