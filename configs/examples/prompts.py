r"""Prompts of a file and a reward function of your own, of the form that TRL calls: GRPO on a few letters.

  sftrl rl --config=configs/examples/prompts.py --workdir=runs/prompts

Hardware: two CPU cores. Minutes: 2.
Result: the mean reward of sampled responses rises from 0.03 to 0.48, and from 0.03 to 0.52 on prompts held out.

--config.env.path=FILE.jsonl plays prompts of your own, --config.reward=path/to/file.py:function calls your function.
The file has the columns `prompt` and `answer`, and the reward of a response is the share of its characters that are the
answer's letter. A tenth of the prompts is held out: the variant held_out plays them. No response is right or wrong
here, so `success` stays 0, and `proxy` of an evaluation is the mean reward.
"""

from pathlib import Path

from ml_collections import ConfigDict


def letters(prompts, completions, answer, **kwargs):
  """The share of every response's characters that are the answer, and a little for any letter: one reward each."""
  kwargs["log_metric"]("exact", sum(map(str.__eq__, completions, answer)) / len(answer))
  return [(text.count(letter) + 0.1 * sum(map(str.isalpha, text))) / max(1, len(text))
          for text, letter in zip(completions, answer, strict=True)]


def get_config():
  return ConfigDict(dict(
      steps=60, batch=128, env=dict(name="prompts", path=str(Path(__file__).with_name("prompts_sample.jsonl"))),
      reward=f"{__file__}:letters", tokenizer=dict(name="bytes"), algorithm="grpo", grpo=dict(group=8, minibatches=2),
      model=dict(layers=2, width=32, remat="none"), optimizer=dict(learning_rate=3e-3),
      rollout=dict(prompt_tokens=24, feedback_tokens=1, max_new_tokens=4, rows=128),
      evals=dict(variants=("id", "held_out"), episodes=64)))
