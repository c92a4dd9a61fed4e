"""Demonstrations as rows: what TRL's names say, and what our own SFT would learn from the same stream."""

import dataclasses
import json
import pathlib

import pytest

from sftrl_jax.data import batches, rows
from sftrl_jax.main import main
from sftrl_jax.pictures import read as pictures
from sftrl_jax.programs import data
from sftrl_jax.programs.config import nested, resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.runtime.lock import only_output
from sftrl_jax.text import tokenizer as tokenizers
from sftrl_jax.text.images import ImageReader

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SFT = CONFIGS / "general_points" / "sft.py"


@pytest.fixture(scope="module")
def config(tiny):
  """config(**overrides) -> the plain resolved config of the small task, several attempts shown."""
  def make(**overrides):
    shown = {"data__attempts": "(0.5,0.5)", "data__length": "48", "env__attempts": "3", **overrides}
    return json.loads(json.dumps(nested.plain(tiny("sft", **shown))))
  return make


def test_a_second_writer_of_the_rows_is_refused(config, tmp_path):
  with only_output(tmp_path / "rows.jsonl", "--out"):
    with pytest.raises(ConfigError, match="rows.jsonl is being written by process .* give another --out"):
      data.run(config(), tmp_path / "rows.jsonl", count=4)
  assert not list(tmp_path.iterdir())


def test_rows_are_the_demonstrations_of_the_config(config, tmp_path, capsys):
  data.run(config(), tmp_path / "a" / "rows.jsonl", count=40)
  assert "40 demonstrations of the training task" in capsys.readouterr().out
  written = [json.loads(line) for line in (tmp_path / "a" / "rows.jsonl").read_text().splitlines()]
  chats = data.stream(config(), "")
  assert len(written) == 40 and {len(row["prompt"]) for row in written} == {1, 3}
  for index, row in enumerate(written):
    assert row.keys() == {"prompt", "completion"} and len(row["completion"]) == 1
    messages = [(message["role"], message["content"]) for message in (*row["prompt"], *row["completion"])]
    assert messages == [(message.role, message.text) for message in chats(index).chat]
    assert row["completion"][0]["role"] == "assistant"
  assert [path.name for path in (tmp_path / "a").iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_training_on_the_file_is_training_on_the_stream(suffix, config, tmp_path):
  """Ids and labels of a row are those of the demonstration: wrong attempts in the prompt are never learned."""
  if suffix == ".parquet":
    pytest.importorskip("pyarrow")
  data.run(config(), tmp_path / f"rows{suffix}", count=30)
  chats = data.stream(config(), "")
  from sftrl_jax.programs.experiment.environment import make_env
  for tokenizer in (tokenizers.byte(), tokenizers.words(make_env(config()["env"]).words)):
    corpus = rows.load(rows.RowsConfig(str(tmp_path / f"rows{suffix}"), length=4000), tokenizer)
    assert corpus.count == 30 and corpus.report.format == "prompt_completion"
    for index in range(30):
      ids, weights = batches.example(tokenizer, chats(index))
      assert [part.tolist() for part in corpus.example(index)] == [ids, [weight > 0 for weight in weights]]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_of_a_whole_walk_learn_what_the_demonstration_learns(suffix, config, tmp_path):
  if suffix == ".parquet":
    pytest.importorskip("pyarrow")
  walk = json.loads(json.dumps(resolve.load(str(CONFIGS / "virl" / "base.py")).to_dict()))
  walk = {**walk, "reward": "", "data": {**walk["data"], "attempts": (0.6, 0.4)}}
  data.run(walk, tmp_path / f"walks{suffix}", count=20)
  shown = data.stream(walk, "")
  from sftrl_jax.programs.experiment.environment import make_env
  tokenizer = tokenizers.words(make_env(walk["env"], "").words)
  corpus = rows.load(rows.RowsConfig(str(tmp_path / f"walks{suffix}"), length=4000), tokenizer)
  assert corpus.count == 20 and corpus.report.format == "messages"
  for index in range(20):
    ids, weights = batches.example(tokenizer, shown(index))
    assert [part.tolist() for part in corpus.example(index)] == [ids, [weight > 0 for weight in weights]]


def test_the_library_datasets_reads_both_files_alike(config, tmp_path):
  datasets = pytest.importorskip("datasets")
  for kind, suffix in (("json", ".jsonl"), ("parquet", ".parquet")):
    data.run(config(), tmp_path / f"rows{suffix}", count=5)
    read = datasets.load_dataset(kind, data_files=str(tmp_path / f"rows{suffix}"), split="train",
                                 cache_dir=str(tmp_path / "cache"))
    assert read.column_names == ["prompt", "completion"] and len(read) == 5
    assert read[0]["completion"][0]["role"] == "assistant" and read[0]["prompt"][0]["content"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_pictures_are_files_beside_the_rows(suffix, config, tmp_path):
  datasets = pytest.importorskip("datasets")
  settings = config(env__attempts="3")
  settings["env"] |= {"vision": True, "style": "recite", "noise": 0.6}
  data.run(settings, tmp_path / f"rows{suffix}", count=6)
  read = datasets.load_dataset({".jsonl": "json", ".parquet": "parquet"}[suffix], split="train",
                               data_files=str(tmp_path / f"rows{suffix}"), cache_dir=str(tmp_path / "cache"))
  shown = data.stream(settings, "")
  for index, row in enumerate(read):
    chat = shown(index).chat
    assert len(row["images"]) == 1 and (pictures.read(tmp_path / row["images"][0]) == chat[0].image).all()
    parts = [[(part["type"], part.get("text")) for part in message["content"]]
             for message in (*row["prompt"], *row["completion"])]
    assert parts == [[("image", None)] * (message.image is not None) + [("text", message.text)] for message in chat]
  from sftrl_jax.programs.experiment.environment import make_env
  tokenizer = tokenizers.words(make_env(settings["env"]).words, image=True)
  tokenizer = dataclasses.replace(tokenizer, reader=ImageReader(tokenizer.image, 4, 32, 96))
  corpus = rows.load(rows.RowsConfig(str(tmp_path / f"rows{suffix}"), length=400), tokenizer)
  for index in range(6):
    ids, weights = batches.example(tokenizer, shown(index))
    assert [part.tolist() for part in corpus.example(index)] == [ids, [weight > 0 for weight in weights]]
    assert (corpus.pictures.pixels([index])[0] == shown(index).chat[0].image).all()
  with pytest.raises(ConfigError, match="rows_images, which is there already"):
    data.run(settings, (tmp_path / "rows").with_suffix({".jsonl": ".parquet", ".parquet": ".jsonl"}[suffix]), count=1)


def test_a_variant_shows_its_own_task(config, tmp_path):
  for variant in ("", "rule_ood"):
    data.run(config(), tmp_path / f"rows_{variant}.jsonl", variant, 20)
  assert (tmp_path / "rows_.jsonl").read_text() != (tmp_path / "rows_rule_ood.jsonl").read_text()
  with pytest.raises(ConfigError, match="--variant is 'rule_odd', but general_points has id_seen, id_unseen, rule_ood"):
    data.run(config(), tmp_path / "x.jsonl", "rule_odd")


def test_rl_shows_one_right_answer_a_prompt(tiny, tmp_path):
  data.run(json.loads(json.dumps(nested.plain(tiny("rl")))), tmp_path / "rows.jsonl", count=5)
  assert all(len(json.loads(line)["prompt"]) == 1 for line in (tmp_path / "rows.jsonl").read_text().splitlines())


def test_wrong_words_are_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "there.jsonl").write_text("mine")
  before = sorted(tmp_path.rglob("*"))
  for words, code, message in (
      ([f"--config={SFT}"], 2, "data needs --out"), (["--out=x.jsonl"], 2, "data needs --config"),
      ([f"--config={SFT}", "--out=x.csv"], 1, "--out=x.csv: rows are written as .jsonl or .parquet"),
      ([f"--config={SFT}", "--out=there.jsonl"], 1, "--out=there.jsonl is there already"),
      ([f"--config={SFT}", "--out=there.jsonl/x.jsonl"], 1, "--out=there.jsonl is a file"),
      ([f"--config={SFT}", "--out=x.jsonl", "--count=0"], 1, "--count is '0', but should be a number of rows"),
      ([f"--config={SFT}", "--out=x.jsonl", "--count=many"], 1, "--count is 'many'"),
      ([f"--config={CONFIGS / 'study' / 'general_points_cpu.py'}", "--out=x.jsonl"], 1, "is a study; data takes"),
      ([f"--config={CONFIGS / 'sft' / 'chat.py'}:smoke", "--out=x.jsonl"], 1, "which has no demonstrations to write")):
    assert main(["data", *words]) == code
    error = capsys.readouterr().err
    assert message in error, error
  assert sorted(tmp_path.rglob("*")) == before


def test_half_a_file_is_never_left(config, tmp_path, monkeypatch):
  def torn(rows, path):
    path.write_text(json.dumps(next(rows)))
    raise OSError("No space left on device")
  monkeypatch.setitem(data.WRITERS, ".jsonl", torn)
  with pytest.raises(OSError, match="No space"):
    data.run(config(), tmp_path / "rows.jsonl")
  assert not list(tmp_path.iterdir())
