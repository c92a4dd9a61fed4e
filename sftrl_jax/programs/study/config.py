"""The section `study` of a config: the methods that are compared, their bases and their budget."""

import dataclasses

from sftrl_jax.programs.config.errors import nearest

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
  shipped: where base is "", the name of the shipped bases base:NAME_0, base:NAME_1, ..., or scratch for new models
  labels: {method: its name in figures}; a method without one is shown in capitals
  flops: training FLOPs of every method's run; 0 leaves it to their configs
  id: the variant of training
  ood: the shifted variant
  reference: the method that the others are compared with; "" for SFT, and only then the report judges claims
    about SFT and RL
  jobs: processes at once; 0 for one per CPU core; 1 on an accelerator
  eval_episodes: evaluation episodes per variant; 0 leaves it to the configs
  at: shares of every method's run after which it is evaluated; () leaves it to the configs
  overrides: {method, or "base": {key: value}} on top of its config
  disclosure: choices that were made after seeing results
  """

  name: str
  claim: str
  methods: dict[str, str]
  bases: int = 1
  seeds: int = 1
  base: str = ""
  shipped: str = "general_points"
  labels: dict[str, str] = dataclasses.field(default_factory=dict)
  flops: float = 0.0
  id: str = "id_seen"
  ood: str = "rule_ood"
  reference: str = ""
  jobs: int = 1
  eval_episodes: int = 0
  at: tuple[float, ...] = ()
  overrides: dict = dataclasses.field(default_factory=dict)
  disclosure: tuple[str, ...] = ()

  def __post_init__(self):
    for key, least, most in LIMITS:
      if not least <= getattr(self, key) <= most:
        raise ValueError(f"{key} is {getattr(self, key)}, but should be from {least} to {most:g}.")
    if not self.methods:
      raise ValueError("methods is empty, but a study compares at least one: methods = {'sft': 'FILE.py', ...}.")
    by_method = {"overrides": self.overrides, "labels": self.labels,
                 "reference": [self.reference] if self.reference else []}
    for key, methods in by_method.items():
      allowed = [*self.methods, *(["base"] if key == "overrides" else [])]
      for method in methods:
        if method not in allowed:
          raise ValueError(f"{key} has {method!r}, which is no method{nearest(method, allowed)}")
    for key, kind, example in (("methods", str, "FILE.py"), ("overrides", dict, "{'batch': 8}")):
      for method, value in getattr(self, key).items():
        if not isinstance(value, kind) or value == "":
          raise ValueError(f"{key}.{method} is {value!r}, but should be for example {example!r}.")
    if not all(0 < share < 1 for share in self.at):
      raise ValueError(f"at is {self.at}, but should be shares of a run between 0 and 1. The end of a run is always "
                       "evaluated.")
    for method in self.methods:
      if not method.replace("_", "").isalnum() or method == "base":
        raise ValueError(f"methods has {method!r}, but a method is a word of letters, digits and _, and not 'base'.")


SCHEMA = {"study": StudyConfig}
