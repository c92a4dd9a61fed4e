"""`sftrl sample` on a real, tiny run: once, row by row, and what it refuses."""

import io
import json
import shutil
import sys

import numpy as np
import pytest

from sftrl_jax import main
from sftrl_jax.pictures.read import png
from sftrl_jax.programs import data
from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.sample import run as sample_run
from sftrl_jax.programs.sample.run import SampleOptions, read_options, recommended, run


@pytest.fixture
def prompt(finished):
  """A prompt of the environment that the tiny run was trained on."""
  line = json.loads((finished("sft") / "episodes.jsonl").read_text().splitlines()[0])
  return line["chat"][0]["text"]


def test_one_prompt_is_answered_and_the_same_seed_says_the_same(finished, prompt, capsys, monkeypatch):
  source = str(finished("sft"))
  outputs = []
  for seed in (1, 1, 2):
    run(source, SampleOptions(prompt=prompt, seed=seed, temperature=1.0, max_new_tokens=6))
    outputs.append(capsys.readouterr())
  assert outputs[0].out == outputs[1].out != outputs[2].out and outputs[0].out.endswith("\n")
  assert "at step 2" in outputs[0].err and "tokens" in outputs[0].err
  monkeypatch.setattr(sys, "stdin", io.StringIO(prompt + "\n"))
  run(f"{source}@2", SampleOptions(seed=1, temperature=1.0, max_new_tokens=6))
  assert capsys.readouterr().out == outputs[0].out


def test_rows_are_answered_and_unknown_words_are_told_by_line(finished, prompt, tmp_path, capsys):
  source, rows, out = str(finished("sft")), tmp_path / "rows.jsonl", tmp_path / "made" / "answers.jsonl"
  rows.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in (prompt, "zebra", prompt)))
  options = dict(rows_in=str(rows), rows_out=str(out), max_new_tokens=6, temperature=0.0)
  with pytest.raises(ConfigError, match="line 2: 'zebra' is no word"):
    run(source, SampleOptions(**options))
  assert not out.parent.exists()
  run(source, SampleOptions(**options, skip=True))
  lines = [json.loads(line) for line in out.read_text().splitlines()]
  assert [line["prompt"] for line in lines] == [prompt, prompt] and lines[0] == lines[1]
  assert "left out: line 2" in capsys.readouterr().err
  before = out.read_text()
  run(source, SampleOptions(**options, skip=True))
  assert out.read_text() == before and "0 of them new, 1 left out" in capsys.readouterr().out


def test_raw_text_gets_no_end_of_turn(finished, prompt, capsys):
  from sftrl_jax.text.tokenizer import byte
  assert sample_run.unrendered(byte(), "a") == [1, 101]   # no <end>, which would close what others say
  run(str(finished("sft")), SampleOptions(prompt=prompt, raw=True, max_new_tokens=4))
  assert capsys.readouterr().out.endswith("\n")


def test_a_prompt_that_cannot_be_read_is_an_error(finished, monkeypatch):
  with pytest.raises(ValueError, match="'zebra' is no word"):
    run(str(finished("sft")), SampleOptions(prompt="zebra"))
  monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
  with pytest.raises(ConfigError, match="No prompt"):
    run(str(finished("sft")), SampleOptions())


def test_a_picture_that_is_not_read_is_an_error_before_anything_is_compiled(finished, prompt, tmp_path):
  (tmp_path / "a.png").write_bytes(png(np.zeros((2, 2, 3), np.uint8)))
  for name, message in (("a.png", "reads text only: give a vision-lang"), ("b.png", "cannot be read .no such")):
    with pytest.raises(ConfigError, match=f"--image.*{message}"):
      run(str(finished("sft")), SampleOptions(prompt=prompt, image=(str(tmp_path / name),)))
  rows = tmp_path / "rows.jsonl"
  rows.write_text(json.dumps({"prompt": prompt, "images": ["a.png"]}) + "\n")
  with pytest.raises(ConfigError, match="line 1: .*renders text only, .* use a vision-language model"):
    run(str(finished("sft")), SampleOptions(rows_in=str(rows), rows_out=str(tmp_path / "out.jsonl")))


def test_rows_with_pictures_are_answered_by_a_run_and_other_pictures_are_not_mixed_in(pictured, run_of, tmp_path):
  """Rows of `sftrl data` are such rows: their prompts are answered, their completions stay in the line."""
  rows, out = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
  data.run(json.loads(json.dumps(nested.plain(pictured("sft")))), rows, count=3)
  run_of(pictured("sft", steps=1), tmp_path / "run")
  options = SampleOptions(rows_in=str(rows), rows_out=str(out), max_new_tokens=4)
  run(str(tmp_path / "run"), options)
  lines = [json.loads(line) for line in out.read_text().splitlines()]
  assert [{key: line[key] for key in ("prompt", "completion", "images")} for line in lines] == [
      json.loads(line) for line in rows.read_text().splitlines()] and all(line["tokens"] for line in lines)
  out.write_text(out.read_text().splitlines(keepends=True)[0])
  run(str(tmp_path / "run"), options)
  assert [json.loads(line) for line in out.read_text().splitlines()] == lines
  shutil.copy(tmp_path / lines[0]["images"][0], tmp_path / lines[1]["images"][0])
  with pytest.raises(ConfigError, match="other settings .pictures."):
    run(str(tmp_path / "run"), options)


def test_from_must_be_something(tmp_path):
  with pytest.raises(ConfigError, match="has no checkpoint"):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text('{"verb": "sft"}')
    run(str(tmp_path), SampleOptions(prompt="a"))
  with pytest.raises(ConfigError, match="cannot be read"):   # told before anything is loaded
    run("nowhere", SampleOptions(rows_in=str(tmp_path / "no.jsonl"), rows_out=str(tmp_path / "out.jsonl")))


def test_words_become_what_is_asked():
  flags = {"--temperature": "0", "--top-p": "0.9", "--rows": "4", "--stop": ["a", "b"], "--in": "x", "--out": "y",
           "--max-new-tokens": "7", "--on-bad-row": "skip"}
  assert read_options(flags, {"--debug"}) == SampleOptions(
      temperature=0.0, top_p=0.9, rows=4, stop=("a", "b"), rows_in="x", rows_out="y", max_new_tokens=7, skip=True)
  assert read_options({"--prompt": "hi"}, {"--raw"}) == SampleOptions(prompt="hi", raw=True)


def test_the_command_line_takes_several_stop_strings_and_a_bare_raw():
  command = main.scan(["sample", "runs/x", "--stop=a", "--stop", "b", "--raw", "--prompt=hi"])
  assert read_options(command.flags, command.switches) == SampleOptions(prompt="hi", stop=("a", "b"), raw=True)
  command = main.scan(["sample", "runs/x", "--image=a.png", "--image", "b.png"])
  assert read_options(command.flags, command.switches).image == ("a.png", "b.png")
  with pytest.raises(main.Misuse, match="--seed is given twice"):
    main.scan(["sample", "runs/x", "--seed=1", "--seed=2"])
  with pytest.raises(main.Misuse, match="--raw is no flag of bench"):
    main.scan(["bench", "--raw"])


@pytest.mark.parametrize("flags, switches, message", [
    ({"--top-p": "1.5"}, (), "^--top-p is 1.5; it must lie in"), ({"--top-p": "0"}, (), "^--top-p is 0; it must"),
    ({"--max-new-tokens": "0"}, (), "^--max-new-tokens is 0; it must be at least 1"),
    ({"--top-k": str(2**40)}, (), "^--top-k is .*at most 2147483647"), ({"--stop": [""]}, (), "^--stop is empty"),
    ({"--temperature": "inf"}, (), "^--temperature is inf; it must be finite"),
    ({"--temperature": "warm"}, (), "--temperature=warm is no number"), ({"--rows": "1.5"}, (), "is no whole number"),
    ({"--temperature": "nan"}, (), "must be finite and not neg"), ({"--seed": "-1"}, (), "finite and not negative"),
    ({"--in": "x"}, (), "--in and --out belong together"), ({"--rows": "0"}, (), "rows must be at least 1"),
    ({"--in": "x", "--out": "y", "--prompt": "z"}, (), "give one"), ({"--system": "x"}, ("--raw",), "no chat template"),
    ({"--dtype": "float16"}, (), "must be float32 or bfloat16"), ({"--temperature": "101"}, (), "between 0"),
    ({"--image": ["x.png"]}, ("--raw",), "--image is before a prompt of a chat"),
    ({"--on-bad-row": "ignore"}, (), "must be error or skip")])
def test_wrong_words_are_refused(flags, switches, message):
  with pytest.raises(ConfigError, match=message):
    read_options(flags, frozenset(switches))


def test_a_model_may_recommend_how_it_is_sampled(tmp_path):
  assert recommended(tmp_path) == {}
  path = tmp_path / "generation_config.json"
  path.write_text('{"do_sample": true, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [1, 2]}')
  assert recommended(tmp_path) == {"temperature": 0.6, "top_p": 0.95}
  path.write_text('{"do_sample": false, "temperature": 0.6}')
  assert recommended(tmp_path) == {"temperature": 0.0}
  path.write_text('{"do_sample"')
  with pytest.raises(ConfigError, match="is no JSON"):
    recommended(tmp_path)
