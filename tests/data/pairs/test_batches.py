"""Packed pairs: every side whole, in a segment of its own, and what the objective sums by side is its response."""

import dataclasses
import json

import numpy as np
import pytest

from sftrl_jax.data import packing
from sftrl_jax.data.pairs.batches import MOST, load_pairs
from sftrl_jax.data.pairs.rows import PairsConfig
from sftrl_jax.text.tokenizer import byte

LENGTH = 64


def settings(tmp_path, count=17, **changes):
  path = tmp_path / "pairs.jsonl"
  path.write_text("".join(json.dumps({"prompt": "p" * (1 + n % 5), "chosen": f"{n:02d}" + "c" * (n % 7),
                                      "rejected": "r" * (1 + n % 3), "margin": n}) + "\n" for n in range(count)))
  return PairsConfig(str(path), **{"length": LENGTH, **changes})


@pytest.mark.parametrize("pack", [True, False])
def test_every_pass_has_every_pair_once_and_whole(tmp_path, pack):
  config = settings(tmp_path, pack=pack)
  corpus = load_pairs(config, byte())
  corpus.__dict__["ref_logprobs_N2"] = -np.arange(2.0 * corpus.count, dtype=np.float32).reshape(-1, 2)
  trained, held = packing.split(corpus, 0.0)
  next_batch, cursor, seen = packing.make_batches(corpus, config, trained, 0, 3), 0, []
  while cursor < corpus.count:
    batch, cursor = next_batch(cursor)
    for row in range(3):
      for pair in np.flatnonzero(batch.live_BP[row]):
        texts = []
        for side in (2 * pair, 2 * pair + 1):
          on = batch.sides_BT[row] == side
          assert (batch.inputs.segments_BT[row][on] == side + 1).all()
          assert batch.inputs.positions_BT[row][on].tolist() == list(range(on.sum()))
          assert np.flatnonzero(batch.last_BT[row] * on).tolist() == [np.flatnonzero(on)[-1]]
          ids, weights = batch.inputs.tokens_BT[row][on], batch.weights_BT[row][on]
          assert batch.targets_BT[row][on][:-1].tolist() == ids[1:].tolist() and weights[-1] == 0
          texts.append(byte().decode(ids[1:][weights[:-1] > 0]))
        margin = int(batch.margins_BP[row, pair])
        assert texts[0].startswith(f"{margin:02d}" + "c" * (margin % 7)) and texts[1].startswith("r" * (1 + margin % 3))
        assert batch.ref_logprobs_BS[row, 2 * pair : 2 * pair + 2].tolist() == [-2 * margin, -2 * margin - 1]
        seen.append(margin)
    assert (batch.sides_BT >= 0).sum() == (batch.inputs.segments_BT > 0).sum()
  assert sorted(seen[: corpus.count]) == list(range(corpus.count)) and not len(held)


def test_a_row_has_no_more_pairs_than_the_objective_sums(tmp_path):
  corpus = load_pairs(settings(tmp_path, length=2048), byte())
  assert corpus.most == MOST
  many, ends = packing.packed(np.full(100, 4), np.arange(100), 2048, True, MOST)
  assert len(many) == 100 and np.diff(ends, prepend=0).max() == MOST
  assert load_pairs(settings(tmp_path, pack=False), byte()).most == 1


def test_the_last_token_is_a_place_and_no_id(tmp_path):
  """[5, 2, 7, 2], where 2 is padding, end, and a token of the response: index 3 is read, in any row."""
  arrays = (np.asarray([5, 2, 7, 2, 5, 2, 2], np.int32), np.asarray([0, 1, 1, 1, 0, 1, 1], bool),
            np.asarray([0, 4, 7], np.int64))
  corpus = load_pairs(settings(tmp_path, count=1), byte())
  examples = dataclasses.replace(corpus.examples, tokens=arrays[0], learned=arrays[1], offsets=arrays[2])
  corpus = dataclasses.replace(corpus, examples=examples, most=2)
  for spans, length in (([[0]], 7), ([[0], []], 16), ([[0, 0]], 30)):
    batch = corpus.laid([np.asarray(span, int) for span in spans], len(spans), length)
    ends = [3, 6, 10, 13][: 2 * len(spans[0])]
    assert np.flatnonzero(batch.last_BT[0]).tolist() == ends and not batch.last_BT[1:].any()
    weights = batch.weights_BT[0][:7].tolist()
    assert weights == [1, 1, 1, 0, 1, 1, 0] and not batch.weights_BT[0][7 * len(spans[0]):].any()
