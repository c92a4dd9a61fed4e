"""Whole runs on pairs in small: DPO and a reward model, with adapters and without."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.checkpoints.export import REWARD
from sftrl_jax.data import packing
from sftrl_jax.data.pairs.batches import load_pairs
from sftrl_jax.main import main
from sftrl_jax.pictures.read import png
from sftrl_jax.programs import preference
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.learner import make_preference_learner
from sftrl_jax.programs.loop.pairs import reference, reward_scale
from sftrl_jax.programs.start import trainable

PAIRS = 18   # of the fixture `pairs`


@pytest.fixture(scope="module")
def trained(pair_config, tmp_path_factory):
  """{name: workdir} of whole runs."""
  home = tmp_path_factory.mktemp("trained")
  for name, made in (("dpo", pair_config()), ("lora", pair_config(lora__rank=2)), ("reward", pair_config("reward"))):
    preference.run(made, home / name)
  return home


@pytest.mark.parametrize("name", ["dpo", "lora"])
def test_dpo_begins_at_ln_2_and_learns(trained, lines_of, name):
  lines = lines_of(trained / name, "metrics.jsonl")
  assert [line["step"] for line in lines] == [1, 2, 3] and all(map(math.isfinite, lines[-1].values()))
  first, last = lines[0], lines[-1]
  assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
  assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)
  assert last["loss"] < first["loss"] and last["rewards/margins"] > 1e-3
  # The start's pass over the pairs is paid for once.
  assert first["compute/score_flops"] == last["compute/score_flops"] > 0
  assert lines[0]["compile/count"] == last["compile/count"]


def test_adapters_upon_adapters_begin_where_these_ended(trained, pair_config, lines_of, tmp_path):
  """The reference is the start, its adapters in it, and not the base below them."""
  preference.run(pair_config(lora__rank=2, start=trained / "lora", steps=1), tmp_path / "upon")
  line, = lines_of(tmp_path / "upon", "metrics.jsonl")
  assert line["loss"] == pytest.approx(math.log(2), abs=1e-6) and line["rewards/margins"] == pytest.approx(0, abs=1e-6)
  below, upon = (json.loads((home / reference.FILE).read_text())["logprobs"] for home in (
      trained / "lora", tmp_path / "upon"))
  assert np.abs(np.subtract(below, upon)).max() > 1e-2


def test_a_reward_model_is_exported_with_its_scores(trained, pair_config, tmp_path, capsys):
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  assert main(["convert", str(trained / "reward"), str(tmp_path / "out")]) == 0, capsys.readouterr().err
  assert "a reward model, at step 3" in capsys.readouterr().out
  scale = json.loads((tmp_path / "out" / "config.json").read_text())[REWARD]
  experiment = build_experiment(pair_config("reward"), "preference")
  corpus = load_pairs(experiment.data, experiment.tokenizer)
  ids = [corpus.examples.example(number)[0].tolist() for number in range(2 * corpus.count)]
  model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", dtype=torch.float32)
  logits = np.asarray([model(torch.tensor([each])).logits.item() for each in ids])
  raw, ours = logits + scale["bias"], json.loads((trained / "reward" / reward_scale.FILE).read_text())
  assert (raw.mean(), raw.std()) == pytest.approx((ours["mean"], ours["sd"]), abs=1e-4)
  assert (scale["mean"], scale["sd"]) == (ours["mean"], ours["sd"])
  assert ((raw - raw.mean()) / raw.std()).max() == pytest.approx(ours["highest"], abs=1e-3)


def test_a_reward_model_learns_its_head_and_its_trunk(trained, lines_of):
  lines = lines_of(trained / "reward", "metrics.jsonl")
  assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and lines[0]["rewards/accuracies"] == 0
  assert lines[-1]["loss"] < lines[0]["loss"]
  assert not (trained / "reward" / reference.FILE).exists()


@pytest.mark.parametrize("objective, more", [("dpo", {"lora__rank": 2}), ("reward", {})])
def test_a_run_that_was_stopped_has_the_bits_of_one_that_was_not(pair_config, lines_of, tmp_path, objective, more):
  made = lambda steps: pair_config(objective, steps=steps, checkpoint__every=1, **more)
  preference.run(made(4), tmp_path / "straight")
  preference.run(made(2), tmp_path / "stopped")
  progress = json.loads((tmp_path / "stopped" / "progress.json").read_text())
  assert progress["phase"] == "complete"
  preference.run(made(4), tmp_path / "stopped")
  timed = ("seconds", "timing", "throughput", "memory", "compile", "chip")
  straight, stopped = ([{key: value for key, value in line.items() if not any(word in key for word in timed)}
                        for line in lines_of(tmp_path / name, "metrics.jsonl")] for name in ("straight", "stopped"))
  assert straight == stopped and len(straight) == 4
  scales = [path.read_text() for path in sorted(tmp_path.glob(f"*/{reward_scale.FILE}"))]
  assert len(scales) == 2 * (objective == "reward") and len(set(scales)) <= 1   # that of 2 steps is written anew


@pytest.fixture(scope="module")
def pictured_pairs(tmp_path_factory):
  """overrides of pair_config(): pairs of answers to a picture, but for one of text, and a model that reads them."""
  home, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
  rows = []
  for number in range(7):
    (home / f"{number}.png").write_bytes(png(random.integers(0, 256, (32, 32, 3)).astype(np.uint8)))
    rows.append({"prompt": [{"role": "user", "content": "Which?"}],
                 "chosen": [{"role": "assistant", "content": "A" * (1 + number % 3)}],
                 "rejected": [{"role": "assistant", "content": "B"}], "images": [f"{number}.png"] if number else []})
  (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return dict(data__path=home / "pairs.jsonl", model__name="tiny_vlm", model__image_width=32, model__images=12,
              model__channels="(2, 3, 4)", model__connector=8, model__connector_std=0.6)


@pytest.mark.parametrize("objective", ["dpo", "reward"])
def test_pairs_with_pictures_are_learned_from_their_pictures(pair_config, pictured_pairs, objective):
  """Another picture is another score, of policy and reference alike; rows of pairs and of text beside them, packed and
  apart, have one loss and one gradient, which reaches the tower."""
  experiment = build_experiment(pair_config(objective, data__pack=False, **pictured_pairs), "preference")
  gradient = _packed_and_apart(experiment)
  tower = jax.tree.leaves(gradient["model"]["vision"])
  assert all(np.isfinite(leaf).all() for leaf in tower) and any(np.abs(leaf).max() > 0 for leaf in tower)
  if objective == "dpo":
    corpus = load_pairs(experiment.data, experiment.tokenizer)
    batch = corpus.laid([np.asarray([0]), np.asarray([1])], 2, 96)
    score = jax.jit(make_preference_learner(experiment).score_rows)
    params = {"model": experiment.model.init(jax.random.key(0))}
    swapped = batch.replace(inputs=batch.inputs.replace(images_BIYXC=255 - batch.inputs.images_BIYXC))
    change_BS = np.abs(np.asarray(score(params, batch)) - np.asarray(score(params, swapped)))
    assert not change_BS[0].any() and change_BS[1].min() > 1e-4


@pytest.mark.parametrize("objective", ["dpo", "reward"])
def test_packed_pairs_have_the_loss_and_the_gradient_of_pairs_apart(pair_config, objective):
  _packed_and_apart(build_experiment(pair_config(objective, data__pack=False), "preference"))


def _packed_and_apart(experiment):
  """The gradient, which is that of both."""
  learner, corpus = make_preference_learner(experiment), load_pairs(experiment.data, experiment.tokenizer)
  params, (_, trained, _) = experiment.model.init(jax.random.key(0)), trainable.abstract_trainable(experiment)
  head = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), trained.get("value"))
  params = {"model": params, **({"value": head} if head else {})}
  # A start that is another model, so that margins are not 0.
  ref_N2 = np.random.default_rng(0).normal(-8, 1, (corpus.count, 2)).astype(np.float32)
  apart = dataclasses.replace(corpus, ref_logprobs_N2=ref_N2)
  packed = dataclasses.replace(apart, most=6)
  members, ends = packing.packed(corpus.sizes, np.arange(corpus.count), 256, True, 6, corpus.pictured)
  layouts = (apart.laid(np.split(np.arange(corpus.count), corpus.count), corpus.count, 96),
             packed.laid(np.split(members, ends[:-1]), len(ends) + 1, 256))   # and a blank row
  assert len(ends) < corpus.count / 2
  (loss, grads), (other, others) = (jax.jit(jax.value_and_grad(lambda params, batch: learner.loss(params, batch)[
      0].value()))(params, batch) for batch in layouts)
  np.testing.assert_allclose(loss, other, rtol=1e-6)
  jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=2e-4, atol=2e-6), grads, others)
  return grads


def test_microbatches_of_unequal_numbers_of_pairs_have_the_gradient_of_the_whole(trained, pair_config, lines_of,
                                                                                 tmp_path):
  """The mean is over pairs, and not over means of pieces."""
  preference.run(pair_config(compute__microbatches=4, steps=2), tmp_path / "pieces")
  whole, pieces = (lines_of(home, "metrics.jsonl")[:2] for home in (trained / "dpo", tmp_path / "pieces"))
  for step, before, after in zip((1, 2), whole, pieces, strict=True):
    # Before the first update rewards are 0 to rounding, which alone decides which of a pair is above.
    accuracies = ("rewards/accuracies",) if step > 1 else ()
    for name in ("loss", "grad_norm", "logps/chosen", "response_length/rejected", *accuracies):
      assert after[name] == pytest.approx(before[name], rel=1e-4, abs=1e-6), name


def test_what_is_held_out_is_measured(pair_config, lines_of, tmp_path):
  preference.run(pair_config("reward", data__validation=0.3, steps=2), tmp_path / "run")
  lines = lines_of(tmp_path / "run", "metrics.jsonl")
  measured = [line for line in lines if "eval/loss" in line]
  assert (measured[0]["step"], measured[-1]["step"]) == (0, 2)
  assert measured[0]["eval/loss"] == pytest.approx(math.log(2), abs=1e-6)
  assert measured[-1]["eval/loss"] < measured[0]["eval/loss"] and 0 <= measured[-1]["eval/rewards/accuracies"] <= 1


@pytest.mark.parametrize("overrides, message", [
    ({"data__path": ""}, "config.data.path is ''.*--config.data.path=FILE"),
    ({"dpo__beta": 0}, "config.dpo.beta is 0"),
    ({"objective": "reward", "dpo__beta": 1}, "config.dpo.beta is of objective dpo, but config.objective is 'reward'"),
    ({"objective": "kto"}, "config.objective is 'kto'"),
    ({"compute__microbatches": 3}, "config.compute.microbatches is 3; it must divide config.batch = 4")])
def test_bad_input_is_one_error(pair_config, tmp_path, overrides, message):
  with pytest.raises(ConfigError, match=message):
    preference.run(pair_config(overrides.pop("objective", "dpo"), **overrides), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_head_with_hidden_layers_is_not_exported(pair_config):
  with pytest.raises(ConfigError, match=r"config.bradley_terry.layers is .4.*linear"):
    saved_run.refuse_deep_head(build_experiment(pair_config("reward", bradley_terry__layers="(4,)"), "preference"))


def test_a_reward_model_has_nothing_to_play(pair_config, tmp_path):
  made = pair_config("reward", env__name="general_points", env__style="compact", tokenizer__name="words",
                evals__variants="('id_seen',)")
  with pytest.raises(ConfigError, match="config.evals.variants is .*a model that scores"):
    preference.run(made, tmp_path / "run")


def test_a_pair_of_one_side_learns_the_other_way_round(pair_config, lines_of, tmp_path, pairs):
  """Labels that are reversed turn the first gradient round: the same loss, and margins that go the other way."""
  turned = tmp_path / "turned.jsonl"
  turned.write_text("".join(json.dumps({**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}) + "\n"
                            for pair in map(json.loads, pairs.read_text().splitlines())))
  for name, path in (("right", pairs), ("turned", turned)):
    preference.run(pair_config(steps=1, data__path=path, data__shuffle=False, batch=8), tmp_path / name)
  right, other = (lines_of(tmp_path / name, "metrics.jsonl")[0] for name in ("right", "turned"))
  assert right["loss"] == pytest.approx(other["loss"], abs=1e-6)
  assert right["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
  assert right["logps/chosen"] == pytest.approx(other["logps/rejected"], rel=1e-5)
