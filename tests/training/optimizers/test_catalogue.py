"""The catalogue forgets nothing of optax, and treats what it has never heard of by trying it."""

import inspect

import jax
import optax
import pytest
from optax import contrib
from optax._src import alias

from sftrl_jax.training.optimizers import catalogue as catalogues
from sftrl_jax.training.optimizers.catalogue import RATE, UNLISTED, USERS, catalogue, entry
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
  factories = {name for module in (optax, contrib) for name in dir(module)
          if not name.startswith("_") and "GradientTransformation" in returned(getattr(module, name))}
  assert factories <= everything(known)


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


def test_an_optimizer_by_path_is_read_by_its_signature(monkeypatch):
  def make(learning_rate=0.5, momentum: float = 0.25, seed: int = 3, weight_decay=0.1, init=abs, *,
           width: int | None = None):
    return optax.sgd(learning_rate, momentum)

  monkeypatch.setattr(catalogues, "_load_user_file", lambda name: make)
  known = entry("mine.py:make")
  assert (known.name, known.group, known.learning_rate) == ("mine.py:make", USERS, 0.5)
  assert known.args == {"momentum": 0.25, "seed": 3, "width": None}
  assert known.kinds == {"momentum": float, "seed": int, "width": int}
  assert catalogues.kind("mine.py:make", "momentum") is float
  with pytest.raises(ValueError, match="is no argument of mine.py:make: did you mean momentum"):
    catalogues.kind("mine.py:make", "momentun")
  with pytest.raises(ValueError, match="it is config.optimizer.weight_decay"):
    catalogues.kind("mine.py:make", "weight_decay")


@pytest.mark.parametrize("function, message", [
    (lambda rate: None, r"the first argument of the function is not learning_rate: write .* in .*test_catalogue"),
    (lambda: None, "is not learning_rate"),
    (lambda learning_rate, beta, gamma=1: None, "whose beta has no default"),
    (lambda learning_rate, **more: None, "it returned NoneType, but must return an optax.GradientTransformation"),
    (lambda learning_rate: {}["absent"], "refuses: KeyError: 'absent'")])
def test_a_function_that_makes_no_optimizer_is_refused(monkeypatch, function, message):
  monkeypatch.setattr(catalogues, "_load_user_file", lambda name: function)
  with pytest.raises(ValueError, match=message):
    OptimizerConfig("mine.py:make")


def test_paths_are_loaded_by_the_loader_that_is_set(monkeypatch):
  assert catalogues.is_user_file("a/mine.py:make") and catalogues.is_user_file("mine.py")
  assert not catalogues.is_user_file("adamw")
  loaders = []
  monkeypatch.setattr(catalogues, "_load_user_file", lambda name: pytest.fail("replaced below"))
  catalogues.set_user_file_loader(lambda name: loaders.append(name) or optax.sgd)
  assert entry("mine.py:sgd").args["momentum"] is None and loaders == ["mine.py:sgd"]
