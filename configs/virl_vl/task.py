"""V-IRL from pictures on a CPU: what recitation, base, SFT and PPO share, word for word."""

from ml_collections import ConfigDict

VARIANTS = ("id", "rule_ood", "city_ood", "visual_ood")
VIEW = 48         # pixels of a view's side; a sign of up to 11 letters is as wide
VIEWS = 4         # of a picture: front and right above, back and left below; each is one token
POINTS = 5        # of the longest route, each with a picture
PROMPT = 27 + VIEWS    # tokens: bos, the words of the actions, four lines, SEE and the first picture
FEEDBACK = 2 + VIEWS   # SEE CROSSING and a picture
RESPONSE = 6           # cafe LINE 3 TURN northwest and the end
ROUTE = 78        # places of the longest route in a row; with every point wrong once 113


def shared(**env) -> ConfigDict:
  """Routes of two legs, a picture of 96 x 96 pixels at every point, two tries a point; 476k parameters."""
  config = ConfigDict()
  config.seed = 0
  # Three in four points on the way have a sign that the instruction does not name: else no sign need be read.
  config.env = {**dict(name="virl", style="compact", vision=True, pixels=VIEW, legs=2, straight=2, drop=0.5, tries=2,
                       distractors=0.75), **env}
  config.start = "runs/virl_vl_base"
  config.tokenizer = dict(name="words")
  config.model = dict(
      name="tiny_vlm", width=64, layers=3, heads=4, mlp="plain", activation="relu", remat="none", unroll=3,
      image_height=2 * VIEW, image_width=2 * VIEW, cell=VIEW, connector=256, images=POINTS)
  config.rollout = dict(rows=128, prompt_tokens=PROMPT, feedback_tokens=FEEDBACK, feedback_images=1,
                        max_new_tokens=RESPONSE, temperature=1.0)
  config.evals = dict(variants=VARIANTS, episodes=256, expert_episodes=48, kl_episodes=128)
  # The tower at a third of the rate, as in configs/general_points_vl.
  config.optimizer = dict(name="adamw", learning_rate=3e-4, clip=1.0, factors={"model/vision/*": 1 / 3})
  config.mesh = dict(cpu_threads=1)
  return config


def before_training(**env) -> ConfigDict:
  """What is learned before post-training: every landmark, look and action space; evaluated as post-training is."""
  config = shared(**{**dict(space="mixed", pool="all", look="any"), **env})
  config.evals.update(env=dict(space="absolute", pool="known", look="day", answer="action", tries=2), at=(), kl=False,
                      episodes=128, temperatures=(0.0,))
  return config
