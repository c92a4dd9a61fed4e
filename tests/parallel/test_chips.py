"""What chips can do is looked up by what JAX calls them."""

from sftrl_jax.parallel import chips


def test_every_kind_of_device_is_one_chip():
  every = [kind for chip in (*chips.TPUS.values(), *chips.GPUS.values()) for kind in chip.kinds]
  assert len(every) == len(set(every)) and all(chips.of(kind).flops > 1e14 for kind in every)


def test_other_devices_are_none():
  assert chips.of("cpu") is None and chips.of("TPU v99") is None
