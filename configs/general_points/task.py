"""The small GeneralPoints task: what SFT and RL share, word for word."""

from ml_collections import ConfigDict


def shared(**env) -> ConfigDict:
  """Three cards, any reachable target, the rule's values in the prompt, a decoder of 150k parameters."""
  config = ConfigDict()
  config.seed = 0
  config.start = "base:general_points_0"
  config.env = {**dict(
      name="general_points", target="any", cards=3, faces=10, attempts=3, style="compact", holdout=0.25,
      rewards=(1.0, -0.2, -0.4, -0.6)), **env}  # rewards: the paper's 5, -1, -2, -3 over 5
  config.tokenizer = dict(name="words")
  config.model = dict(width=64, layers=3, heads=4, mlp="plain", activation="relu", remat="none", unroll=3)
  config.rollout = dict(rows=256, prompt_tokens=11, feedback_tokens=1, max_new_tokens=13, temperature=1.0)
  config.evals = dict(variants=("id_seen", "id_unseen", "rule_ood"), episodes=1024)
  config.mesh = dict(cpu_threads=1)
  return config
