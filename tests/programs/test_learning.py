"""What a run learns by is described once, for those who run it and those who only compile it."""

from sftrl_jax.programs import learning
from sftrl_jax.programs.evaluate import row_length
from sftrl_jax.programs.setup import assemble


def test_sft_makes_one_update_a_step_on_rows_of_its_data(tiny):
  parts = assemble(tiny("sft"), "sft")
  found = learning.of_sft(parts)
  assert (found.rows, found.length) == (parts.config["batch"], parts.settings["data"].length)
  assert (found.minibatch, found.updates, found.value_head, found.prepare) == (found.rows, 1, False, None)


def test_rl_makes_updates_on_minibatches_of_whole_episodes(tiny):
  parts = assemble(tiny("rl", ppo__minibatches=2, ppo__epochs=3), "rl")
  found = learning.of_rl(parts)
  assert (found.minibatch, found.updates, found.value_head) == (found.rows // 2, 6, True)
  assert found.length >= row_length(parts)
