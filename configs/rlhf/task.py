"""What RLHF by PPO and by GRPO share: the chat model of configs/sft/chat.py, prompts, and sizes."""

from pathlib import Path

from configs.sft import chat

PAIRS = Path(__file__).parents[1] / "preference" / "pairs_sample.jsonl"


def shared():
  """The model, the prompts and the sizes; without an algorithm."""
  config = chat.get_config()
  del config.data
  config.steps = 200
  config.batch = 64
  config.env = dict(name="prompts", path=str(PAIRS), held_out=0.2)
  config.reward_model = dict(start="", missing_eos=-1.0)  # give it: --config.reward_model.start=WORKDIR
  config.rollout = dict(rows=64, prompt_tokens=256, feedback_tokens=1, max_new_tokens=128, temperature=1.0)
  config.evals = dict(variants=("held_out",), episodes=64, every=20, kl_episodes=64)
  config.optimizer = dict(name="adamw", learning_rate=1e-6, clip=1.0)
  config.schedule = dict(name="constant", warmup=10)
  config.compute = dict(microbatches=4, logit_chunk=128)
  config.checkpoint = dict(every=20, keep=3)  # an earlier step is wanted where the reward model was exploited
  return config
