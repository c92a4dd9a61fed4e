r"""SFT, PPO and GRPO on GeneralPoints from a real chat model, SmolLM2-135M-Instruct, at equal FLOPs.

  sftrl study --config=configs/study/general_points_smollm2.py --workdir=runs/smollm2             (an accelerator)
  sftrl study --config=configs/study/general_points_smollm2.py:short --workdir=runs/smollm2       (two CPU cores)

Hardware: one accelerator, or two CPU cores for `short`. Minutes: not measured (short: 80 beside other work).
Result: not run on an accelerator yet. `short` shows that every part works on a real model, and no effect: 40 updates of
SFT take legal answers from 0 to 32 of 32 hands and right ones from 0 to 3 (within three attempts, greedy); from there
23 updates of SFT end at 7 and three iterations of PPO and of GRPO, 32 episodes each, at 5: chance may do that.

A chat model neither knows the form of the answer nor is careless about the target, so each base is first fine-tuned on
the mixture of configs/general_points/base.py: the unit of the statistics is the seed of that first stage.
"""

from ml_collections import ConfigDict

CLAIM = ("From the same real model, at equal FLOPs and under one verifier, RL keeps what it can do under the shifted "
         "rule, and SFT loses it.")


def get_config(choice=""):
  if choice not in ("", "short"):
    raise ValueError(f"choice is {choice!r}; it must be 'short' or left out.")
  short = choice == "short"
  config = ConfigDict()
  config.study = dict(
      name="SFT, PPO and GRPO on GeneralPoints from SmolLM2-135M" + (" (short: a demonstration)" if short else ""),
      claim=CLAIM,
      bases=1 if short else 3,
      seeds=1,
      base="configs/general_points/base.py:smollm2",
      methods=dict(sft="configs/general_points/sft.py:smollm2", ppo="configs/general_points/ppo.py:smollm2",
                   grpo="configs/general_points/grpo.py:smollm2"),
      labels=dict(sft="SFT", ppo="PPO", grpo="GRPO"),
      flops=4e13 if short else 1e16,
      id="id_seen",
      ood="rule_ood",
      eval_episodes=32 if short else 512,
      at=() if short else (0.1, 0.2, 0.5),
      jobs=1,
      disclosure=("The model's weights are 4-bit ones, dequantised: slightly below the original of the hub.",))
  if short:
    fewer = dict(model=dict(remat="light"), rollout=dict(rows=32),
                 evals=dict(temperatures=(0.0,), variants=("id_seen", "rule_ood"), episodes=32, at=(), kl=False))
    config.study.overrides = dict(
        base=dict(fewer, steps=40, batch=8, compute=dict(microbatches=2)),
        sft=dict(fewer, batch=8, compute=dict(microbatches=2)),
        # The result above was made with rows of one length, each whole.
        **{method: dict(fewer, batch=32, compute=dict(lengths=1, share_prompts=False)) for method in ("ppo", "grpo")})
  return config
