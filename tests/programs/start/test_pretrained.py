"""A pretrained model goes through every program: trained, resumed, taken over, evaluated."""

import json
import shutil

import jax
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.checkpoints import hf
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.evaluate import run as evaluate
from sftrl_jax.programs.experiment import run_config, saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.start import checkpoint_ref, pretrained
from sftrl_jax.text import pretrained as text_pretrained
from sftrl_jax.text.render import continued, render

TEMPLATE = ("{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
CHANGES = {
    "start": "", "model.name": "pretrained", "model.dtype": "float32", "model.remat": "none",
    "tokenizer.name": "pretrained", "env.style": "short", "steps": "2", "flops": "0", "batch": "8",
    "data.length": "160", "compute.microbatches": "1", "rollout.rows": "8", "rollout.shrink": "()",
    "rollout.prompt_tokens": "60", "rollout.feedback_tokens": "50", "rollout.max_new_tokens": "8",
    "evals.episodes": "8", "evals.at": "()",
    "evals.variants": "('rule_ood',)", "evals.temperatures": "(0.0,)", "env.attempts": "2", "log.every": "1",
    "log.writers": "()", "checkpoint.every": "1", "mesh.cpu_threads": "0", "ppo.minibatches": "1"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  """A directory of Hugging Face files: a llama of one layer, and a tokenizer over bytes with a chat template."""
  pytest.importorskip("transformers")
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast

  from sftrl_jax.text.pretrained import Pretrained
  names = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
  made = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, []))
  made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
  made.add_special_tokens(names[:4])
  words = Pretrained.of(PreTrainedTokenizerFast(
      tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>", chat_template=TEMPLATE))
  config = DecoderConfig(vocab=words.size + 4, width=16, layers=1, heads=2, kv_heads=1, mlp_dim=24, norm_eps=1e-5)
  home = tmp_path_factory.mktemp("weights") / "model"
  hf.save(home, config, build(config).init(jax.random.key(3)), words)
  return home


@pytest.fixture(scope="module")
def config(weights, one_device):
  """config(verb, **overrides) of GeneralPoints in the short style from these weights."""
  def make(verb, **overrides):
    changed = {**CHANGES, "start": str(weights), **{key.replace("__", "."): value for key, value in overrides.items()}}
    file = resolve.load(f"configs/general_points/{'sft' if verb == 'sft' else 'ppo'}.py:smollm2")
    alien = "ppo." if verb == "sft" else "data."
    keep = [(key, value) for key, value in changed.items() if not key.startswith(alien)]
    return run_config.resolve_for(verb, file, keep, lambda _: None)
  return make


@pytest.fixture(scope="module")
def trained(config, run_of, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "sft"
  run_of(config("sft"), workdir)
  return workdir


def leaves(tree):
  return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in
          jax.tree_util.tree_leaves_with_path(tree)}


def test_model_and_tokenizer_come_with_the_weights(config, weights):
  experiment = build_experiment(config("rl"), "rl")
  loaded = hf.load(weights)
  assert experiment.model.config.width == 16 and experiment.model.config.remat == "none"
  assert experiment.tokenizer == loaded.tokenizer and experiment.model.config.vocab == experiment.tokenizer.size + 4


def test_arguments_of_the_chat_template_are_a_part_of_the_run(config, weights, run_of, tmp_path):
  """Every program of the run renders with them, and what it exports needs none."""
  home, chat = tmp_path / "model", (Message("user", "q"),)
  shutil.copytree(weights, home)
  path = home / "chat_template.jinja"
  path.write_text(path.read_text().replace("'<|assistant|>' }}", "'<|assistant|>' + (mood or '') }}"))
  begin = dict(start=str(home), tokenizer__template_args="{'mood': 'mild'}", steps="1", evals__variants="()",
               env__attempts="1")
  tokenizer = build_experiment(config("rl", **begin), "rl").tokenizer
  assert tokenizer.decode(render(tokenizer, chat)[0]) == "<|user|>q<|end|><|assistant|>mild"
  assert continued(tokenizer, (*chat, Message("assistant", "a"), *chat)) == render(tokenizer, chat)[0]
  run_of(config("sft", **begin), tmp_path / "run")
  assert json.loads((tmp_path / "run" / "config.json").read_text())["tokenizer"]["template_args"] == {"mood": "mild"}
  again = build_experiment(saved_run.config_of(tmp_path / "run", []), "sft", tmp_path / "run").tokenizer
  assert again == tokenizer and text_pretrained.load(tmp_path / "run" / "pretrained") == tokenizer
  for args, message in (("{'mod': 1}", "^config.tokenizer.template_args names 'mod', .* it reads mood"),
                        ("{'messages': []}", "template_args names 'messages'")):
    with pytest.raises(ConfigError, match=message):
      build_experiment(config("sft", **{**begin, "tokenizer__template_args": args}), "sft")


@pytest.mark.parametrize(("tokens", "message"), [
    ("nothing", "assistant_tokens names 'nothing', which is no added token"),
    ("<|end|>", "assistant_tokens names '<|end|>', at which responses .* end: it cannot stand inside")])
def test_tokens_that_an_assistant_cannot_write_are_refused(config, tokens, message):
  with pytest.raises(ConfigError, match="^config.tokenizer." + message.replace("|", r"\|")):
    build_experiment(config("sft", tokenizer__assistant_tokens=tokens), "sft")
  with pytest.raises(ConfigError, match="tokenizer.*assistant_tokens is .* but name is 'words'"):
    build_experiment(config("sft", tokenizer__assistant_tokens=tokens, tokenizer__name="words"), "sft")


def test_a_workdir_stands_alone(config, trained, weights, run_of, tmp_path, monkeypatch):
  """Its description is enough to evaluate it, to start from it, and to be started from again, once the weights are
  gone."""
  away = tmp_path / "away"
  shutil.move(weights, away)
  try:
    lines = evaluate.run(str(trained), [], str(tmp_path / "judged"))
    assert [line["variant"] for line in lines] == ["rule_ood"]
    run_of(config("rl", start=str(trained), steps="1", evals__variants="()", env__attempts="1"), tmp_path / "rl")
    assert checkpoint_ref.is_workdir(tmp_path / "rl") and (tmp_path / "rl" / "pretrained" / "config.json").is_file()
    lines = evaluate.run(str(tmp_path / "rl"), [("evals.variants", "('rule_ood',)")], str(tmp_path / "judged2"))
    assert lines[0]["step"] == 1
  finally:
    shutil.move(away, weights)


def test_a_run_from_weights_begins_with_them_and_is_resumed(config, run_of, weights, trained, lines_of, tmp_path):
  straight = lines_of(trained, "metrics.jsonl")
  shutil.copytree(trained, tmp_path / "again")
  shutil.rmtree(tmp_path / "again" / "checkpoints" / "2")
  (tmp_path / "again" / "progress.json").unlink()
  run_of(config("sft"), tmp_path / "again")
  resumed = lines_of(tmp_path / "again", "metrics.jsonl")
  assert [line["loss"] for line in resumed] == [line["loss"] for line in straight]
  experiment = build_experiment(config("sft"), "sft")
  begun, theirs = pretrained.load(str(weights), experiment.model.config, None), hf.load(weights).params
  for path, leaf in leaves(theirs).items():
    np.testing.assert_array_equal(leaves(begun)[path], leaf)


@pytest.mark.parametrize(("changes", "told"), [
    ({"start": "scratch"}, "not a pretrained model"),
    ({"model__name": "decoder"}, "--config.model.name=pretrained"),
])
def test_what_does_not_agree_is_told_before_anything_is_written(config, run_of, tmp_path, changes, told):
  with pytest.raises(ConfigError, match=told):
    run_of(config("sft", **changes), tmp_path / "w")
  assert not (tmp_path / "w").exists()


def test_a_tokenizer_larger_than_the_model_is_told(weights, config, tmp_path):
  home = tmp_path / "larger"
  shutil.copytree(weights, home)
  told = json.loads((home / "tokenizer.json").read_text())
  told["added_tokens"].append({**told["added_tokens"][0], "id": 9000, "content": "<|more|>"})
  (home / "tokenizer.json").write_text(json.dumps(told))
  with pytest.raises(ConfigError, match="1 ids beyond the model's vocabulary.*<|more|>"):
    build_experiment(config("sft", start=str(home)), "sft")


def test_weights_that_are_not_whole_are_told_of_before_anything_is_written(weights, config, run_of, tmp_path):
  torn = tmp_path / "torn"
  shutil.copytree(weights, torn)
  whole = (torn / "model.safetensors").read_bytes()
  (torn / "model.safetensors").write_bytes(whole[: len(whole) // 2])
  for verb in ("sft", "rl"):
    with pytest.raises(ConfigError, match="is cut off"):
      run_of(config(verb, start=str(torn)), tmp_path / "run")
  (torn / "model.safetensors").unlink()
  with pytest.raises(ConfigError, match="has no weights"):
    run_of(config("sft", start=str(torn)), tmp_path / "run")
  assert not (tmp_path / "run").exists()
