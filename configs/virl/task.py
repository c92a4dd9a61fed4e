"""V-IRL in language on a CPU: what SFT and RL share, word for word."""

from ml_collections import ConfigDict


def shared(**env) -> ConfigDict:
  """Routes of three legs in the compact style, two tries a point; a decoder of 150k parameters."""
  config = ConfigDict()
  config.seed = 0
  config.env = {**dict(name="virl", style="compact", legs=3, straight=2, drop=0.5, tries=2), **env}
  config.start = "base:virl_0"
  config.tokenizer = dict(name="words")
  config.model = dict(width=64, layers=3, heads=4, mlp="plain", activation="relu", remat="none", unroll=3)
  config.rollout = dict(rows=128, prompt_tokens=36, feedback_tokens=3, max_new_tokens=6, temperature=1.0)
  config.evals = dict(variants=("id", "rule_ood", "city_ood"), episodes=256, expert_episodes=48)
  config.mesh = dict(cpu_threads=1)
  return config


def pairs() -> ConfigDict:
  """What DPO and a reward model share: pairs of the start's responses at any state that the expert comes through."""
  config = shared()
  config.steps = 100_000   # the budget ends the run
  config.flops = 2e12
  config.batch = 16
  # prompt_tokens: at the seventh point, after six responses of 6 and six messages of 3. length: the longest pair, two
  # times 96, fits; most are shorter, and two share a row.
  config.data = dict(pairs=1000, points="any", prompt_tokens=90, variants=("id", "rule_ood"), heldout_pairs=500,
                     length=256)
  config.compute = dict(microbatches=8)   # what fits a core's cache
  config.checkpoint = dict(every=200, keep=2)
  config.log = dict(every=10)
  return config
