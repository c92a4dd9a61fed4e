"""Log-probabilities in pieces are those of the whole, and the whole is never there."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from sftrl_jax.objectives.logprobs import forward_kl, kl_and_entropy, logprobs, with_teacher
from sftrl_jax.readout import Readout

B, T, D, V = 2, 7, 5, 11


def arrays(seed=0):
  random = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
  return normal(B, T, D), normal(D, V), jnp.asarray(random.integers(0, V, (B, T)), jnp.int32)


def exact(hidden, unembed, temperature):
  """log p in float64."""
  logits = np.asarray(hidden, np.float64) @ np.asarray(unembed, np.float64) / temperature
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("chunk", [0, 3])
def test_logprobs_entropy_and_correctness_are_those_of_the_softmax(chunk, temperature):
  hidden, unembed, targets = arrays()
  chosen, entropy, correct = logprobs(hidden, unembed, targets, temperature=temperature, chunk=chunk)
  want = exact(hidden, unembed, temperature)
  np.testing.assert_allclose(chosen, np.take_along_axis(want, np.asarray(targets)[..., None], -1)[..., 0], rtol=2e-5)
  np.testing.assert_allclose(entropy, -(np.exp(want) * want).sum(-1), rtol=2e-5, atol=1e-6)
  np.testing.assert_array_equal(correct, want.argmax(-1) == np.asarray(targets))


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("chunk", [1, 3, 7, 9])
def test_pieces_are_worth_the_whole_and_so_are_their_gradients(chunk, temperature):
  hidden, unembed, targets = arrays()
  weights = jnp.asarray(np.random.default_rng(1).normal(size=(B, T)), jnp.float32)

  def loss(hidden, unembed, chunk):
    return jnp.sum(weights * logprobs(hidden, unembed, targets, temperature=temperature, chunk=chunk)[0])

  of = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
  for mine, theirs in zip(jax.tree.leaves(of(hidden, unembed, chunk)), jax.tree.leaves(of(hidden, unembed, 0)),
                          strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ids, divisor, softcap", [(0, 1.0, 0.0), (8, 1.0, 0.0), (8, 3.0, 1.5)])
@pytest.mark.parametrize("chunk", [0, 3])
def test_the_gradient_is_that_of_the_softmax(chunk, ids, divisor, softcap):
  """By hand here, by automatic differentiation of the formula there."""
  hidden, unembed, targets = arrays()
  targets, known = (targets % ids, ids) if ids else (targets, V)
  weights = jnp.asarray(np.random.default_rng(1).normal(size=(B, T)), jnp.float32)

  def plain(hidden, unembed):
    logits = (hidden @ unembed)[..., :known] / divisor
    logits = softcap * jnp.tanh(logits / softcap) if softcap else logits
    log_p = jax.nn.log_softmax(logits / 0.7, axis=-1)
    return jnp.sum(weights * jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0])

  readout = Readout(ids, divisor, softcap)
  ours = lambda *of: jnp.sum(weights * logprobs(*of, targets, temperature=0.7, chunk=chunk, readout=readout)[0])
  for mine, theirs in zip(*(jax.grad(loss, argnums=(0, 1))(hidden, unembed) for loss in (ours, plain)), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_gradient_has_the_dtype_of_what_it_is_of():
  hidden, unembed, targets = arrays()
  loss = lambda *of: jnp.sum(logprobs(*of, targets)[0])
  exact_h, exact_u = jax.grad(loss, argnums=(0, 1))(hidden, unembed)
  half_h, half_u = jax.grad(loss, argnums=(0, 1))(hidden.astype(jnp.bfloat16), unembed)
  assert (half_h.dtype, half_u.dtype) == (jnp.bfloat16, jnp.float32)
  np.testing.assert_allclose(half_h.astype(jnp.float32), exact_h, atol=0.05)
  np.testing.assert_allclose(half_u, exact_u, atol=0.1)


def test_of_equal_logits_the_first_is_the_likeliest():
  unembed = jnp.asarray([[1.0, 3.0, 3.0, 2.0]])
  told = logprobs(jnp.ones((1, 4, 1)), unembed, jnp.arange(4, dtype=jnp.int32)[None])[2]
  assert told.tolist() == [[False, True, False, False]]


def test_probabilities_sum_to_one():
  hidden, unembed, _ = arrays()
  every = jnp.stack([logprobs(hidden, unembed, jnp.full((B, T), token, jnp.int32))[0] for token in range(V)])
  np.testing.assert_allclose(jnp.exp(every).sum(0), 1, rtol=1e-5)


def test_the_entropy_of_a_model_that_knows_nothing_is_log_v():
  _, unembed, targets = arrays()
  chosen, entropy, _ = logprobs(jnp.zeros((B, T, D)), unembed, targets)
  np.testing.assert_allclose(entropy, math.log(V), rtol=1e-6)
  np.testing.assert_allclose(chosen, -math.log(V), rtol=1e-6)


def test_no_gradient_goes_through_the_reported_entropy():
  hidden, unembed, targets = arrays()
  assert (jax.grad(lambda h: jnp.sum(logprobs(h, unembed, targets)[1]))(hidden) == 0).all()


def test_half_precision_hidden_states_give_f32():
  hidden, unembed, targets = arrays()
  chosen, entropy, _ = logprobs(hidden.astype(jnp.bfloat16), unembed, targets, chunk=3)
  assert chosen.dtype == entropy.dtype == jnp.float32
  np.testing.assert_allclose(chosen, logprobs(hidden, unembed, targets)[0], atol=0.1)


def jaxprs(jaxpr):
  """A jaxpr and all that are inside."""
  yield jaxpr
  for equation in jaxpr.eqns:
    for inner in jaxprs_in_params(equation.params):
      yield from jaxprs(inner)


@pytest.mark.parametrize("chunk,whole", [(8, False), (0, True)])
def test_logits_never_exist_whole_in_the_gradient_of_pieces(chunk, whole):
  rows, length, width, vocab = 2, 64, 4, 1000
  shapes = (jax.ShapeDtypeStruct((rows, length, width), jnp.float32), jax.ShapeDtypeStruct((width, vocab), jnp.float32),
            jax.ShapeDtypeStruct((rows, length), jnp.int32))
  loss = lambda hidden, unembed, targets: jnp.sum(logprobs(hidden, unembed, targets, chunk=chunk)[0])
  traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*shapes)
  made = [math.prod(out.aval.shape) for inner in jaxprs(traced.jaxpr.jaxpr) for equation in inner.eqns
          for out in equation.outvars]
  compiled = [math.prod(map(int, shape.split(","))) for shape in re.findall(
      r"(?:f32|bf16|s32|pred)\[([\d,]+)\]", traced.lower().compile().as_text())]
  for sizes in (made, compiled):
    assert (max(sizes) >= rows * length * vocab) == whole
    assert whole or max(sizes) <= rows * chunk * vocab


def kl(*arguments, **settings):
  return kl_and_entropy(*arguments, **settings)[0]


def test_kl_is_the_sum_over_the_vocabulary():
  hidden, unembed, _ = arrays()
  ref_hidden, ref_unembed, _ = arrays(seed=1)
  p, q = exact(hidden, unembed, 0.7), exact(ref_hidden, ref_unembed, 0.7)
  told = kl(hidden, unembed, ref_hidden, ref_unembed, temperature=0.7)
  np.testing.assert_allclose(told, (np.exp(p) * (p - q)).sum(-1), rtol=1e-4)
  assert (told > 0).all()


def test_the_entropy_beside_the_kl_is_that_of_the_policy():
  hidden, unembed, targets = arrays()
  ref_hidden, ref_unembed, _ = arrays(seed=1)
  entropy = kl_and_entropy(hidden, unembed, ref_hidden, ref_unembed, temperature=0.7)[1]
  np.testing.assert_allclose(entropy, logprobs(hidden, unembed, targets, temperature=0.7)[1], rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 7, 8])
def test_the_size_of_a_chunk_changes_no_kl(chunk):
  hidden, unembed, _ = arrays()
  ref_hidden, ref_unembed, _ = arrays(seed=1)
  whole = kl_and_entropy(hidden, unembed, ref_hidden, ref_unembed, temperature=0.7)
  pieces = kl_and_entropy(hidden, unembed, ref_hidden, ref_unembed, temperature=0.7, chunk=chunk)
  for one, other in zip(whole, pieces, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("chunk,whole", [(8, False), (0, True)])
def test_logits_never_exist_whole_in_a_kl_of_pieces(chunk, whole):
  rows, length, width, vocab = 2, 64, 4, 1000
  hidden, unembed = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((rows, length, width), (width, vocab)))
  compiled = jax.jit(lambda *models: kl_and_entropy(*models, chunk=chunk)).lower(hidden, unembed, hidden, unembed)
  sizes = [math.prod(map(int, shape.split(","))) for shape in re.findall(
      r"(?:f32|bf16|s32|pred)\[([\d,]+)\]", compiled.compile().as_text())]
  assert (max(sizes) >= rows * length * vocab) == whole
  assert whole or max(sizes) <= rows * chunk * vocab


def test_kl_is_zero_for_equal_models_and_so_is_its_gradient():
  hidden, unembed, _ = arrays()
  np.testing.assert_allclose(kl(hidden, unembed, hidden, unembed), 0, atol=1e-6)
  np.testing.assert_allclose(kl(hidden, unembed, hidden, unembed + 1), 0, atol=1e-5)  # a shift of all logits
  np.testing.assert_allclose(jax.grad(lambda h: jnp.sum(kl(h, unembed, hidden, unembed)))(hidden), 0, atol=1e-5)


def test_arrays_that_do_not_fit_are_refused():
  hidden, unembed, targets = arrays()
  with pytest.raises(ValueError, match="targets_BT has T=6 where T=7"):
    logprobs(hidden, unembed, targets[:, :-1])


def test_the_kl_to_a_teacher_is_exact_also_of_another_width_and_table_and_in_chunks():
  source = np.random.default_rng(3)
  normal = lambda *shape: source.normal(size=shape).astype(np.float32)
  hidden, unembed, theirs, table = normal(2, 7, 5), normal(5, 11), normal(2, 7, 4), normal(4, 13)
  targets = source.integers(0, 9, (2, 7)).astype(np.int32)
  readout, read_theirs = Readout(ids=9), Readout(ids=9, softcap=3.0)
  whole, pieces = (jax.jit(functools.partial(with_teacher, temperature=0.7, chunk=chunk,
                                             readouts=(readout, read_theirs))) for chunk in (0, 3))
  kl, chosen, entropy, correct = whole(hidden, unembed, (theirs, table), targets)
  log_of = lambda z: z - np.log(np.exp(z).sum(-1, keepdims=True))
  exact = lambda *arrays: [array.astype(np.float64) for array in arrays]
  log_p = log_of((np.matmul(*exact(hidden, unembed)) / 0.7)[..., :9])
  log_q = log_of((3 * np.tanh(np.matmul(*exact(theirs, table)) / 3) / 0.7)[..., :9])
  np.testing.assert_allclose(kl, (np.exp(log_p) * (log_p - log_q)).sum(-1), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(chosen, np.take_along_axis(log_p, targets[..., None], -1)[..., 0], rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(entropy, -(np.exp(log_p) * log_p).sum(-1), rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(correct, log_p.argmax(-1) == targets)
  forward = with_teacher(hidden, unembed, (theirs, table), targets, temperature=0.7, readouts=(readout, read_theirs),
                         kl=forward_kl)[0]
  np.testing.assert_allclose(forward, (np.exp(log_q) * (log_q - log_p)).sum(-1), rtol=1e-5, atol=1e-5)
  total = lambda of: jax.jit(jax.grad(lambda *arrays: jnp.sum(of(*arrays, (theirs, table), targets)[0] ** 2), (0, 1)))
  for piece, one in zip(total(pieces)(hidden, unembed), total(whole)(hidden, unembed), strict=True):
    np.testing.assert_allclose(piece, one, rtol=1e-4, atol=1e-5)
  for piece, one in zip(pieces(hidden, unembed, (theirs, table), targets), (kl, chosen, entropy, correct), strict=True):
    np.testing.assert_allclose(piece, one, rtol=1e-5, atol=1e-6)


def test_logits_of_neither_model_exist_whole_in_the_gradient_of_the_kl_to_a_teacher():
  rows, length, chunk, vocab = 2, 64, 8, 1000
  shape = lambda *sizes, dtype=jnp.float32: jax.ShapeDtypeStruct(sizes, dtype)
  loss = lambda hidden, unembed, *rest: jnp.sum(with_teacher(hidden, unembed, rest[:2], rest[2], chunk=chunk)[0])
  compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(
      shape(rows, length, 4), shape(4, vocab), shape(rows, length, 3), shape(3, vocab),
      shape(rows, length, dtype=jnp.int32)).compile()
  sizes = [math.prod(map(int, sizes.split(","))) for sizes in re.findall(
      r"(?:f32|bf16|s32|pred)\[([\d,]+)\]", compiled.as_text())]
  assert max(sizes) <= rows * chunk * vocab
