"""The section `study` of a config: the methods that are compared, their bases and their budget."""

import dataclasses
import math
from typing import Literal

from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.errors import nearest
from sftrl_jax.report.registered_claim import MEASURES, parse_claim

MIX = "mix:"   # of bases_of: mix:METHOD,SHARE
START = "start"   # of base-B-start, the runs of base_start
LIMITS = (("bases", 1, 99), ("seeds", 1, 99), ("jobs", 0, 1024), ("flops", 0, 1e30), ("eval_episodes", 0, 10**6))


@dataclasses.dataclass(frozen=True)
class StudyConfig:
  """The comparison.

  name: heading of the report
  claim: the claim that the study tests, in a sentence or two
  bases: how many base models; the unit of the statistics
  seeds: post-training seeds on each base
  methods: {method: FILE.py[:choice] of its sft or rl config}
  base: FILE.py[:choice] of the bases' pre-training; "" for the shipped bases
  base_start: FILE.py[:choice] of a run at whose end the pre-training of each base starts (base-B-start), such as one
    that learns to read pictures first; "": as the base's own config says
  bases_of: {method: FILE.py[:choice], the name of shipped bases, or scratch} of a method that starts from other bases.
    The runs that train them are base-B-METHOD; methods of the same file share them under the name of the first. The
    name of another method: this one starts where that one's run of the same base and seed ends. So may one of prepares;
    mix:METHOD,0.5: half way on the line of the weights from the base to there
  prepares: {name: FILE.py[:choice]} of runs that methods use and that are not compared, such as a reward model's:
    base-B-NAME-S, one for each base and seed, from that base. overrides may name them
  uses: {method: {config key: NAME or NAME/FILE}}: the key becomes the workdir of the run of `prepares` on that base and
    seed, or a file in it. What that run has cost is charged where the method's config says so
  shipped: where base is "", the name of the shipped bases base:NAME_0, base:NAME_1, ..., or scratch for new models
  labels: {method: its name in figures}; a method without one is shown in capitals
  flops: training FLOPs of every method's run; 0 leaves it to their configs. A method with a budget of its own has flops
    or steps in overrides: it is reported at its own end, and compared with another one at the smaller of both FLOPs.
  id: the variant of training
  ood: the shifted variant
  measure: what heads the report: "success" (episodes that were right) or "per_step" (right responses of all responses,
    for a task of many answers an episode). The other one follows, and parts of verdicts that the task has a label for.
  claims: predictions, recorded before the runs start and judged in the report: ({method: NAME, sign: 1 or -1}, ...),
    or least or most (a share: 0.6 is 60 points) in place of sign. More keys: variant (ood), measure (that of the
    study, or such a part: "cards", "sign"), temperature (0), comparison ("start", or a method, or "" for the value at
    the end), text, and matched: 0.4 reads both where they first have 40% in distribution, and comparison may then be
    the method itself, at its end.
  reference: the method that the others are compared with; "" for SFT, and only then the report judges claims
    about SFT and RL
  jobs: processes at once; 0 for one per CPU core; 1 on an accelerator
  eval_episodes: evaluation episodes per variant; 0 leaves it to the configs
  at: shares of every method's run after which it is evaluated, or {method: shares}; () and a method that is left out
    leave it to the configs
  overrides: {method, or "base": {key: value}} on top of its config; "base" is for all bases, those of bases_of too
  notes: {method: a sentence} that the report prints beside the method's results: what it is for
  disclosure: choices that were made after seeing results
  """

  name: str
  claim: str
  methods: dict[str, str]
  bases: int = 1
  seeds: int = 1
  base: str = ""
  base_start: str = ""
  bases_of: dict[str, str] = dataclasses.field(default_factory=dict)
  prepares: dict[str, str] = dataclasses.field(default_factory=dict)
  uses: dict[str, dict] = dataclasses.field(default_factory=dict)
  shipped: str = "general_points"
  labels: dict[str, str] = dataclasses.field(default_factory=dict)
  flops: float = 0.0
  id: str = "id_seen"
  ood: str = "rule_ood"
  measure: Literal["success", "per_step"] = "success"
  claims: tuple[dict, ...] = ()
  reference: str = ""
  jobs: int = 1
  eval_episodes: int = 0
  at: tuple[float, ...] | dict[str, tuple[float, ...]] = ()
  overrides: dict = dataclasses.field(default_factory=dict)
  notes: dict[str, str] = dataclasses.field(default_factory=dict)
  disclosure: tuple[str, ...] = ()

  def __post_init__(self):
    for key, least, most in LIMITS:
      if not least <= getattr(self, key) <= most:
        raise ValueError(f"{key} is {getattr(self, key)}, but should be from {least} to {most:g}.")
    if not self.methods:
      raise ValueError("methods is empty, but a study compares at least one: methods = {'sft': 'FILE.py', ...}.")
    self._refuse_unknown_methods()
    if self.base_start and not self.base:
      raise ValueError(f"base_start is {self.base_start!r}, but base is '', so no base is trained: give its config."
                       )
    for key, kind, example in (("methods", str, "FILE.py"), ("overrides", dict, "{'batch': 8}"),
                               ("bases_of", str, "FILE.py"), ("prepares", str, "FILE.py"),
                               ("uses", dict, "{'data': {'path': 'NAME/FILE'}}"),
                               ("notes", str, "The same at equal updates.")):
      for method, value in getattr(self, key).items():
        if not isinstance(value, kind) or value == "":
          raise ValueError(f"{key}.{method} is {value!r}, but should be for example {example!r}.")
    for method, source in self.bases_of.items():
      below, share = mixed(source)
      if source.startswith(MIX) and (below not in self.methods or below in self.bases_of or not 0 <= share <= 1):
        raise ValueError(f"bases_of.{method} is {source!r}, but a mix is mix:METHOD,SHARE, of a method that starts "
                         "from the study's bases and a share of it from 0 to 1, such as mix:sft,0.5.")
      if source == method or (source in self.methods and self.bases_of.get(source) in self.methods):
        raise ValueError(f"bases_of.{method} is the method {source!r}, but that one should start from a base itself.")
    for method, shares in (self.at.items() if isinstance(self.at, dict) else [("", self.at)]):
      if not all(0 < share < 1 for share in shares):
        raise ValueError(f"at{'.' if method else ''}{method} is {shares}, but should be shares of a run between 0 and "
                         "1. The end of a run is always evaluated.")
    for key, method in (*(("methods", name) for name in self.methods), *(("prepares", name) for name in self.prepares)):
      if not method.replace("_", "").isalnum() or method in ("base", START):
        raise ValueError(f"{key} has {method!r}, but a method is a word of letters, digits and _, and not 'base' or "
                         f"{START!r}.")
    self._refuse_unknown_uses()
    for index, claim in enumerate(self.claims):
      try:
        parse_claim(claim, self.methods, self.ood, self.measure)
      except ValueError as error:
        raise ValueError(f"claims, number {index + 1}: {error}") from error

  def _refuse_unknown_uses(self) -> None:
    """ValueError for a run of `prepares` that is a method too, and for a method that uses what is not one run of it."""
    for name in self.prepares:
      if name in self.methods:
        raise ValueError(f"prepares has {name!r}, which is a method too: give it a name of its own.")
    for method, keys in self.uses.items():
      names = {str(value).partition("/")[0] for value in nested.flat(keys).values()}
      if len(names) != 1 or not names <= set(self.prepares):
        raise ValueError(f"uses.{method} is {keys}, but its values should name one run of prepares, "
                         f"{', '.join(self.prepares) or 'which has none'}, or a file of it, such as 'NAME/FILE'.")

  def _refuse_unknown_methods(self) -> None:
    """ValueError for a key by method that names no method."""
    by_method = {"overrides": self.overrides, "labels": self.labels, "bases_of": self.bases_of, "notes": self.notes,
                 "at": self.at if isinstance(self.at, dict) else {},
                 "uses": self.uses, "reference": [self.reference] if self.reference else []}
    for key, methods in by_method.items():
      allowed = [*self.methods, *(["base"] if key == "overrides" else []),
                 *(self.prepares if key in ("overrides", "bases_of", "uses") else [])]
      for method in methods:
        if method not in allowed:
          raise ValueError(f"{key} has {method!r}, which is no method{nearest(method, allowed)}")

  def claimed_parts(self) -> dict[str, list[str]]:
    """{method: the parts of verdicts that claims about it have as their measure}."""
    table = {}
    for claim in self.claims:
      measure = claim.get("measure", self.measure)
      table.setdefault(claim["method"], []).extend([] if measure in MEASURES else [measure])
    return table

  def shares_of(self, method: str) -> tuple[float, ...]:
    """The shares of a method's run after which it is evaluated; () leaves it to its config."""
    return tuple(self.at.get(method, ()) if isinstance(self.at, dict) else self.at)


def mixed(source: str) -> tuple[str, float]:
  """(METHOD, SHARE) of a source mix:METHOD,SHARE, NaN for a share that is no number; ("", NaN) of another source."""
  method, _, share = source.removeprefix(MIX).rpartition(",")
  try:
    return (method, float(share)) if source.startswith(MIX) else ("", math.nan)
  except ValueError:
    return method, math.nan


SCHEMA = {"study": StudyConfig}
