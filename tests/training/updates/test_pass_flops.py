"""What a pass over rows costs: the same as rows that are counted by hand, prompts that are shared once."""

import dataclasses

import pytest

from sftrl_jax.models import DecoderConfig, flops
from sftrl_jax.models.vision.tiny import TinyVisionConfig
from sftrl_jax.training.updates.pass_flops import PassFlops, StepFlops, teacher_flops

SMALL = dict(vocab=30, width=16, layers=2, heads=4, kv_heads=2)
CONFIG = DecoderConfig(**SMALL)


def test_whole_rows_cost_what_their_positions_do():
  plain = PassFlops(CONFIG)
  assert plain(60, 12) == StepFlops(flops.train(CONFIG, 60, 12), flops.forward(CONFIG, 60, 12))
  assert plain.computed(60, 12) == 60


def test_what_is_computed_besides_is_added():
  cost = lambda **changes: dataclasses.replace(PassFlops(CONFIG), **changes)(60, 12)
  plain, forward = cost(), flops.forward(CONFIG, 60, 12)
  assert cost(reads_reference=True) == StepFlops(plain.train, plain.score + forward)
  assert cost(adapters=100).score == plain.score + 2 * 60 * 100 and cost(adapters=100).train < plain.train
  head = 2 * 60 * (16 * 8 + 8)
  assert cost(value_layers=(8,)) == StepFlops(plain.train + 3 * head, plain.score + head)
  trunk = flops.forward(CONFIG, 60, 12, unembedded=0)
  assert cost(own_critic=True) == StepFlops(plain.train + 3 * trunk, plain.score + trunk)
  read = flops.forward(CONFIG, 60 + 5 * 3, 15, unembedded=60)
  assert cost(teacher=CONFIG, before=3) == StepFlops(plain.train + read, plain.score)
  assert teacher_flops(CONFIG, 3, 60, 12) == read and teacher_flops(None, 3, 60, 12) == 0


def test_a_shared_prompt_is_computed_once_a_group_and_without_logits():
  shared = PassFlops(CONFIG, prompt=20, group=4, longest=6, reads_reference=True)
  rows, length = 8, 6
  of_prompts = flops.forward(CONFIG, 2 * 20, 20, unembedded=0)
  of_rows = flops.forward(CONFIG, rows * length, length + 20)
  assert shared(rows * length, length) == StepFlops(3 * (of_rows + of_prompts), 2 * (of_rows + of_prompts))
  assert shared.computed(rows * length, length) == rows * length + 2 * 20
  # Eight rows, each with its prompt, cost 3.25 times as many positions.
  whole = PassFlops(CONFIG, reads_reference=True)(rows * (length + 20), length + 20)
  assert 2 < whole.train / shared(rows * length, length).train < (length + 20) / (length + 20 / 4) + 1


def test_a_shared_prompt_is_cut_as_the_rows_are():
  shared = PassFlops(CONFIG, prompt=60, group=4, longest=24)
  assert [shared.computed(8 * length, length) for length in (8, 16, 24)] == [
      8 * length + 2 * columns for length, columns in ((8, 24), (16, 40), (24, 60))]
  of_prompts = flops.forward(CONFIG, 2 * 24, 24, unembedded=0)
  assert shared(64, 8).score == flops.forward(CONFIG, 64, 8 + 24) + of_prompts


def test_adapters_have_no_gradient_of_a_prompts_kernels():
  adapted, plain = (PassFlops(CONFIG, adapters=count, prompt=20, group=4, longest=6)(48, 6) for count in (100, 0))
  own = 2.0 * (48 + 40) * flops.matmul_parameters(CONFIG) - 2.0 * 40 * CONFIG.width * CONFIG.vocab
  assert adapted.train == pytest.approx(plain.train + 3 * 2 * (48 + 40) * 100 - own)


def test_the_pictures_of_a_prompt_cost_once_a_group():
  config = TinyVisionConfig(**SMALL)
  each, once = (PassFlops(config, group=group)(48, 6) for group in (1, 4))
  saved = flops.pictures(config, 8) - flops.pictures(config, 2)
  assert each.score - once.score == pytest.approx(saved) and each.train - once.train == pytest.approx(3 * saved)
