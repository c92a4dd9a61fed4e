r"""From which checkpoint does RL work: from none, from a base in the window, from one over-tuned by SFT?

  sftrl study --config=configs/study/settings/starts_cpu.py --workdir=runs/starts               (three bases, two cores)

Hardware: two CPU cores. Minutes: 11, beside other work, and 5 for the bases.
Result: claims 1, 3 and 5 hold. From scratch PPO solves nothing (no reward ever differs). SFT lowers rule_ood from 24.5%
to 7.1%, and PPO after it ends at 6.7%, 25.5 points (-49.5 to -1.6) below PPO from the base: it recovers nothing. That
this is below 15% (-5.3 to 18.7) and that PPO from the base rises (+7.7, -4.2 to +19.7) three bases do not show by the
t interval; by the bootstrap they do.

The same PPO on GeneralPoints, at the same FLOPs, from three starts: random weights (the paper's raw model), a base that
slips (configs/general_points/base.py:slips; the paper's checkpoint in the window), and the end of SFT from that base,
which knows the training rule and has lost the shifted one (the paper's over-tuned checkpoint).

Claims, written before any run (greedy, within 3 attempts; each holds if both intervals over bases say so):
  1. from scratch, PPO ends below 2 points on id_seen (the paper: 0 to 0.4%);
  2. from the base, PPO raises rule_ood;
  3. SFT lowers rule_ood;
  4. after SFT, PPO ends below 15 points on rule_ood: it does not recover what SFT lost (the paper: below 1.5%);
  5. after SFT, PPO ends below PPO from the base on rule_ood.
"""

from ml_collections import ConfigDict

PPO = "configs/general_points/ppo.py"


def get_config(choice=""):
  if choice:
    raise ValueError(f"choice is {choice!r}, but this study has none.")
  config = ConfigDict()
  config.study = dict(
      name="PPO on GeneralPoints from three starts",
      claim="RL keeps and raises the shifted rule from a start in the window only: not from random weights, and not "
            "from a checkpoint that SFT has tuned for too long.",
      bases=3,
      base="configs/general_points/base.py:slips",
      methods=dict(sft="configs/general_points/sft.py", ppo_scratch=PPO, ppo_base=PPO, ppo_sft=PPO),
      bases_of=dict(ppo_scratch="scratch", ppo_sft="sft"),
      labels=dict(sft="SFT", ppo_scratch="PPO from scratch", ppo_base="PPO from the base", ppo_sft="PPO after SFT"),
      notes=dict(sft="its end is the start of PPO after SFT",
                 ppo_sft="its start has lost the shifted rule; its FLOPs are counted from there"),
      reference="ppo_base",
      flops=1e12,
      id="id_seen",
      ood="rule_ood",
      eval_episodes=384,
      at=(0.5,),
      jobs=2,
      claims=(dict(method="ppo_scratch", variant="id_seen", comparison="", most=0.02),
              dict(method="ppo_base", sign=1), dict(method="sft", sign=-1),
              dict(method="ppo_sft", comparison="", most=0.15), dict(method="ppo_sft", comparison="ppo_base", sign=-1)),
      disclosure=("The budget is a third of the one in general_points_cpu.py, so that the study ends in 15 minutes.",
                  "That SFT loses rule_ood on such bases at 1.5e12 FLOPs had been seen on base 0 of "
                  "general_points_slips_cpu.py."))
  return config
