"""The page of `--config.optimizer.name=help`: all optimizers of optax and optax.contrib, and the refused ones."""

import textwrap

import jax

from sftrl_jax import trees
from sftrl_jax.models import DecoderConfig, build, heads
from sftrl_jax.programs.config.values import text_of
from sftrl_jax.training.optimizers.catalogue import OptimizerEntry, catalogue
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig, make_optimizer

WIDTH = 120
# A decoder of 1.5 billion parameters, as large as its matrices have to be for factored and low-rank states to show.
MODEL = DecoderConfig(vocab=49152, width=2048, layers=24, heads=32, kv_heads=8, mlp_dim=8192)


def page() -> str:
  """Name, learning rate, state and arguments of every optimizer by group, then the refused ones. Asks for no device."""
  known, params = catalogue(), abstract()
  lines = textwrap.wrap(
      "--config.optimizer.name=NAME drops the args of the file and takes the learning rate and arguments below; "
      "--config.optimizer.args.K=V sets one of them, --config.optimizer.learning_rate=V the rate. Schedule, weight "
      "decay, clip, freeze and factors are keys of their own and mean the same under every name.", WIDTH)
  lines += ["", *textwrap.wrap(
      f"state: bytes of optimizer state per parameter, f32, weight decay 0, for {trees.size(params) / 1e9:.1f} billion "
      "parameters (which themselves take 4 bytes each, and their gradients 4). An argument without a value is off "
      "unless set.", WIDTH)]
  group = None
  for entry in known.entries.values():
    if entry.group != group:
      group = entry.group
      lines += ["", group, f"  {'name':<28}{'rate':>8}{'state':>7}  arguments"]
    lines += _lines(entry, state_bytes(entry.name, params))
  for title, reasons in (("Refused", known.refused),
                         ("Wrappers, which are no optimizers by themselves", known.wrappers)):
    lines += ["", title]
    for name, reason in reasons.items():
      lines += textwrap.wrap(f"{name:<36}{reason}", WIDTH, initial_indent="  ", subsequent_indent=" " * 38)
  lines += ["", "Parts that optimizers are made of, which are no optimizers by themselves",
            *textwrap.wrap(", ".join(known.parts), WIDTH, initial_indent="  ", subsequent_indent="  ")]
  return "\n".join(lines)


def abstract() -> dict:
  """Shapes of the parameters, {"model": ..., "value": ...}, whose optimizer state the page counts."""
  key = jax.ShapeDtypeStruct((2,), "uint32")
  model = jax.eval_shape(lambda bits: build(MODEL).init(jax.random.wrap_key_data(bits)), key)
  return {"model": model, "value": jax.eval_shape(lambda: heads.init(MODEL.width))}


def state_bytes(name: str, params: dict) -> float:
  """Bytes of optimizer state per parameter."""
  state = jax.eval_shape(make_optimizer(OptimizerConfig(name), lambda number: 1.0).init, params)
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) / trees.size(params)


def _lines(entry: OptimizerEntry, state: float) -> list[str]:
  words = {key: text_of(value).replace(" ", "").replace("'", "") for key, value in entry.args.items()}
  args = " ".join(key if entry.args[key] is None else f"{key}={word}" for key, word in words.items())
  head = f"  {entry.name:<28}{entry.learning_rate:>8g}{state:>7.2f}  "
  lines = textwrap.wrap(args or "none", WIDTH, initial_indent=head, subsequent_indent=" " * len(head),
                        break_on_hyphens=False, break_long_words=False)
  return lines + textwrap.wrap(entry.note, WIDTH, initial_indent=" " * len(head) + "- ",
                               subsequent_indent=" " * (len(head) + 2))
