"""The catalogue forgets nothing of optax, and treats what it has never heard of by trying it."""

import inspect

import jax
import optax
import pytest
from optax import contrib
from optax._src import alias

from sftrl_jax.training.optimizers import catalogue as catalogues
from sftrl_jax.training.optimizers.catalogue import RATE, UNLISTED, catalogue, entry
from sftrl_jax.training.optimizers.optimizer import OptimizerConfig


def everything(known):
  return {*known.entries, *known.refused, *known.wrappers, *known.parts}


def test_nothing_of_optax_is_forgotten():
  known = catalogue()
  aliases = {name for name, value in vars(alias).items() if callable(value) and hasattr(optax, name)}
  theirs = {name for name in aliases if name.islower() and inspect.signature(getattr(optax, name)).parameters}
  assert len(theirs) >= 30 and theirs <= {*known.entries, *known.refused}
  others = {name for name in dir(contrib) if name.islower() and not name.startswith("_")}
  assert others - {"schedule_free_eval_params"} <= everything(known)
  returned = lambda function: str(getattr(function, "__annotations__", {}).get("return"))
  made = {name for module in (optax, contrib) for name in dir(module)
          if not name.startswith("_") and "GradientTransformation" in returned(getattr(module, name))}
  assert made <= everything(known)


def test_every_name_has_one_place():
  known = catalogue()
  places = [*known.entries, *known.refused, *known.wrappers, *known.parts]
  assert len(places) == len(set(places))
  assert not [entry for entry in known.entries.values() if entry.group == UNLISTED]   # all of this optax are looked at


def test_arguments_are_those_of_the_signature_that_a_config_can_write():
  for name, known in catalogue().entries.items():
    assert known.args.keys() <= inspect.signature(known.factory).parameters.keys(), name
    assert known.args.keys() == known.kinds.keys() and not known.args.keys() & catalogues.OURS.keys()
    for value in known.given.values():
      assert isinstance(value, (bool, int, float, str, tuple)), (name, value)
  assert entry("adamw").given == {"b1": 0.9, "b2": 0.98, "eps": 1e-8, "eps_root": 0.0, "nesterov": False}
  assert entry("nadam").args["nesterov"] and "nesterov" not in entry("yogi").args


@pytest.fixture
def contribute(monkeypatch):
  """contribute(function) makes it a part of optax.contrib, as a newer optax would."""
  def add(function):
    monkeypatch.setattr(contrib, function.__name__, function, raising=False)
    catalogue.cache_clear()
  yield add
  monkeypatch.undo()
  catalogue.cache_clear()


def fresh(learning_rate: float = 0.5, momentum: float = 0.25, width: int | None = None) -> optax.GradientTransformation:
  return optax.sgd(learning_rate, momentum)


def needy(learning_rate) -> optax.GradientTransformationExtraArgs:
  return optax.chain(optax.scale_by_polyak(), optax.scale_by_learning_rate(learning_rate))


def around(base_optimizer) -> optax.GradientTransformation:
  return base_optimizer


def test_an_optimizer_that_nobody_has_looked_at_is_tried(contribute):
  for function in (fresh, needy, around):
    contribute(function)
  known = entry("fresh")
  assert (known.group, known.learning_rate, known.args) == (UNLISTED, 0.5, {"momentum": 0.25, "width": None})
  assert known.kinds == {"momentum": float, "width": int} and RATE != 0.5
  optimizer = catalogues.catalogue().entries["fresh"].factory(1.0)
  assert jax.tree.leaves(optimizer.init({"w": 1.0}))
  assert OptimizerConfig("fresh", args={"momentum": 0.5}).name == "fresh"
  with pytest.raises(ValueError, match=r"'needy', which is refused: tried .* alone, it raises TypeError.*value"):
    entry("needy")
  with pytest.raises(ValueError, match="'around', which is a wrapper and no optimizer: around base_optimizer"):
    entry("around")
