"""The section of replay: whole rows of both sources, keys that differ, and errors that say what to give."""

import pytest

from sftrl_jax.data.demonstrations import DemonstrationsConfig
from sftrl_jax.data.mix import MixConfig, mix_of, parts
from sftrl_jax.data.rows import RowsConfig

OLD = {"path": "old.jsonl"}


def test_rows_are_whole_and_both_sources_have_some():
  assert MixConfig().rows(8) == 0 and MixConfig(share=0.1, data=OLD).rows(20) == 2
  for share, batch in ((0.01, 20), (0.99, 20), (0.5, 1)):
    with pytest.raises(ValueError, match="config.data.mix.share is"):
      MixConfig(share=share, data=OLD).rows(batch)


@pytest.mark.parametrize("fields, word", [
    (dict(share=1.0, data=OLD), "share is 1.0"), (dict(share=float("nan"), data=OLD), "share is nan"),
    (dict(share=0.1), "say what differs"), (dict(share=0.1, data={"length": 9}), "'length'")])
def test_what_is_no_second_source_is_refused(fields, word):
  with pytest.raises(ValueError, match=word):
    MixConfig(**fields)


def test_the_second_source_has_the_keys_of_the_first_but_for_those_that_differ():
  mix = MixConfig(share=0.1, data={"careless": 0.5})
  plain = {"length": 40, "careless": 0.0, "choices": 4, "path": "", "mix": {"share": 0.1}}
  assert mix.settings(plain, DemonstrationsConfig) == {"length": 40, "careless": 0.5, "choices": 4}
  assert MixConfig(share=0.1, data=OLD).settings(plain, RowsConfig) == {"length": 40, "path": "old.jsonl"}
  assert mix_of(DemonstrationsConfig(mix={"share": 0.5, "data": OLD})) == MixConfig(0.5, OLD) and not mix_of(None).share


def test_the_rows_of_a_process_are_counted_from_the_first_of_their_source():
  assert parts(None, 3) == (None, None)
  assert parts(frozenset({2, 3}), 3) == ({2}, {0}) and parts(frozenset({0, 1}), 3) == ({0, 1}, set())
