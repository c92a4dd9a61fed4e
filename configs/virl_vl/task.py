"""V-IRL from pictures on a CPU: what the base, SFT and PPO share, word for word."""

from ml_collections import ConfigDict

VARIANTS = ("id", "rule_ood", "city_ood", "visual_ood")
PROMPT = 32     # tokens: bos, a feature a view, the words of the space, two turns and landmarks
FEEDBACK = 6    # tokens: a feature a view, SEE CROSSING
RESPONSE = 6    # tokens: what is seen, LINE and its number, TURN and its word, the end
POINTS = 5      # of the longest route
ROW = PROMPT + POINTS * RESPONSE + (POINTS - 1) * FEEDBACK - 1   # the last token is only a target


def shared(**env) -> ConfigDict:
  """Routes of two legs whose points are four views of 64 pixels, two tries a point; a vision-language model."""
  config = ConfigDict()
  config.seed = 0
  config.env = {**dict(
      name="virl", vision=True, style="compact", legs=2, straight=2, drop=0.5, tries=2, distractors=0.75), **env}
  config.start = "runs/virl_vl_base"
  config.tokenizer = dict(name="words")
  config.model = dict(
      name="tiny_vlm", width=64, layers=3, heads=4, mlp="plain", activation="relu", remat="none", unroll=3,
      image_height=128, image_width=128, cell=64, images=POINTS)
  config.rollout = dict(rows=64, prompt_tokens=PROMPT, feedback_tokens=FEEDBACK, feedback_images=1,
                        max_new_tokens=RESPONSE, temperature=1.0)
  config.evals = dict(variants=VARIANTS, episodes=128, expert_episodes=48, temperatures=(0.0,), kl=False)
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0, factors={"model/vision/*": 1 / 3},
                          args=dict(b2=0.98))
  config.mesh = dict(cpu_threads=1)
  return config


def before_training(**env) -> ConfigDict:
  """What is learned before post-training, of both looks, every landmark and both action spaces."""
  config = shared(**{**dict(space="mixed", pool="all", look="any"), **env})
  config.evals.update(env=dict(space="absolute", pool="known", look="day", distractors=0.75), at=())
  return config
