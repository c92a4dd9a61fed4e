r"""Does RL keep more of the shifted rule when it trains with more attempts at a hand, as in the paper's figure 10?

  sftrl study --config=configs/study/settings/attempts_cpu.py --workdir=runs/attempts           (three bases, two cores)

Hardware: two CPU cores. Minutes: 18, beside other work.
Result: claims 2 and 3 hold, 1, 4 and 5 are not shown. On rule_ood, greedy, PPO with 1, 3, 5, 10 attempts gains 6.5,
7.4, 5.9 and 6.4 points from 15.6%; 10 attempts minus 1: -0.2 (-3.4 to +3.1), at T = 1 -7.5 (-14.0 to -1.1). Equal FLOPs
buy 80, 33, 20 and 9 iterations. At the same success in training, 10 attempts are 2.1 points (-1.7 to +5.9) above 1.

PPO on GeneralPoints with 1, 3, 5 and 10 attempts an episode, at equal FLOPs, from the same three bases that slip
(configs/general_points/base.py:slips, from which PPO gains under the shifted rule). All are evaluated in one attempt,
since an evaluation may not have more attempts than the run was built for. An episode of more attempts has more tokens,
so more attempts mean fewer episodes and updates here.

Claims, written before any run (greedy, rule_ood, in one attempt; each holds if both intervals over bases say so):
  1. to 4. PPO with 1, 3, 5, 10 attempts raises success above its start;
  5. PPO with 10 attempts ends above PPO with 1 (the paper: +5.99 against +0.48 points).
"""

from ml_collections import ConfigDict

ATTEMPTS = (1, 3, 5, 10)


def get_config(choice=""):
  if choice:
    raise ValueError(f"choice is {choice!r}, but this study has none.")
  methods = {f"ppo_{count}": count for count in ATTEMPTS}
  config = ConfigDict()
  config.study = dict(
      name="PPO on GeneralPoints with more or fewer attempts",
      claim="With more attempts at a hand during RL, more is gained under the shifted rule at equal FLOPs.",
      bases=3,
      base="configs/general_points/base.py:slips",
      methods=dict.fromkeys(methods, "configs/general_points/ppo.py"),
      overrides={method: dict(env=dict(attempts=count), evals=dict(env=dict(attempts=1)))
                 for method, count in methods.items()},
      labels={method: f"PPO, {count} attempt{'s' * (count > 1)}" for method, count in methods.items()},
      reference="ppo_1",
      flops=7.5e11,
      id="id_seen",
      ood="rule_ood",
      eval_episodes=384,
      at=(0.5,),
      jobs=2,
      claims=(*(dict(method=method, sign=1) for method in methods), dict(method="ppo_10", comparison="ppo_1", sign=1)),
      disclosure=("The budget is a quarter of the one in general_points_cpu.py, so that the study ends in 15 minutes.",
                  "The bases that slip were chosen after base 0 of general_points_slips_cpu.py had been seen.",
                  "A base has seen hands of up to 3 attempts.",
                  "The reward of an episode adds the failures of all its attempts, as in the paper."))
  return config
