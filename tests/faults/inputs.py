"""What the faults are made from: commands of short runs, a tiny Hugging Face directory, files of rows, damage."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np

TASK = Path(__file__).with_name("task.py")
QUIET = ("--config.log.report=False", "--config.log.writers=()", "--config.evals.variants=()")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def keys(given) -> list[str]:
  """--config.KEY=VALUE of KEY=VALUE; flags stay."""
  return [word if word.startswith("--") else f"--config.{word}" for word in given]


def sft(*given: str, config="configs/general_points/sft.py:smoke", workdir="run") -> list[str]:
  """A run of three SFT steps that writes little. given: KEY=VALUE of the config, or flags."""
  return ["sft", f"--config={config}", f"--workdir={workdir}", *QUIET, *keys(given)]


def rl(*given: str, config="configs/general_points/ppo.py:smoke", workdir="run") -> list[str]:
  """As sft(...), three iterations of PPO."""
  return ["rl", f"--config={config}", f"--workdir={workdir}", *QUIET, *keys(given)]


def play(case, *given: str, reward: str = "", workdir="run") -> list[str]:
  """A GRPO run of the user's own task (task.py). reward: the body of a reward function of the user's own."""
  return rl(*own(case, reward), *given, config="task.py:rl", workdir=workdir)


def own(case, reward: str = "") -> list[str]:
  """task.py in the folder, and reward.py with this body of `reward`; the overrides that name it."""
  shutil.copy(TASK, case.home)
  if not reward:
    return []
  body = "\n".join(f"  {line}" for line in reward.splitlines())
  (case.home / "reward.py").write_text(
      f"import itertools, os, sys, time\n\nN = itertools.count()\n\n\ndef reward(chat, response, verdict):\n{body}\n")
  return ["reward=reward.py:reward"]


def chat(case, rows, *given: str, name="rows.jsonl", **more) -> list[str]:
  """SFT of the tiny model on rows: dicts, or the text or the bytes of the file."""
  if not (case.home / "tiny").exists():
    tiny(case.home / "tiny")
  if isinstance(rows, list):
    rows = "".join(json.dumps(row) + "\n" for row in rows)
  (case.home / name).write_bytes(rows if isinstance(rows, bytes) else rows.encode())
  return sft("start=tiny", f"data.path={name}", "data.length=64", "batch=2", "compute.microbatches=1", "steps=2",
             "schedule.warmup=1", "checkpoint.every=2", "model.remat=none", "mesh.cpu_threads=1", *given,
             config="configs/sft/chat.py", **more)


def talk(question="Hello", answer="good") -> dict:
  """A row of one question and one answer."""
  return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def talks(count=8) -> list[dict]:
  return [talk(f"Hello {number}") for number in range(count)]


def tiny(directory: Path, template: str = CHATML, tokenizer: dict | None = None, **config) -> Path:
  """A Hugging Face directory of a model of 13 thousand numbers with a byte-level tokenizer; config: of config.json."""
  directory.mkdir(parents=True)
  vocab = {token: number for number, token in enumerate((*SPECIAL, *_alphabet()))}
  words = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 272, "hidden_size": 32,
           "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
           "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "rope_theta": 10000.0,
           "tie_word_embeddings": True, "torch_dtype": "float32", **config}
  write(directory / "config.json", words)
  level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
  added = [{"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True} for number, token in enumerate(SPECIAL)]
  write(directory / "tokenizer.json", {
      "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
      "pre_tokenizer": level, "post_processor": None, "decoder": level,
      "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}})
  write(directory / "tokenizer_config.json", {
      "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
      "chat_template": template, **(tokenizer or {})})
  write_safetensors(directory / "model.safetensors", tensors())
  return directory


def tensors() -> dict[str, np.ndarray]:
  """The tensors of `tiny`."""
  draw = np.random.default_rng(0)
  normal = lambda *shape: (draw.standard_normal(shape) * 0.05).astype(np.float32)
  layer, one = "model.layers.0.", np.ones(32, np.float32)
  return {"model.embed_tokens.weight": normal(272, 32), "model.norm.weight": one,
          f"{layer}input_layernorm.weight": one, f"{layer}post_attention_layernorm.weight": one,
          f"{layer}self_attn.q_proj.weight": normal(32, 32), f"{layer}self_attn.k_proj.weight": normal(16, 32),
          f"{layer}self_attn.v_proj.weight": normal(16, 32), f"{layer}self_attn.o_proj.weight": normal(32, 32),
          f"{layer}mlp.gate_proj.weight": normal(32, 32), f"{layer}mlp.up_proj.weight": normal(32, 32),
          f"{layer}mlp.down_proj.weight": normal(32, 32)}


def header_of(arrays: dict[str, np.ndarray]) -> dict:
  """The header of a safetensors file of float32."""
  table, place = {"__metadata__": {"format": "pt"}}, 0
  for name, array in arrays.items():
    table[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [place, place + array.nbytes]}
    place += array.nbytes
  return table


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], header: dict | str | None = None,
                      length: int | None = None) -> None:
  """header, length: what the file claims, if that is another thing than what is in it."""
  text = header if isinstance(header, str) else json.dumps(header_of(arrays) if header is None else header)
  start = struct.pack("<Q", len(text) if length is None else length)
  path.write_bytes(start + text.encode() + b"".join(array.tobytes() for array in arrays.values()))


def write(path: Path, table) -> None:
  path.write_text(json.dumps(table, indent=1))


def edit(path: Path, **changes) -> None:
  """Changes keys of a JSON file."""
  write(path, {**json.loads(path.read_text()), **changes})


def flip(step: Path) -> None:
  """Flips a bit in the middle of each file of a checkpoint's arrays: orbax reads some of them only when it merges."""
  for path in step.glob("state/ocdbt.process_*/d/*"):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def same(left: list[dict], right: list[dict]) -> None:
  """AssertionError unless lines of metrics are equal bit for bit, apart from what measures time."""
  measured = ("seconds", "timing_s/", "throughput/", "memory/", "compute/chip_hours", "compile/count")
  bare = lambda lines: [{key: value for key, value in line.items() if not key.startswith(measured)} for line in lines]
  assert bare(left) == bare(right), f"metrics differ:\n{bare(left)[-1:]}\n{bare(right)[-1:]}"


def _alphabet() -> list[str]:
  """The letters by which byte-level tokenizers write the 256 bytes."""
  visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = [byte for byte in range(256) if byte not in visible]
  letters = {byte: chr(byte) for byte in visible} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
  return [letters[byte] for byte in range(256)]
