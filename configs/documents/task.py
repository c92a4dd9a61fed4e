"""Three small tasks on generated texts: what their configs share, word for word, for each choice of a task."""

from ml_collections import ConfigDict

LABELLED = ("id", "heldout", "wording_ood", "length_ood", "label_ood")
# prompt_tokens, max_new_tokens: of the longest text, a bos and an end counted. row: of an expert's example in training.
# pair: of two sides, each with a prompt of training and a response of max_new_tokens.
TASKS = {
    "labels": dict(name="document_labels", variants=LABELLED, prompt_tokens=28, max_new_tokens=5, row=26, pair=54),
    "reading": dict(name="reading", variants=LABELLED[:-1], prompt_tokens=29, max_new_tokens=8, row=28, pair=58),
    "triples": dict(name="triples", variants=LABELLED, prompt_tokens=28, max_new_tokens=21, row=34, pair=86)}


def about(choice: str) -> dict:
  """What TASKS has of a choice; "labels" if it is left out."""
  if choice and choice not in TASKS:
    raise ValueError(f"choice is {choice!r}; it must be one of {', '.join(TASKS)}, or left out for labels.")
  return TASKS[choice or "labels"]


def model(choice="") -> ConfigDict:
  """A decoder of 170k parameters, which the base and the three tasks share; reading's has a local first layer."""
  config = ConfigDict()
  config.seed = 0
  config.tokenizer = dict(name="words")
  config.model = dict(width=64, layers=3, heads=4, mlp="plain", activation="relu", remat="none", unroll=3)
  if choice == "reading":
    # Its first layer sees a word and the one before it; without that, hardly a base learned to look a sentence up.
    config.model.update(pattern=("local", "global", "global"), window=2)
  config.mesh = dict(cpu_threads=1)
  return config


def shared(choice="", **env) -> ConfigDict:
  """One try a text in the plain wording; training has each topic's, or verb's, own label."""
  task = about(choice)
  config = model(choice)
  config.env = {**dict(name=task["name"], attempts=1), **env}
  config.start = f"runs/{choice or 'labels'}_base"
  config.rollout = dict(rows=256, prompt_tokens=task["prompt_tokens"], feedback_tokens=1,
                        max_new_tokens=task["max_new_tokens"], temperature=1.0)
  config.evals = dict(variants=task["variants"], episodes=512, kl_episodes=0)
  return config


def pairs(choice="") -> ConfigDict:
  """What DPO and a reward model share: pairs of the start's responses in the plain wording."""
  task, config = about(choice), shared(choice)
  config.steps = 100_000   # the budget ends the run
  config.flops = 1e12
  config.batch = 64
  config.data = dict(pairs=2000, variants=("id", "wording_ood"), heldout_pairs=500, length=task["pair"],
                     pack=False)
  config.compute = dict(microbatches=4)   # what fits a core's cache
  config.checkpoint = dict(every=200, keep=2)
  config.log = dict(every=10)
  return config
