"""GeneralPoints from pictures on a CPU: what the base, SFT and PPO share, word for word."""

from ml_collections import ConfigDict

VARIANTS = ("id_seen", "id_unseen", "rule_ood", "red", "deck1", "night")
PROMPT = 10     # tokens: bos, a feature a card, rule and target
RESPONSE = 17   # tokens: cards, numbers, a formula of up to 7, and the end


def shared(**env) -> ConfigDict:
  """Three cards in one picture of 96 x 32 pixels, any reachable target; a vision-language model of 239k parameters."""
  config = ConfigDict()
  config.seed = 0
  config.env = {**dict(
      name="general_points", vision=True, style="recite", target="any", cards=3, faces=10, attempts=2, holdout=0.25,
      # The paper's 5, -1, -2, -3 over 5, and of misread cards -1.5.
      rewards=(1.0, -0.2, -0.4, -0.6, -0.3), look="plain", suits="black", noise=0.6, contrast=0.4, jitter=True), **env}
  config.start = "runs/gp_vl_base"
  config.tokenizer = dict(name="words")
  config.model = dict(
      name="tiny_vlm", width=64, layers=3, heads=4, mlp="plain", activation="relu", remat="none", unroll=3,
      image_height=32, image_width=96, pixel_scale=2.5)   # over the contrast: pixels of a clean card are -1 to 1
  config.rollout = dict(
      rows=256, prompt_tokens=PROMPT, feedback_tokens=1, max_new_tokens=RESPONSE, temperature=1.0)
  config.evals = dict(variants=VARIANTS, episodes=384, kl_episodes=128)
  # One rate for tower and decoder breaks PPO on a base that reads less well.
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0, factors={"model/vision/*": 1 / 3},
                          args=dict(b2=0.98))
  config.mesh = dict(cpu_threads=1)
  return config


def before_training(**env) -> ConfigDict:
  """What is learned before post-training, of every look, suit and rule; evaluated as post-training is."""
  config = shared(**{**dict(faces="mixed", holdout=0.0, look="any", suits="any"), **env})
  config.evals.update(env=dict(faces=10, holdout=0.25, look="plain", suits="black", noise=0.6, answer="formula"), at=(),
                      kl=False, episodes=128, temperatures=(0.0,))
  return config
