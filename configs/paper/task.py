"""The two tasks in language of "SFT Memorizes, RL Generalizes" (arXiv 2501.17161): what its SFT and PPO share.

Choices: "8b" is Llama-3.1-8B-Instruct from the hub. "numbers" is the same model in numbers, with random weights over
bytes, so that `sftrl plan` needs neither weights nor network; its rows are three times as long, as bytes are shorter
than tokens. No choice is a toy in the compact style, which shows the way on a laptop. The paper's model,
Llama-3.2-11B-Vision, is the text model of "8b" with layers that read images (choice "11b", an error until vision is
built). Token counts of "8b" were measured with its tokenizer on 500 hands and 150 routes.
"""

from ml_collections import ConfigDict

LLAMA = dict(vocab=128256, width=4096, layers=32, heads=32, kv_heads=8, head_dim=128, mlp_dim=14336, norm_eps=1e-5,
             rope_theta=5e5, rope_scaling="llama3", rope_factor=8.0, rope_low=1.0, rope_high=4.0, rope_context=8192)
HUB = "meta-llama/Llama-3.1-8B-Instruct"
# The correct environments, as the paper's text has them; env.legacy=True is its released code.
ENVS = {
    "gp_l": dict(name="general_points", target=24, cards=4, faces=10, deck="52", attempts=5, style="paper", holdout=0.0,
                 rewards=(5.0, -1.0, -2.0, -3.0)),
    "virl_l": dict(name="virl", style="paper", space="absolute", tries=2, straight=5, drop=0.5,
                   rewards=(1.0, -1.0, -1.5))}
TOYS = {"gp_l": dict(style="compact"), "virl_l": dict(style="compact", legs=3, straight=2)}
VARIANTS = {"gp_l": ("id_seen", "rule_ood"), "virl_l": ("id", "rule_ood", "city_ood")}
EPISODES = {"gp_l": 256, "virl_l": 64}   # of an evaluation; the paper plays 234 hands and 48 routes
# row: tokens of a row of SFT, which holds `examples` of them on average
TOKENS = {
    "8b": {"gp_l": dict(prompt=208, feedback=56, response=96, row=256, examples=1),
           "virl_l": dict(prompt=832, feedback=96, response=96, row=896, examples=2)},
    "": {"gp_l": dict(prompt=16, feedback=2, response=20, row=48, examples=1),
         "virl_l": dict(prompt=36, feedback=3, response=6, row=128, examples=2)},
    "numbers": {"gp_l": dict(prompt=576, feedback=136, response=128, row=640, examples=1),
                "virl_l": dict(prompt=2944, feedback=320, response=256, row=3072, examples=2)}}


def shared(task: str, choice: str, start: str) -> ConfigDict:
  """Task, model, tokens and evaluation. task: a key of ENVS; start: of "8b"; the others have random weights."""
  if choice == "11b":
    raise ValueError("choice is '11b', Llama-3.2-11B-Vision, which reads images, and vision is not built: use '8b'.")
  if choice not in TOKENS:
    raise ValueError(f"choice is {choice!r}; it must be '8b', 'numbers' or left out, for PPO also "
                     "'8b_token', 'numbers_token' or 'token'.")
  tokens = TOKENS[choice][task]
  config = ConfigDict()
  config.seed = 42 if task == "gp_l" else 12
  config.env = dict(ENVS[task]) if choice else {**ENVS[task], **TOYS[task]}
  config.start = start if choice == "8b" else "scratch"
  config.tokenizer = dict(name={"8b": "pretrained", "numbers": "bytes", "": "words"}[choice])
  config.model = {"8b": dict(name="pretrained", dtype="bfloat16"), "numbers": dict(LLAMA, dtype="bfloat16"),
                  "": dict(width=64, layers=2, heads=4)}[choice]
  config.rollout = dict(rows=64, prompt_tokens=tokens["prompt"], feedback_tokens=tokens["feedback"],
                        max_new_tokens=tokens["response"], temperature=0.2, shrink=())
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
  config.data = dict(length=tokens["row"], choices=4)
  config.optimizer = dict(name="adamw", learning_rate=1e-6, clip=1.0, args=dict(b2=0.98, eps=1e-7))
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
  config.optimizer = dict(name="adamw", learning_rate=1e-6, clip=1.0, args=dict(b2=0.999, eps=1e-7))
  config.schedule = dict(name="cosine", updates=8 * half_period, end=1e-3)
  config.compute = dict(microbatches=episodes // 2 // 16, logit_chunk=256)
  config.checkpoint = dict(every=5, keep=4)
  config.log = dict(every=1)
  return config
