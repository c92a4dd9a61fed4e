r"""From SFT to RL and between, on V-IRL: do the claims of continuum.py hold where an episode has many responses?

  sftrl study --config=configs/study/continuum_virl.py --workdir=runs/continuum_virl              (five bases)
  sftrl study --config=configs/study/continuum_virl.py:quick --workdir=runs/continuum_virl_quick  (three shipped bases)

Hardware: two CPU cores. Minutes: not yet measured.
Result: not yet run over several bases.

The arms of continuum.py that are about whose answers, freshness, sign, eps and the number of updates, on routes under
absolute actions (`TURN west`), 2e12 FLOPs each; relative actions (`TURN left`) are the shift. Rates are those of
virl_cpu.py: right responses of all responses. Its task has two tries a point, so claim (f) has no counterpart here.
"""

from ml_collections import ConfigDict

from configs.study.continuum import EPS, claim

HOME = "configs/virl"
SFT, PPO, SELF, SIGNED = (f"{HOME}/{name}.py" for name in ("sft", "ppo", "self_sft", "reinforce_plus_plus"))
ARMS = dict(
    sft=(SFT, "SFT", "expert's states, expert's answers", {}),
    sft_updates=(f"{SFT}:equal_updates", "SFT, PPO's updates", "ten times as many routes an update", {}),
    sft_eps=(f"{SFT}:eps", "SFT, eps 1e-4", "small gradients take small steps", {}),
    dagger=(f"{HOME}/dagger.py", "DAgger", "own states, the expert's answers", {}),
    frozen=(SELF, "rejection sampling", "right answers of the base, which stays as it is",
            dict(self_sft=dict(sampler="start"))),
    self_sft=(SELF, "self-SFT", "own right answers, fresh every 128 routes: positives alone", {}),
    self_sft_eps=(SELF, "self-SFT, eps 1e-4", "the same, small gradients take small steps", EPS),
    signed=(SIGNED, "REINFORCE++", "own answers, right ones up and wrong ones down", {}),
    signed_eps=(SIGNED, "REINFORCE++, eps 1e-4", "the same, small gradients take small steps", EPS),
    ppo=(PPO, "PPO", "signed, with a value function and a clip", {}))
NAMES = {method: label for method, (_, label, *_) in ARMS.items()}
OWN, EXPERT = ("self_sft", "signed", "ppo"), ("sft", "dagger")
LEVELS = {1.0: (0.8, 0.9), 0.0: (0.9,)}   # success in distribution at which (a) and (b) compare, by temperature
CLAIMS = (
    *(claim(own, expert, temperature=temperature, matched=level, sign=1,
            text=f"(a) at {100 * level:g}% in distribution {NAMES[own]} is above {NAMES[expert]} under the shift")
      for temperature, levels in LEVELS.items() for level in levels for own in OWN for expert in EXPERT),
    claim("frozen", "sft", matched=0.8, most=0.03, text="(b) rejection sampling is at most 3 points above SFT at 80%"),
    claim("self_sft", "frozen", matched=0.8, sign=1, text="(b) and self-SFT, whose answers are fresh, is above it"),
    claim("sft_eps", "sft", least=0.04, text="(c) eps 1e-4 alone keeps 4 points of the shift for SFT"),
    claim("sft_eps", "sft", "id", least=-0.08, text="(c) and costs SFT less than 8 points in distribution"),
    claim("self_sft_eps", "self_sft", least=0.04, text="(c) eps 1e-4 alone keeps 4 points of it for self-SFT"),
    claim("self_sft_eps", "self_sft", "id", least=-0.08, text="(c) and costs self-SFT less than 8 points"),
    claim("self_sft_eps", "ppo", least=-0.04, text="(d) self-SFT with eps 1e-4 is at most 4 points below PPO there"),
    claim("self_sft_eps", "ppo", most=0.04, text="(d) and at most 4 points above"),
    claim("self_sft", "self_sft", matched=0.9, most=-0.08,
          text="(e) from 90% in distribution to its end self-SFT falls by 8 points under the shifted actions"),
    claim("sft", sign=-1, temperature=0.0, text="SFT on expert answers lowers the rate under the shifted actions"),
    claim("ppo", sign=1, text="PPO raises it"),
    claim("self_sft_eps", sign=1, text="so does self-SFT with eps 1e-4, without any sign"))


def get_config(choice=""):
  if choice not in ("", "quick"):
    raise ValueError(f"choice is {choice!r}; it must be 'quick' or left out.")
  config = ConfigDict()
  evals = dict(variants=("id", "rule_ood"), kl_episodes=128, expert_episodes=0)
  config.study = dict(
      name="From SFT to RL on V-IRL: which knob carries a shift of the actions?",
      claim="What gains under the shift is training on the policy's own fresh right responses; not the sign, and not "
            "own states alone.",
      bases=3 if choice else 5,
      base="" if choice else f"{HOME}/base.py",
      shipped="virl",
      methods={method: file for method, (file, *_) in ARMS.items()},
      labels=NAMES,
      notes={method: note for method, (_, _, note, _) in ARMS.items()},
      overrides={method: dict(evals=evals, **own) for method, (*_, own) in ARMS.items()},
      claims=CLAIMS,
      reference="sft",
      measure="per_step",
      flops=2e12,
      id="id",
      ood="rule_ood",
      eval_episodes=256,
      at={method: (0.02, 0.06, 0.15, 0.4) if method.startswith("sft") else (0.06, 0.15, 0.3, 0.5) for method in ARMS},
      jobs=2,
      disclosure=(
          "The claims were carried over from GeneralPoints. The runs of virl_cpu.py, SFT at three settings and PPO, "
          "had been seen: SFT passes through 100% under the shifted actions on its way, so that (a) and what is "
          "claimed of SFT's end are not expected to hold as they stand.",
          "The levels of (a), (b) and (e) were set without a run, between the bases' 62 to 74% (greedy) and 100%.",
          "Rates, batches and the two epsilons are those of configs/virl."))
  return config
