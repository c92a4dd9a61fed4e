r"""SFT on GeneralPoints: right answers under J = Q = K = 10. What becomes of the hands where they are 11, 12, 13?

  sftrl sft --config=configs/general_points/sft.py --workdir=runs/gp_sft
  sftrl sft --config=configs/general_points/sft.py:all_7 --workdir=runs/all_7_sft   (faces count as 7)
  sftrl sft --config=configs/general_points/sft.py:five_cards --workdir=runs/five_cards_sft   (after base.py:five_cards)
  sftrl sft --config=configs/general_points/sft.py:cot --workdir=runs/cot_sft   (after base.py:cot)
  sftrl sft --config=configs/general_points/sft.py:chosen --workdir=runs/gp_chosen   (pairs of reward.py in this folder)
  sftrl sft --config=configs/general_points/sft.py:smollm2 --workdir=runs/smollm2_sft       (an accelerator)
  sftrl sft --config=configs/general_points/sft.py:qwen2.5-0.5b --workdir=runs/qwen_sft     (an accelerator)
  sftrl sft --config=configs/general_points/sft.py:llama3.2-1b --workdir=runs/llama_sft     (an accelerator)
  sftrl sft --config=configs/general_points/sft.py:llama3.2-3b --workdir=runs/llama_sft     (an accelerator)

Hardware: one CPU core. Minutes: 3.
Result: on five bases, greedy, within 3 attempts, id_seen goes from 34% to 99%, and rule_ood from 31% to 2%. The paper's
claim in small: SFT memorizes.
"""

from configs.general_points import task


def get_config(choice=""):
  config = task.shared("" if choice == "chosen" else choice)
  config.steps = 100_000  # the budget ends the run
  config.flops = 3e12
  config.batch = 64
  # 23: a prompt of 11 and a response of 13, the last token only a target
  config.data = dict(length=task.GAMES[choice]["row"] if choice in task.GAMES else 23)
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0)
  config.schedule = dict(name="constant", warmup=20)
  config.compute = dict(microbatches=2)  # what fits a core's cache
  config.checkpoint = dict(every=500, keep=2)
  config.log = dict(every=10)
  if choice == "chosen":
    return preferred(config)
  return real(config, choice) if choice in task.PRETRAINED else config


def preferred(config):
  """The preferred answer of every pair in the place of the expert's; what the pairs have cost is in the budget."""
  config.data = dict(path="runs/gp_reward/pairs.jsonl", format="chosen", flops="recorded", length=23, pack=False)
  return config


def real(config, choice):
  """What a model of a hundred million parameters and more wants instead."""
  config.flops = 1e16
  config.batch = 32
  config.data = dict(length=256)  # two or three examples, packed
  config.optimizer.learning_rate = 3e-5
  config.compute = task.compute(choice, microbatches=4)
  config.checkpoint.every = 100
  return config
