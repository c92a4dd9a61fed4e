r"""GRPO on GeneralPoints: answers to one hand are judged against each other. PPO's task, without a value function.

  sftrl rl --config=configs/general_points/grpo.py --workdir=runs/gp_grpo
  sftrl rl --config=configs/general_points/grpo.py:smollm2 --workdir=runs/smollm2_grpo       (an accelerator)
  sftrl rl --config=configs/general_points/grpo.py:qwen2.5-0.5b --workdir=runs/qwen_grpo     (an accelerator)
  sftrl rl --config=configs/general_points/grpo.py:llama3.2-1b --workdir=runs/llama_grpo     (an accelerator)
  sftrl rl --config=configs/general_points/grpo.py:llama3.2-3b --workdir=runs/llama_grpo     (an accelerator)

Hardware: one CPU core. Minutes: 3.
Result: from base 0, one seed, 512 hands (4 points on either side): id_seen goes from 36% to 53% greedy and from 42% to
60% at T = 1, rule_ood from 32% to 30% greedy and from 39% to 38%. PPO is ahead at equal FLOPs: 47% against 43% greedy
and 57% against 50% at T = 1 on id_seen at 1.2e12.

All turns of an episode share its advantage, right and wrong ones alike; a value function tells them apart. An episode
that fails has three answers and one that succeeds may have one, so the mean is over each episode's tokens first: at
1.2e12 FLOPs, mean="token" and scale=True had 36% greedy and 48% at T = 1 on id_seen.
"""

from configs.general_points import task


def get_config(choice=""):
  config = task.shared(choice)
  config.steps = 10_000  # the budget ends the run
  config.flops = 3e12
  config.batch = 256
  config.algorithm = "grpo"
  config.grpo = dict(group=8, epochs=1, minibatches=4, clip=0.2, scale=False, mean="sequence", kl_coef=0.0)
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0)
  config.schedule = dict(name="constant", warmup=10)
  # microbatches: what fits a core's cache. The published figures were made with rows of one length, each whole.
  config.compute = dict(microbatches=4, lengths=1, share_prompts=False)
  config.checkpoint = dict(every=40, keep=2)
  config.log = dict(every=1)
  return real(config, choice) if choice in task.PRETRAINED else config


def real(config, choice):
  """What a model of a hundred million parameters and more wants instead."""
  config.flops = 1e16
  config.batch = 128
  config.optimizer.learning_rate = 1e-5
  config.compute = task.compute(choice, microbatches=4)   # each has a whole group, whose prompt is computed once
  config.checkpoint.every = 20
  return config
