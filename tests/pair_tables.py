"""Random ragged pairs on tables: the parameters are the logits and the scores of every column themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

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


LABELS = ("right", "reversed", "coin")
CONTEXTS, ARMS = 4, 2


def bandit_score(params, inputs, targets_BT):
  """A table of logits and one of scores: arm by context. The context is the token before the arm."""
  arm_BT = inputs.tokens_BT - CONTEXTS   # negative in the columns of a context
  context_BT = jnp.where(arm_BT < 0, inputs.tokens_BT, jnp.roll(inputs.tokens_BT, 1, axis=1))
  logs_BTA = jax.nn.log_softmax(params["logits"])[context_BT]
  logprobs_BT = jnp.take_along_axis(logs_BTA, jnp.maximum(targets_BT - CONTEXTS, 0)[..., None], axis=-1)[..., 0]
  entropy_BT = -jnp.sum(jnp.exp(logs_BTA) * logs_BTA, -1)
  return Scores(logprobs_BT, entropy_BT, params["scores"][context_BT, jnp.maximum(arm_BT, 0)], arm_BT >= 0)


def bandit(seed, labels, count=400):
  """(params, batch): pairs of both arms in random contexts, of which arm 0 is preferred, arm 1, or one by coin."""
  source = np.random.default_rng((seed, LABELS.index(labels)))
  context_B = source.integers(0, CONTEXTS, count)
  worse_B = {"right": np.zeros(count, int), "reversed": np.ones(count, int), "coin": source.integers(0, 2, count)}
  arms_B2 = CONTEXTS + np.stack([worse_B[labels], 1 - worse_B[labels]], axis=1)
  every = lambda *values: np.broadcast_to(np.asarray(values), (count, 4))
  tokens_BT = np.stack([context_B, arms_B2[:, 0], context_B, arms_B2[:, 1]], axis=1).astype(np.int32)
  targets_BT = np.stack([arms_B2[:, 0], context_B, arms_B2[:, 1], context_B], axis=1).astype(np.int32)
  params = {"logits": source.normal(scale=0.3, size=(CONTEXTS, ARMS)), "scores": np.zeros((CONTEXTS, ARMS))}
  batch = PairBatch(Inputs(tokens_BT, every(0, 1, 0, 1), every(1, 1, 2, 2)), targets_BT, every(1.0, 0, 1, 0),
                    every(0, 0, 1, 1), every(0.0, 1, 0, 1), np.ones((count, 1)), np.zeros((count, 1)), None)
  logs_BT = bandit_score(params, batch.inputs, targets_BT).logprobs_BT
  return params, batch.replace(ref_logprobs_BS=logs_BT[:, 0::2])


def bandits():
  """(params, batch) of three seeds with each kind of labels, stacked, in the order of [seed][LABELS]."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(bandit(seed, labels) for seed in range(3)
                                                           for labels in LABELS))


def learned(loss, params, batch):
  """The parameters after 300 steps of Adam. loss: (params, batch) -> Mean"""
  optimizer = optax.adam(0.1)

  def step(state, _):
    params, slots = state
    updates, slots = optimizer.update(jax.grad(lambda params: loss(params, batch).value())(params), slots)
    return (optax.apply_updates(params, updates), slots), None

  return jax.lax.scan(step, (params, optimizer.init(params)), None, 300)[0][0]


def refuse_unlearned(before_XCA, after_XCA):
  """AssertionError unless the policies, as log-probabilities, prefer what the labels of `bandits` do."""
  p_XCA = np.exp(after_XCA)
  kl_X = (p_XCA * (after_XCA - before_XCA)).sum(-1).mean(-1)
  best_X = p_XCA[..., 0].mean(-1)
  for seed in range(3):
    right, reverse, coin = range(3 * seed, 3 * seed + 3)
    assert best_X[right] > 0.95 and best_X[reverse] < 0.05 and kl_X[right] > 0.3
    assert abs(best_X[coin] - 0.5) < 0.15 and kl_X[coin] < 0.05
