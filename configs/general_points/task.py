"""GeneralPoints on a CPU and on real models: what SFT and RL share, word for word, for each choice of a config.

A choice is a real model (PRETRAINED), or the small decoder on another game (GAMES).
"""

from ml_collections import ConfigDict

# Real models by the choice of a config. rows: episodes decoded together; episodes: of an evaluation. logit_chunk: 64
# but where all logits of a microbatch, which are then computed once and not twice, are under a gigabyte.
PRETRAINED = {
    "smollm2": dict(start="smollm2", dtype="float32", rows=64, episodes=256, logit_chunk=0,
                    kl_episodes=0),   # its study measured 512
    "qwen2.5-0.5b": dict(start="Qwen/Qwen2.5-0.5B-Instruct", dtype="bfloat16", rows=256, episodes=512),
    "llama3.2-1b": dict(start="meta-llama/Llama-3.2-1B-Instruct", dtype="bfloat16", rows=256, episodes=512),
    "llama3.2-3b": dict(start="meta-llama/Llama-3.2-3B-Instruct", dtype="bfloat16", rows=256, episodes=512),
}


# Other games by the choice of a config. row: tokens of an expert's example; base_row: of a row of the base's mixture.
GAMES = {
    "all_7": dict(
        env=dict(faces="all_7", shifts=("all_5", "all_12", "fake")), rollout={}, row=23, base_row=76,
        start="base:general_points_0",  # which reads any rule
        variants=("id_seen", "id_unseen", "rule_ood", "all_5", "all_12", "fake")),
    "five_cards": dict(
        env=dict(cards=5), rollout=dict(prompt_tokens=13, max_new_tokens=23), row=35, base_row=112,
        start="runs/five_cards_base", variants=("id_seen", "id_unseen", "rule_ood")),
    "cot": dict(  # an expert's answer has up to 31 tokens, one that slips up to 35
        env=dict(reasoning=True), rollout=dict(max_new_tokens=35), row=41, base_row=126,
        start="runs/cot_base", variants=("id_seen", "id_unseen", "rule_ood")),
}


def compute(choice, microbatches) -> dict:
  """Of a real model: how many microbatches, and how many tokens of a row have their logits at once (0: all)."""
  return dict(microbatches=microbatches, logit_chunk=PRETRAINED[choice].get("logit_chunk", 64))


def shared(choice="", **env) -> ConfigDict:
  """Three cards, any reachable target, the rule's values in the prompt; a decoder of 150k parameters, or `choice`."""
  if choice and choice not in {**PRETRAINED, **GAMES}:
    raise ValueError(f"choice is {choice!r}; it must be one of {', '.join((*PRETRAINED, *GAMES))}, or left out.")
  game = GAMES.get(choice, {})
  config = ConfigDict()
  config.seed = 0
  config.env = {**dict(
      name="general_points", target="any", cards=3, faces=10, attempts=3, style="compact", holdout=0.25,
      rewards=(1.0, -0.2, -0.4, -0.6)), **game.get("env", {}), **env}  # rewards: the paper's 5, -1, -2, -3 over 5
  if choice in PRETRAINED:
    return _pretrained(config, choice)
  config.start = game.get("start", "base:general_points_0")
  config.tokenizer = dict(name="words")
  config.model = dict(width=64, layers=3, heads=4, mlp="plain", activation="relu", remat="none", unroll=3)
  config.rollout = {**dict(rows=256, prompt_tokens=11, feedback_tokens=1, max_new_tokens=13, temperature=1.0),
                    **game.get("rollout", {})}
  config.evals = dict(variants=game.get("variants", ("id_seen", "id_unseen", "rule_ood")), episodes=1024,
                      kl_episodes=0)   # published figures are of all episodes, up to 1,024
  config.mesh = dict(cpu_threads=1)
  return config


def pairs() -> ConfigDict:
  """What DPO and a reward model share: pairs of the start's answers under the training rule."""
  config = shared()
  config.steps = 100_000   # the budget ends the run
  config.flops = 2.4e12
  config.batch = 64
  # 48: two sides of at most a bos, a prompt of 10, a response of 12 and its end; rows are pairs
  config.data = dict(pairs=12_000, variants=("id_seen", "rule_ood"), heldout_pairs=1000, length=48, pack=False)
  config.compute = dict(microbatches=2)   # what fits a core's cache
  config.checkpoint = dict(every=200, keep=2)
  config.log = dict(every=10)
  return config


def _pretrained(config: ConfigDict, choice: str) -> ConfigDict:
  """The same task in English and JSON, for the tokenizer and the chat template that come with a real model."""
  about = PRETRAINED[choice]
  config.env.style = "short"
  config.start = about["start"]
  config.tokenizer = dict(name="pretrained")
  config.model = dict(name="pretrained", dtype=about["dtype"])
  config.rollout = dict(
      rows=about["rows"], prompt_tokens=80, feedback_tokens=40, max_new_tokens=56, temperature=1.0)
  config.evals = dict(variants=("id_seen", "id_unseen", "rule_ood"), episodes=about["episodes"],
                      kl_episodes=about.get("kl_episodes", 256))
  return config
