"""H: model files that somebody else made, and that do harm, lie, or are of another kind than they say."""

import json
import os
import pickle
import resource
import struct
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
from campaign import Command, Failed
from inputs import CHATML, chat, edit, header_of, talks, tensors, tiny, write, write_safetensors

SAMPLE = ("sample", "tiny", "--prompt=Hello", "--max-new-tokens=3")
EVIL = "import pathlib\npathlib.Path({!r}).write_text('code of the model ran')\n"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


class Harm:
  """A pickle that writes a file when it is read."""

  def __init__(self, mark: str):
    self.mark = mark

  def __reduce__(self):
    return os.system, (f"touch {self.mark}",)


def harmless(case) -> None:
  """Failed if code that came with the model was run."""
  if (case.home / "mark").exists():
    raise Failed("code that came with the model was run")


def code_beside(case, **table) -> dict:
  """evil.py in the tiny model, and what names it."""
  (case.home / "tiny" / "evil.py").write_text(EVIL.format(str(case.home / "mark")))
  return {"auto_map": {f"Auto{name}": f"evil.{name}" for name in
                       ("Config", "Model", "ModelForCausalLM", "Tokenizer")}, **table}


def modest() -> None:
  """Room for four gigabytes, so that a bomb hits the process and not the machine."""
  resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def lying(case, header=None, length=None) -> tuple[str, ...]:
  """The tiny model, whose safetensors file claims this."""
  tiny(case.home / "tiny")
  write_safetensors(case.home / "tiny" / "model.safetensors", tensors(), header, length)
  return SAMPLE


def templated(case, template: str) -> Command:
  tiny(case.home / "tiny", template=template)
  return Command(SAMPLE, before=modest)


def gguf(case, data: bytes) -> Command:
  (case.home / "model.gguf").write_bytes(b"GGUF" + data)
  return Command(("sample", "model.gguf", "--prompt=Hello"), before=modest)


def text(word: str) -> bytes:
  return struct.pack("<Q", len(word)) + word.encode()


def H1(case):
  tiny(case.home / "tiny")
  edit(case.home / "tiny" / "config.json", **code_beside(case))
  yield SAMPLE
  harmless(case)


def H2(case):
  tiny(case.home / "tiny")
  edit(case.home / "tiny" / "config.json", **code_beside(case, model_type="evil", architectures=["EvilForCausalLM"]))
  yield SAMPLE
  harmless(case)


def H3(case):
  tiny(case.home / "tiny")
  edit(case.home / "tiny" / "tokenizer_config.json", **code_beside(case, tokenizer_class="Evil"))
  yield SAMPLE
  harmless(case)


def H4(case):
  tiny(case.home / "tiny")
  (case.home / "tiny" / "model.safetensors").unlink()
  (case.home / "tiny" / "pytorch_model.bin").write_bytes(pickle.dumps(Harm(str(case.home / "mark"))))
  yield SAMPLE
  harmless(case)


def H5(case):
  tiny(case.home / "tiny")
  (case.home / "tiny" / "model.safetensors").write_bytes(pickle.dumps(Harm(str(case.home / "mark"))))
  yield SAMPLE
  harmless(case)


def H32(case):
  """A zip archive of 256 MB of zeros in 260 kB, where PyTorch's files are zip archives too."""
  tiny(case.home / "tiny")
  with zipfile.ZipFile(case.home / "tiny" / "model.safetensors", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("archive/data/0", bytes(1 << 28))
  return SAMPLE



def H6(case):
  return lying(case, length=1 << 62)


def H7(case):
  header = header_of(tensors())
  header["model.norm.weight"]["data_offsets"] = [1 << 40, (1 << 40) + 128]
  return lying(case, header)


def H8(case):
  header = header_of(tensors())
  header["model.norm.weight"]["data_offsets"] = [-128, 0]
  return lying(case, header)


def H9(case):
  header = header_of(tensors())
  header["model.embed_tokens.weight"]["shape"] = [1 << 40, 1 << 40]
  return lying(case, header)


def H10(case):
  return lying(case, '{"a":' * 100_000)


def indexed(case, target: str) -> tuple[str, ...]:
  """The tiny model with its weights behind an index that names this file."""
  home = tiny(case.home / "tiny")
  (home / "model.safetensors").rename(case.home / "outside.safetensors")
  write(home / "model.safetensors.index.json", {"weight_map": dict.fromkeys(tensors(), target)})
  return SAMPLE


def H11(case):
  return indexed(case, "../outside.safetensors")


def H12(case):
  return indexed(case, str(case.home / "outside.safetensors"))


def H13(case):
  tiny(case.home / "tiny")
  edit(case.home / "tiny" / "config.json", hidden_size=10**12)
  return Command(SAMPLE, before=modest)


def H14(case):
  tiny(case.home / "tiny")
  edit(case.home / "tiny" / "config.json", num_hidden_layers=10**9)
  return Command(SAMPLE, before=modest)


def H15(case):
  tiny(case.home / "tiny")
  edit(case.home / "tiny" / "config.json", num_attention_heads="four")
  return SAMPLE


def H16(case):
  tiny(case.home / "tiny")
  (case.home / "tiny" / "config.json").write_text("[" * 200_000)
  return SAMPLE


def H17(case):
  return templated(case, LOOP + CHATML)


def H18(case):
  """The ways out of a sandbox that are known: classes of objects, and what functions hold."""
  mark = case.home / "mark"
  yield templated(case, "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system("
                        f"'touch {mark}')" + " }}" + CHATML)
  harmless(case)


def H19(case):
  return templated(case, "{{ 'a' * 10000000000 }}" + CHATML)


def H20(case):
  return templated(case, "{% include '/etc/passwd' %}" + CHATML)


def H21(case):
  return templated(case, "{% macro down() %}{{ down() }}{% endmacro %}{{ down() }}" + CHATML)


def H22(case):
  return gguf(case, struct.pack("<IQQ", 3, 1 << 60, 0))


def H23(case):
  return gguf(case, struct.pack("<IQQQ", 3, 0, 1, 1 << 60) + b"general.architecture")


def H24(case):
  return gguf(case, struct.pack("<IQQ", 3, 0, 1) + text("general.architecture") + struct.pack("<IIQ", 9, 9, 1 << 40))


def H25(case):
  tiny(case.home / "tiny")
  (case.home / "tiny" / "model.safetensors").unlink()
  os.mkfifo(case.home / "tiny" / "model.safetensors")
  return SAMPLE


def H26(case):
  tiny(case.home / "tiny")
  (case.home / "tiny" / "config.json").unlink()
  (case.home / "tiny" / "config.json").symlink_to("config.json")
  return SAMPLE


def H27(case):
  tiny(case.home / "tiny")
  tokenizer = json.loads((case.home / "tiny" / "tokenizer.json").read_text())
  tokenizer["model"]["vocab"]["zzz"] = 1 << 31
  write(case.home / "tiny" / "tokenizer.json", tokenizer)
  return SAMPLE


def H28(case):
  """One long text sixteen times, which a dictionary in the file holds once."""
  words = chat(case, talks())
  column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 16, pyarrow.int32()), ["Hello " * 10_000])
  pyarrow.parquet.write_table(pyarrow.table({"text": column}), case.home / "bomb.parquet")
  assert (case.home / "bomb.parquet").stat().st_size < 20_000
  return Command((*words, "--config.data.path=bomb.parquet"))


def H29(case):
  tiny(case.home / "tiny")
  edit(case.home / "tiny" / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
  return SAMPLE


def H30(case):
  header = json.dumps(header_of(tensors()))
  return lying(case, header[:-1] + ', "model.norm.weight": {"dtype": "F32", "shape": [32], "data_offsets": [0, 128]}}')


def H31(case):
  weights = tensors()
  weights["lm_head.weight"] = np.ones((272, 32), np.float32)
  tiny(case.home / "tiny")
  write_safetensors(case.home / "tiny" / "model.safetensors", weights)
  return SAMPLE
