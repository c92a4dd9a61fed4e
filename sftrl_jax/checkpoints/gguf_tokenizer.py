"""The tokenizer in a GGUF's metadata as Hugging Face files, built with the `tokenizers` library.

The metadata names the words, the merges and, as `tokenizer.ggml.pre`, how text is cut up before; a file that is read
without the last gives other ids after a double space or a blank line before a digit.
"""

import json
import shutil
import tempfile
from pathlib import Path

from sftrl_jax.checkpoints.gguf_file import GgufFile

MADE = 1   # counts changes of what is made here, for what an earlier version has kept
CONTROL, USER_DEFINED, BYTE = 3, 4, 6   # tokenizer.ggml.token_type
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
# tokenizer.ggml.pre -> where text is cut; "" is the way of GPT-2, and digits stand alone where it says so.
CUTS = {"llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "smaug-bpe": _LLAMA3, "qwen2": _QWEN2,
        "deepseek-r1-qwen": _QWEN2, "smollm": "digits", "default": "", "gpt-2": ""}
WHOLE = ("llama-bpe", "llama3", "llama-v3")   # a piece that is a word is never merged up to it


def kept(file: GgufFile, directory: Path) -> Path:
  """The directory with the files, written unless it is there; a temporary one where the cache cannot be written to."""
  if (directory / "tokenizer.json").is_file():
    return directory
  try:
    directory.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".gguf-", dir=directory.parent))
  except OSError:
    part = Path(tempfile.mkdtemp(prefix="sftrl-gguf-"))
    write(file, part)
    return part
  try:
    write(file, part)
    part.rename(directory)
  except OSError:   # another process was quicker
    if not (directory / "tokenizer.json").is_file():
      raise
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return directory


def write(file: GgufFile, directory: Path) -> None:
  """tokenizer.json, tokenizer_config.json and generation_config.json of a file's metadata."""
  told = lambda key, default=None: file.metadata.get(f"tokenizer.ggml.{key}", default)
  words, kind = told("tokens"), told("model")
  try:
    made = _built(file, words, kind, told)
  except ValueError:
    raise
  except Exception as error:   # the library raises bare ones
    raise ValueError(f"{file.path}: the words and merges of its tokenizer do not fit together ({error}).") from error
  name_of = lambda key: words[told(key)] if isinstance(told(key), int) and 0 <= told(key) < len(words) else None
  adds = told("add_bos_token", kind == "llama" or told("pre") in WHOLE) and name_of("bos_token_id")
  if adds:
    from tokenizers import processors
    made.post_processor = processors.TemplateProcessing(
        single=f"{adds} $A", pair=f"{adds} $A {adds} $B", special_tokens=[(adds, told("bos_token_id"))])
  made.save(str(directory / "tokenizer.json"))
  named = {"bos_token": name_of("bos_token_id"), "eos_token": name_of("eos_token_id"),
           "unk_token": name_of("unknown_token_id"), "pad_token": name_of("padding_token_id")}
  context = file.metadata.get(f"{file.metadata.get('general.architecture')}.context_length")
  template = file.metadata.get("tokenizer.chat_template")
  config = {"tokenizer_class": "PreTrainedTokenizerFast", **named, "chat_template": template,
            "model_max_length": context, "clean_up_tokenization_spaces": False}
  ends = dict.fromkeys(told(key) for key in ("eos_token_id", "eot_token_id", "eom_token_id"))
  generation = {"bos_token_id": told("bos_token_id"), "pad_token_id": told("padding_token_id"),
                "eos_token_id": [end for end in ends if end is not None]}
  for name, value in (("tokenizer_config.json", config), ("generation_config.json", generation)):
    present = {key: each for key, each in value.items() if each is not None}
    (directory / name).write_text(json.dumps(present, indent=2, ensure_ascii=False), encoding="utf-8")


def _built(file: GgufFile, words: list[str], kind: str, told):
  if kind == "gpt2":
    made = _byte_level(file, words, told)
  elif kind == "llama":
    made = _sentencepiece(words, told, str(file.metadata.get("general.architecture")).startswith("gemma"))
  else:
    raise ValueError(f"{file.path}: tokenizer.ggml.model is {kind!r}; known are gpt2 (bytes) and llama "
                     "(SentencePiece).")
  _add_special(made, words, told("token_type") or ())
  return made


def _byte_level(file: GgufFile, words: list[str], told):
  """Bytes merged: the words are spelled in an alphabet of 256 letters."""
  from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
  pre = told("pre", "default")
  if pre not in CUTS:
    raise ValueError(f"{file.path}: tokenizer.ggml.pre is {pre!r}, an unknown way to cut up text; known: "
                     f"{', '.join(CUTS)}.")
  merges = [tuple(merge.split(" ", 1)) for merge in told("merges") or ()]
  vocab = {word: index for index, word in enumerate(words)}
  made = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre in WHOLE))
  cut = CUTS[pre]
  if cut == "digits":
    first, alone = pre_tokenizers.Digits(individual_digits=True), True
  else:
    first, alone = (pre_tokenizers.Split(Regex(cut), behavior="isolated") if cut else None), not cut
  bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=alone)
  made.pre_tokenizer = pre_tokenizers.Sequence([first, bytes_of]) if first else bytes_of
  made.decoder = decoders.ByteLevel()
  if cut == _QWEN2:
    made.normalizer = normalizers.NFC()
  return made


def _sentencepiece(words: list[str], told, gemma: bool):
  """Characters merged, by the scores of the words; spaces are written ▁, and what is no word is spelled in bytes.

  Gemma's words of spaces are stored as spaces, and are merged in the order of the words, whatever their scores.
  """
  from tokenizers import Tokenizer, decoders, models, normalizers
  kinds, scores = told("token_type") or [1] * len(words), told("scores") or [0.0] * len(words)
  if gemma:
    words = [word if word.strip(" ") else "▁" * len(word) for word in words]
    scores = [-float(index) for index in range(len(words))]
  vocab = {word: index for index, word in enumerate(words)}
  pairs = []
  for word, kind, score in zip(words, kinds, scores, strict=True):
    if kind in (CONTROL, BYTE):
      continue
    halves = ((word[:cut], word[cut:]) for cut in range(1, len(word)))
    pairs += [(-score, vocab[word], pair) for pair in halves if pair[0] in vocab and pair[1] in vocab]
  unknown = words[told("unknown_token_id")] if isinstance(told("unknown_token_id"), int) else None
  made = Tokenizer(models.BPE(vocab=vocab, merges=[pair for _, _, pair in sorted(pairs)], unk_token=unknown,
                              fuse_unk=True, byte_fallback=True))
  prefix = told("add_space_prefix", True)
  steps = [normalizers.Prepend("▁")] if prefix else []
  made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
  steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
  made.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
  return made


def _add_special(made, words: list[str], kinds) -> None:
  """Words that are matched whole in a text: those that mark turns, and those that a family added."""
  from tokenizers import AddedToken
  marked = [(word, kind) for word, kind in zip(words, kinds, strict=False) if kind in (CONTROL, USER_DEFINED)]
  control = [AddedToken(word, normalized=False, special=True) for word, kind in marked if kind == CONTROL]
  others = [AddedToken(word, normalized=False, special=False) for word, kind in marked if kind == USER_DEFINED]
  made.add_special_tokens(control)
  made.add_tokens(others)
