"""convert: from anything to a directory, once, or one error and nothing written."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.chat import Message
from sftrl_jax.checkpoints import fill, hf, store as stores
from sftrl_jax.main import main
from sftrl_jax.models import DecoderConfig
from sftrl_jax.programs.config import resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment import build, run_config
from sftrl_jax.programs.runtime.lock import only_output
from sftrl_jax.text import render

CONFIG = DecoderConfig(vocab=16, width=8, layers=2, heads=2, qkv_bias=True, context=32)


@pytest.fixture
def model(tmp_path):
  """A directory that is no export of ours."""
  home = tmp_path / "model"
  random = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32)
  hf.save(home, CONFIG, jax.tree.map(draw, fill.shapes_of(CONFIG)))
  fields = json.loads((home / "config.json").read_text())
  (home / "config.json").write_text(json.dumps({key: value for key, value in fields.items() if "sftrl" not in key}))
  return home


def test_a_directory_in_another_dtype(model, tmp_path, capsys):
  assert main(["convert", str(model), str(tmp_path / "half"), "--dtype=bfloat16"]) == 0
  output = capsys.readouterr().out
  assert f"Written: {tmp_path}/half from {model}, a Hugging Face directory" in output and "in bfloat16" in output
  assert "MB of memory" in output and "no tokenizer" in output
  assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
  assert main(["convert", str(tmp_path / "half"), str(tmp_path / "again")]) == 0
  assert (tmp_path / "half/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()
  assert "qwen2" in (tmp_path / "again" / "config.json").read_text()


def test_a_second_writer_of_the_directory_is_refused(model, tmp_path, capsys):
  with only_output(tmp_path / "out", "TO"):
    assert main(["convert", str(model), str(tmp_path / "out")]) == 1
  assert "out is being written by process" in capsys.readouterr().err and not (tmp_path / "out").exists()


def written(config, home):
  """(a workdir with a checkpoint 4, its model), written by no run: loop/test_session.py tests exports of runs."""
  model, random = build.build_experiment(config, "sft").model, np.random.default_rng(0)
  params = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), fill.shapes_of(model.config))
  store = stores.manager(home)
  stores.save(store, 4, {"params": {"model": params}}, {"step": 4})
  stores.finish(store)
  store.close()
  (home / "config.json").write_text(json.dumps({"verb": "sft", **config.to_dict()}))
  return model.config, params


def test_a_checkpoint_of_a_run(tiny, tmp_path, capsys):
  home = tmp_path / "run"
  config, params = written(tiny("sft", model__mlp="gated"), home)
  assert main(["convert", f"{home}@4", str(tmp_path / "out"), "--dtype=float32"]) == 0, capsys.readouterr().err
  output = capsys.readouterr().out
  assert f"from {home} at step 4" in output and "no tokenizer" in output
  loaded = hf.load(tmp_path / "out")
  assert dataclasses.replace(loaded.config, context=0) == dataclasses.replace(config, remat="full", unroll=1, context=0)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), loaded.params, params)


def test_a_run_of_a_model_that_nobody_else_has_is_refused_before_it_is_read(tiny, tmp_path, capsys):
  written(tiny("sft"), tmp_path / "run")
  assert main(["convert", str(tmp_path / "run"), str(tmp_path / "out")]) == 1
  assert "llama comes nearest, but has no mlp='plain'" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words, message", [
    (["MODEL", "MODEL"], "is not empty .* and is no export of sftrl"), (["MODEL", "MODEL/config.json"], "is a file"),
    (["nowhere", "OUT"], "'nowhere' is neither the workdir of a run"), (["x.gguf", "OUT"], "no file x.gguf"),
    (["MODEL", "OUT", "--dtype=int8"], "--dtype=int8: it must be one of float32, bfloat16"),
    (["PARENT@3", "OUT"], "is neither the workdir")])
def test_what_cannot_be_is_one_error_and_nothing_is_written(model, tmp_path, capsys, words, message):
  names = {"MODEL": str(model), "OUT": str(tmp_path / "out"), "PARENT": str(tmp_path)}
  for name, path in names.items():
    words = [word.replace(name, path) for word in words]
  before = sorted(tmp_path.rglob("*"))
  assert main(["convert", *words]) == 1
  error = capsys.readouterr().err
  assert error.startswith("error: ") and re.search(message, error), error
  assert sorted(tmp_path.rglob("*")) == before


def shortened(home):
  (home / "model.safetensors").write_bytes((home / "model.safetensors").read_bytes()[:-1])


def without_a_shard(home):
  (home / "model.safetensors").unlink()
  (home / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-1-of-2.safetensors"}}')


HOSTILE = {
    "is cut off": shortened, "lacks model-1-of-2.safetensors, which its index names": without_a_shard,
    "needs LayerNorm and learned positions": lambda home: (home / "config.json").write_text('{"model_type": "gpt2"}'),
    "1 ids beyond the model's vocabulary of 16, such as 'x'": lambda home: (home / "tokenizer.json").write_text(
        '{"model": {"vocab": {"x": 16}}}'),
    "can run code": lambda home: (home / "model.safetensors").rename(home / "pytorch_model.bin"),
    "12 missing": lambda home: (home / "config.json").write_text((home / "config.json").read_text().replace(
        '"num_hidden_layers": 2', '"num_hidden_layers": 3').replace('"layer_types"', '"-"')),
    "no sound JSON": lambda home: (home / "config.json").write_bytes(b'{"model_type": "\xff'),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_directory_that_is_broken_is_one_error_and_nothing_is_written(model, tmp_path, capsys, message):
  HOSTILE[message](model)
  assert main(["convert", str(model), str(tmp_path / "out")]) == 1
  error = capsys.readouterr().err
  assert message in error and error.count("error: ") == 1 and "Traceback" not in error
  assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("words", [[], ["a"], ["a", "b", "c"], ["a", "b", "-x"], ["a", "b", "--config.seed=1"]])
def test_wrong_words_are_misuse(words, capsys):
  assert main(["convert", *words]) == 2


CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "good"}]
CHAT = {"steps": "60", "batch": "2", "data.length": "48", "compute.microbatches": "1", "compute.logit_chunk": "0",
        "schedule.warmup": "1", "optimizer.learning_rate": "0.02", "checkpoint.every": "60", "log.every": "60",
        "checkpoint.export_every": "60", "mesh.cpu_threads": "0", "log.report": "false"}


@pytest.fixture(scope="module")
def exports(run_of, one_device, tmp_path_factory):
  """exports(adapters) -> the workdir of a run that learned to answer "good", from a base model whose texts end in
  <|endoftext|> and whose chats, by the template beside it, in <|im_end|>."""
  transformers = pytest.importorskip("transformers")
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers
  home = tmp_path_factory.mktemp("ends")
  names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
  backend = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, []))
  backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
  backend.add_special_tokens(list(SPECIAL))
  config = DecoderConfig(vocab=len(names) + 5, width=32, layers=1, heads=2, mlp_dim=48, context=64)
  random = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(random.normal(size=x.shape) * 0.3, jnp.float32)
  hf.save(home / "base", config, jax.tree.map(draw, fill.shapes_of(config)))
  transformers.PreTrainedTokenizerFast(
      tokenizer_object=backend, eos_token=SPECIAL[0], pad_token=SPECIAL[0], model_max_length=64,
      chat_template=CHATML).save_pretrained(home / "base")
  fields = json.loads((home / "base" / "config.json").read_text())
  for name, more in (("config.json", {}), ("generation_config.json", {"do_sample": True, "temperature": 0.6})):
    fields = {**(fields if name == "config.json" else {}), "bos_token_id": 0, "eos_token_id": 0, **more}
    (home / "base" / name).write_text(json.dumps(fields))
  (home / "rows.jsonl").write_text(json.dumps({"messages": MESSAGES}) + "\n")

  @functools.cache
  def trained(adapters):
    file = resolve.load("configs/sft/chat.py")
    changes = {**CHAT, "start": str(home / "base"), "data.path": str(home / "rows.jsonl"),
               **({"lora.rank": "16", "optimizer.learning_rate": "0.05"} if adapters else {})}
    run_of(run_config.resolve_for("sft", file, list(changes.items()), lambda _: None), home / f"run{adapters}")
    return home / f"run{adapters}"

  return trained


@pytest.mark.parametrize("adapters", [False, True])
def test_an_export_ends_where_the_run_does(exports, adapters, tmp_path, capsys):
  """Of SFT and of adapters, by export_every and by convert: every file names every end, and keeps the start's rest."""
  workdir = exports(adapters)
  assert main(["convert", str(workdir), str(tmp_path / "out"), "--dtype=bfloat16"]) == 0
  assert main(["convert", str(tmp_path / "out"), str(tmp_path / "again"), "--dtype=float32"]) == 0
  homes = (workdir / "exports" / "60", tmp_path / "out", tmp_path / "again", workdir / "pretrained")
  for home, dtype in zip(homes, ("float32", "bfloat16", "float32", "float32"), strict=True):
    config, generation, words = (json.loads((home / f"{name}.json").read_text()) for name in (
        "config", "generation_config", "tokenizer_config"))
    assert config["eos_token_id"] == generation["eos_token_id"] == [2, 0] and config["dtype"] == dtype
    assert config["torch_dtype"] == dtype and config["max_position_embeddings"] == words["model_max_length"] == 64
    assert generation["do_sample"] is True and generation["temperature"] == 0.6
    assert generation["bos_token_id"] == generation["pad_token_id"] == config["bos_token_id"] == 0
    assert words["eos_token"] == "<|im_end|>" and words["pad_token"] == "<|endoftext|>"
    assert words["tokenizer_class"] == "PreTrainedTokenizerFast" and "is_local" not in words
    assert hf.tokenizer(home, hf.describe(home)).stops == (2, 0)


@pytest.mark.parametrize("adapters", [False, True])
def test_transformers_stops_where_sample_does_and_renders_the_same_ids(exports, adapters, tmp_path, capsys):
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  workdir = exports(adapters)
  assert main(["convert", str(workdir), str(tmp_path / "out")]) == 0
  capsys.readouterr()
  assert main(["sample", str(workdir), "--prompt=Hello", "--temperature=0", "--max-new-tokens=12"]) == 0
  assert capsys.readouterr().out == "good\n"
  for home in (workdir / "exports" / "60", tmp_path / "out"):
    theirs, ours = transformers.AutoTokenizer.from_pretrained(home), hf.tokenizer(home, hf.describe(home))
    ids = theirs.apply_chat_template(MESSAGES[:1], add_generation_prompt=True, return_dict=False)
    assert ids == render.render(ours, (Message("user", "Hello"),))[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(home)
    written = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids):].tolist()
    assert theirs.decode(written) == "good<|im_end|>" and model.dtype == torch.float32


def test_adapters_of_a_run_are_written_read_and_trained_on(exports, finished, run_of, tmp_path, capsys):
  workdir, adapters = exports(True), tmp_path / "adapters"
  assert main(["convert", str(finished("sft")), str(adapters), "--adapters"]) == 1
  assert "--adapters: " in capsys.readouterr().err
  assert main(["convert", str(workdir), str(adapters), "--adapters"]) == 0, capsys.readouterr().err
  assert json.loads((adapters / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
      workdir.parent / "base")
  assert main(["sample", str(adapters), "--prompt=Hello", "--temperature=0", "--max-new-tokens=12"]) == 0
  assert capsys.readouterr().out.endswith("good\n")
  changes = {**CHAT, "start": str(adapters), "data.path": str(workdir.parent / "rows.jsonl"), "steps": "1",
             "lora.rank": "16", "optimizer.learning_rate": "1e-9", "checkpoint.export_every": "0"}
  config = lambda **more: run_config.resolve_for("sft", resolve.load("configs/sft/chat.py"), list(
      {**changes, **more}.items()), lambda _: None)
  with pytest.raises(ConfigError, match="whose adapters are not those .*--config.lora.rank=16 --config.lora.alpha=16"):
    run_of(config(**{"lora.rank": "8"}), tmp_path / "run")
  assert not (tmp_path / "run").exists()
  run_of(config(), tmp_path / "run")
  for source, target in ((workdir, "one"), (adapters, "two"), (tmp_path / "run", "three")):
    assert main(["convert", str(source), str(tmp_path / target)]) == 0
  one, two, three = (hf.load(tmp_path / name).params for name in ("one", "two", "three"))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, three)
