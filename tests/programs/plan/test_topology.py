"""Slices have the names under which the cloud rents them; no device is needed to know them."""

import os

import pytest

from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.plan import topology


@pytest.mark.parametrize(("name", "chips", "hosts"), [
    ("v5e-1", 1, 1), ("v5e-4", 4, 1), ("v5e-8", 8, 1), ("v5e-16", 16, 4), ("v5litepod-16", 16, 4), ("v6e-256", 256, 64),
    ("v4-8", 4, 1), ("v5p-16", 8, 2), ("v5p-256", 128, 32), ("2xv5e-16", 32, 8)])
def test_a_name_says_chips_and_hosts_and_v4_and_v5p_count_cores(name, chips, hosts):
  where = topology.parse(name)
  assert (where.chips, where.hosts) == (chips, hosts)
  assert f"{chips} chips" in str(where) and where.chip.hbm_gib > 15


def test_every_name_means_a_slice_of_its_own():
  slices = [topology.parse(name) for name in topology.names()]
  assert len({(where.chip.kind, where.shape) for where in slices}) == len(slices)


@pytest.mark.parametrize(("name", "guess"), [("v5e-12", "v5e-1"), ("v5p-12", "v5p-128"), ("h100-8", ""), ("", ""),
                                             ("0xv5e-4", "v5e-4"), ("v4-4", "v4-64")])
def test_an_unknown_name_is_an_error_with_the_known_ones(name, guess):
  with pytest.raises(ConfigError, match="is not known") as error:
    topology.parse(name)
  assert all(known in str(error.value) for known in ("v5e-16", "v5p-256", "v4-8", "v6e-64", "local"))
  assert not guess or "did you mean" in str(error.value)


def test_the_next_larger_slice_has_the_same_chips():
  assert topology.larger(topology.parse("v5e-4")).name == "v5e-8"
  assert topology.larger(topology.parse("v5p-16")).name == "v5p-32"
  assert topology.larger(topology.parse("v5e-256")) is None


def test_the_compilers_environment_is_set_only_for_slices(monkeypatch):
  for name in topology.ENVIRONMENT:
    monkeypatch.setenv(name, "before")
  topology.prepare("local")
  assert {os.environ[name] for name in topology.ENVIRONMENT} == {"before"}
  topology.prepare("v5e-4")
  assert os.environ["JAX_PLATFORMS"] == "cpu" and os.environ["TPU_SKIP_MDS_QUERY"] == "before"
