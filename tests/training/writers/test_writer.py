"""A wrong or missing writer is an error before anything runs, and no package is imported for it."""

import importlib.machinery
import importlib.util
import subprocess
import sys

import pytest

from sftrl_jax.training.writers import writer as writers
from sftrl_jax.training.writers.writer import WRITERS, ScalarWriter, check_writers, open_writers


def test_every_writer_has_the_interface():
  methods = {name for name in vars(ScalarWriter) if not name.startswith("_")}
  assert methods == {"scalars", "close_part", "close"}
  for cls in WRITERS.values():
    assert isinstance(cls.package, str) and all(callable(getattr(cls, name)) for name in methods)


def test_an_unknown_name_and_a_repeated_one_are_refused():
  with pytest.raises(ValueError, match=r"writers is \('wandbb',\).*known: tensorboard, wandb, trackio"):
    check_writers(("wandbb",))
  with pytest.raises(ValueError, match="names 'tensorboard' twice"):
    check_writers(("tensorboard", "tensorboard"))
  check_writers(())
  check_writers(("tensorboard",))


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
  monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match=r'trackio needs the package trackio.*pip install "sftrl-jax\[trackio\]"'):
    check_writers(("trackio",))


def test_a_directory_of_that_name_is_no_package(monkeypatch):
  """W&B writes to ./wandb, which Python would import as an empty package."""
  directory = importlib.machinery.ModuleSpec("wandb", None, is_package=True)
  monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: directory)
  with pytest.raises(ValueError, match="not installed"):
    check_writers(("wandb",))


def test_a_config_is_checked_without_importing_what_it_names():
  code = ("import sys, sftrl_jax.training.log as log; log.LogConfig(); "
          "sys.exit(' '.join({'wandb', 'trackio', 'tensorboardX'} & set(sys.modules)) or 0)")
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


def test_writers_are_opened_in_their_order(tmp_path):
  assert open_writers((), tmp_path, 0) == ()
  (writer,) = open_writers(("tensorboard",), tmp_path, 3)
  assert isinstance(writer, WRITERS["tensorboard"])
