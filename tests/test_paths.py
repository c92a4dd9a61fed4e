"""One place where the text of a path becomes a path, and what is written whole stays whole."""

import importlib.util
import os
import pathlib

import pytest

from sftrl_jax import paths


def test_a_text_is_a_path_here_or_in_a_bucket():
  assert paths.as_path("runs/x@3") == pathlib.Path("runs/x@3") and paths.is_here(paths.as_path("/tmp"))
  assert paths.as_path(pathlib.Path("a")) == pathlib.Path("a")
  there = paths.as_path("gs://bucket/dir/run")
  assert str(there / "config.json") == "gs://bucket/dir/run/config.json" and there.name == "run"
  assert not paths.is_here(there) and paths.as_path(there) is there and paths.absolute(there) == there
  assert paths.absolute(pathlib.Path("a")) == pathlib.Path.cwd() / "a"


@pytest.mark.parametrize("text", ["s3://bucket/run", "gs:/bucket/run", "gs://", "gs:///run", "https://x.org/run"])
def test_other_addresses_are_refused(text):
  with pytest.raises(ValueError, match="known are directories of this machine and gs://BUCKET/DIR"):
    paths.as_path(text)


def test_what_has_to_be_here_is_not_made_of_an_address():
  assert paths.local_path("out/rows.jsonl") == pathlib.Path("out/rows.jsonl")
  with pytest.raises(ValueError, match="--out=gs://b/rows.jsonl is not on this machine.*gcloud storage cp -r`"):
    paths.local_path("gs://b/rows.jsonl", "--out=")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
  paths._buckets.cache_clear()
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match=r"gs:// need the package gcsfs: pip install \"sftrl-jax\[gcs\]\""):
    paths.as_path("gs://bucket/run")


def test_a_file_is_replaced_in_one_move_and_an_object_in_one_request(bucket, tmp_path):
  for home in (tmp_path, paths.as_path("gs://bucket/whole")):
    path = home / "config.json"
    paths.make(home)
    paths.write_whole(path, "a")
    before = bucket.generation
    paths.write_whole(path, "bc")
    assert path.read_text() == "bc" and paths.size(path) == 2 and [file.name for file in home.iterdir()] == [path.name]
    assert bucket.generation == before + (home is not tmp_path)


def test_only_complete_checkpoints_are_steps(bucket, tmp_path):
  there = paths.as_path("gs://bucket/steps/checkpoints")
  assert paths.steps(there) == paths.steps(tmp_path / "checkpoints") == []
  for name in ("12", "3", "4.corrupt", "5.orbax-checkpoint-tmp"):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
  for name in ("12/state/x", f"12/{paths.COMMIT}", f"3/{paths.COMMIT}", "5/state/x", f"4.corrupt/{paths.COMMIT}"):
    (there / name).write_text("x")
  assert paths.steps(there) == paths.steps(tmp_path / "checkpoints") == [3, 12]


def test_a_directory_is_made_here_and_copied_there_its_last_file_last(bucket, tmp_path):
  with paths.staging(tmp_path / "x") as folder:
    assert folder == tmp_path / "x"
  there = paths.as_path("gs://bucket/staged")
  with pytest.raises(RuntimeError), paths.staging(there) as folder:
    (folder / "half.txt").write_text("half")
    raise RuntimeError
  assert not there.is_dir()
  with paths.staging(there, last="config.json") as folder:
    (folder / "deep").mkdir()
    for name in ("config.json", "deep/z.bin", "tokenizer.json"):
      (folder / name).write_bytes(os.urandom(3_000_000) if name == "deep/z.bin" else name.encode())
    content = (folder / "deep/z.bin").read_bytes()
  generations = {name: bucket.objects[f"staged/{name}"].generation for name in ("config.json", "tokenizer.json")}
  assert (there / "deep/z.bin").read_bytes() == content and generations["config.json"] > generations["tokenizer.json"]
  copy = paths.local_copy(there)
  assert {path.name: path.read_text() for path in copy.iterdir()} == {
      "config.json": "config.json", "tokenizer.json": "tokenizer.json"}
  assert paths.local_copy(there) is copy and paths.local_copy(tmp_path) is tmp_path
