"""Random ragged pairs on tables: the parameters are the logits and the scores of every column themselves."""

import jax
import jax.numpy as jnp
import numpy as np

from sftrl_jax.inputs import Inputs
from sftrl_jax.objectives.batches import PairBatch, Scores

B, T, V, P = 3, 24, 7, 2


def score(params, _, targets_BT):
  logs = jax.nn.log_softmax(params["logits"])
  taken = jnp.take_along_axis(logs, targets_BT[..., None], axis=-1)[..., 0]
  return Scores(taken, -jnp.sum(jnp.exp(logs) * logs, -1), params["scores"], jnp.argmax(logs, -1) == targets_BT)


def example(seed=0):
  """(params, batch): rows of two pairs, one and none; sides of 2 to 6 tokens, the first ones of which are a prompt."""
  source = np.random.default_rng(seed)
  arrays = {name: np.zeros((B, T), kind) for name, kind in
            {"tokens": np.int32, "positions": np.int32, "segments": np.int32, "weights": float, "last": float}.items()}
  sides, targets = np.full((B, T), -1, np.int32), source.integers(0, V, (B, T)).astype(np.int32)
  for row, pairs in enumerate((2, 1, 0)):
    place = 0
    for side in range(2 * pairs):
      size = int(source.integers(3, 7))
      span, answer = slice(place, place + size), int(source.integers(1, size))
      arrays["segments"][row, span], arrays["positions"][row, span] = side + 1, np.arange(size)
      sides[row, span], arrays["last"][row, place + size - 1] = side, 1
      arrays["weights"][row, place + answer - 1 : place + size - 1] = 1   # column t is about token t + 1
      place += size
  live = np.asarray([[1, 1], [1, 0], [0, 0]], float)
  inputs = Inputs(arrays["tokens"], arrays["positions"], arrays["segments"])
  batch = PairBatch(inputs, targets, arrays["weights"], sides, arrays["last"], live,
                    source.uniform(0, 1, (B, P)) * live, source.normal(size=(B, 2 * P)) - 4)
  return {"logits": source.normal(size=(B, T, V)), "scores": source.normal(size=(B, T))}, batch


def exact(tree):
  """The tree in 64 bits, where jax.enable_x64 is on."""
  return jax.tree.map(jnp.asarray, tree)


def by_hand(params, batch):
  """For each pair, in plain numpy: ((log p, tokens, reference, score) of the better side, the same of the other, its
  margin)."""
  logits = params["logits"] - params["logits"].max(-1, keepdims=True)
  logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  pairs = []
  for row in range(B):
    for pair in range(int(batch.live_BP[row].sum())):
      sides = []
      for side in (2 * pair, 2 * pair + 1):
        columns = [t for t in range(T) if batch.sides_BT[row, t] == side]
        answer = [t for t in columns if batch.weights_BT[row, t]]
        sides.append((sum(logs[row, t, batch.targets_BT[row, t]] for t in answer), len(answer),
                      batch.ref_logprobs_BS[row, side], params["scores"][row, columns[-1]]))
      pairs.append((*sides, batch.margins_BP[row, pair]))
  return pairs
