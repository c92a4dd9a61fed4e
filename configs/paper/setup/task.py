"""The tasks of "SFT Memorizes, RL Generalizes" (arXiv 2501.17161), in language and from pictures: what its SFT and PPO
share.

Choices in language: "8b" is Llama-3.1-8B-Instruct from the hub, which is the paper's model without what reads pictures.
From pictures: "11b" is the paper's Llama-3.2-11B-Vision-Instruct, "smolvlm" is SmolVLM-256M-Instruct for one GPU, with
20 times the rates, which nobody has tried. "numbers", "11b_numbers" and "smolvlm_numbers" are the same models in
numbers, with random weights over bytes, so that `sftrl plan` needs neither weights nor network; the text in their rows
is three times as long, as bytes are shorter than tokens. No choice is a toy, which shows the way on a laptop.
"""

from ml_collections import ConfigDict

from configs.paper.setup.models import HUB, NUMBERS, SMALL, TOKENS

# The correct environments, as the paper's text has them; env.legacy=True is its released code. Views have 1,200 pixels
# in the paper, and the model shrinks four of them to 1,120.
_CARDS = dict(name="general_points", target=24, cards=4, faces=10, deck="52", attempts=5, style="paper", holdout=0.0,
              rewards=(5.0, -1.0, -2.0, -3.0))   # and of misread cards -1.5
_ROUTES = dict(name="virl", style="paper", space="absolute", tries=2, straight=5, drop=0.5, rewards=(1.0, -1.0, -1.5))
ENVS = {"gp_l": _CARDS, "virl_l": _ROUTES,
        "gp_vl": dict(_CARDS, vision=True, suits="black"), "virl_vl": dict(_ROUTES, vision=True, pixels=560)}
TOYS = {"gp_l": dict(style="compact"), "virl_l": dict(style="compact", legs=3, straight=2),
        "gp_vl": dict(style="recite"), "virl_vl": dict(style="compact", legs=3, straight=2, pixels=64)}
# A picture of the toys has a row of 4 cards, or 2 x 2 views; a route is one chat of 7 points.
TOY_MODELS = {"gp_vl": dict(name="tiny_vlm", image_height=32, image_width=128),
              "virl_vl": dict(name="tiny_vlm", image_height=128, image_width=128, images=7)}
VARIANTS = {"gp_l": ("id_seen", "rule_ood"), "virl_l": ("id", "rule_ood", "city_ood"),
            "gp_vl": ("id_seen", "rule_ood", "red"), "virl_vl": ("id", "rule_ood", "visual_ood", "city_ood")}
EPISODES = {"gp_l": 256, "virl_l": 64, "gp_vl": 256, "virl_vl": 64}   # the paper plays 234 hands and 48 routes
SFT_RATES = {"gp_l": 1e-6, "virl_l": 1e-6, "gp_vl": 5e-7, "virl_vl": 5e-7}
PPO_RATES = {"gp_l": 1e-6, "virl_l": 1e-6, "gp_vl": 1e-6, "virl_vl": 1e-7}


def shared(task: str, choice: str, start: str) -> ConfigDict:
  """Task, model, tokens and evaluation. task: a key of ENVS; start: of a choice of weights, "" for those of the hub,
  with "_small" behind it for "smolvlm"; the others have random weights."""
  known = [name for name, tokens in TOKENS.items() if task in tokens]
  if choice not in known:
    hint = "'8b' reads text as '11b' does; " if choice == "11b" else ""
    raise ValueError(f"choice is {choice!r}, but {task} has {', '.join(map(repr, filter(None, known)))} or none, and "
                     f"PPO each with '_token' behind it, or 'token' ({hint}see configs/paper/setup/task.py).")
  tokens = TOKENS[choice][task]
  config = ConfigDict()
  config.seed = 42 if task.startswith("gp") else 12
  config.env = dict(ENVS[task]) if choice else {**ENVS[task], **TOYS[task]}
  start = start and start + "_small" * (choice in SMALL)
  config.start = (start or HUB[choice]) if choice in HUB else "scratch"
  config.tokenizer = dict(name="pretrained" if choice in HUB else "bytes" if choice else "words")
  config.model = dict(name="pretrained", dtype="bfloat16") if choice in HUB else (
      dict(NUMBERS[choice]) if choice else dict(TOY_MODELS.get(task, {}), width=64, layers=2, heads=4))
  config.rollout = dict(rows=64, prompt_tokens=tokens["prompt"], feedback_tokens=tokens["feedback"],
                        max_new_tokens=tokens["response"], temperature=0.2, shrink=())
  if task == "virl_vl" and not choice:
    config.rollout.carry = False   # every message of its one chat has a picture
  # The paper evaluates with the checkpoint's own settings: temperature 0.6.
  config.evals = dict(variants=VARIANTS[task], episodes=EPISODES[task], temperatures=(0.0, 0.6), kl=False)
  config.mesh = dict(fsdp=-1)
  return config


def supervised(task: str, choice: str, start: str, steps: int, warmup: int) -> ConfigDict:
  """SFT on the expert's answers, 128 an update: one right answer to a prompt; in V-IRL at a random point of a route.

  The paper declares a cosine, but its DeepSpeed settings replace it by a warm-up and then a constant rate, which this
  has. warmup: updates
  """
  config = shared(task, choice, start)
  tokens = TOKENS[choice][task]
  config.steps = steps
  config.batch = 128 // tokens["examples"]
  if choice and task.endswith("_vl") and tokens["examples"] > 1:
    config.model.images = tokens["examples"]   # one each
  config.data = dict(length=tokens["row"], choices=4)
  config.optimizer = dict(name="adamw", learning_rate=_rate(SFT_RATES, task, choice), clip=1.0,
                          args=dict(b2=0.98, eps=1e-7))
  config.schedule = dict(name="constant", warmup=warmup)
  config.compute = dict(microbatches=config.batch // 16, logit_chunk=256)
  config.checkpoint = dict(every=100, keep=4)
  config.log = dict(every=5)
  return config


def ppo(task: str, choice: str, updates: int, episodes: int, half_period: int) -> ConfigDict:
  """PPO with a turn as the action. A choice may end in "token" ("8b_token"): the token-level twin.

  updates: iterations, each of `episodes` episodes, in place of the paper's 2,048 turns; half_period: iterations in
  which the cosine goes down to 1e-9. Eight optimizer updates an iteration, as in the paper: 4 epochs of 2 minibatches.
  """
  weights, _, level = choice.rpartition("_") if choice.endswith("token") else (choice, "", "turn")
  config = shared(task, weights, f"runs/{task}_init")
  config.steps = updates
  config.batch = episodes
  config.algorithm = "ppo"
  config.ppo = dict(
      level=level, thought_weight=0.5 if level == "turn" else 1.0, epochs=4, minibatches=2, clip=0.1, value_clip=0.1,
      value_coef=0.5, entropy_coef=0.0, kl_coef=0.0, gamma=1.0, turn_gamma=0.9, gae_lambda=0.95, whiten=True,
      truncation="end", value_gradient=True, value_layers=(1024, 512), ratio_cap=10.0)
  config.optimizer = dict(name="adamw", learning_rate=_rate(PPO_RATES, task, weights), clip=1.0,
                          args=dict(b2=0.999, eps=1e-7))
  config.schedule = dict(name="cosine", updates=8 * half_period, end=1e-3)
  # Of V-IRL from pictures 2,496 rows, each with a picture and 32 at once; else 16 episodes.
  pieces = 78 if task == "virl_vl" and weights else episodes // 2 // 16
  config.compute = dict(microbatches=pieces, logit_chunk=256)
  config.checkpoint = dict(every=5, keep=4)
  config.log = dict(every=1)
  return config


def _rate(rates: dict, task: str, choice: str) -> float:
  """A small model learns at 20 times the paper's rate."""
  return rates[task] * (20 if choice in SMALL else 1)
