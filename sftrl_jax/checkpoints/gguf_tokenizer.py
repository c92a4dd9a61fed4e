"""Converts the tokenizer in a GGUF's metadata to Hugging Face files, with the `tokenizers` library.

The metadata has the tokens, the merges and, as `tokenizer.ggml.pre`, how text is split before merging; without the
last, ids differ after a double space or a blank line before a digit.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sftrl_jax.checkpoints.gguf_file import GgufFile

VERSION = 1   # of the files that this module writes: increase it with every change, so that cached files are renewed
CONTROL, USER_DEFINED, BYTE = 3, 4, 6   # tokenizer.ggml.token_type
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
# tokenizer.ggml.pre -> the regex that text is split by; "" is that of GPT-2, "digits" is GPT-2's with single digits.
SPLITS = {"llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "smaug-bpe": _LLAMA3, "qwen2": _QWEN2,
          "deepseek-r1-qwen": _QWEN2, "smollm": "digits", "default": "", "gpt-2": ""}
WHOLE = ("llama-bpe", "llama3", "llama-v3")   # a piece that is a token becomes its id, without merges


def cached(file: GgufFile, directory: Path) -> Path:
  """The directory with the files, written unless it exists; a temporary one if the cache is not writable."""
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
  except OSError:   # another process has written it meanwhile
    if not (directory / "tokenizer.json").is_file():
      raise
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return directory


def write(file: GgufFile, directory: Path) -> None:
  """Writes tokenizer.json, tokenizer_config.json and generation_config.json of a file's metadata."""
  get = lambda key, default=None: file.metadata.get(f"tokenizer.ggml.{key}", default)
  tokens, kind = get("tokens"), get("model")
  try:
    tokenizer = _build(file, tokens, kind, get)
  except ValueError:
    raise
  except Exception as error:   # the library raises bare Exceptions
    raise ValueError(f"{file.path}: the tokens and merges of its tokenizer do not fit together ({error}).") from error
  name_of = lambda key: tokens[get(key)] if isinstance(get(key), int) and 0 <= get(key) < len(tokens) else None
  bos = get("add_bos_token", kind == "llama" or get("pre") in WHOLE) and name_of("bos_token_id")
  if bos:
    from tokenizers import processors
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, get("bos_token_id"))])
  tokenizer.save(str(directory / "tokenizer.json"))
  named = {"bos_token": name_of("bos_token_id"), "eos_token": name_of("eos_token_id"),
           "unk_token": name_of("unknown_token_id"), "pad_token": name_of("padding_token_id")}
  context = file.metadata.get(f"{file.metadata.get('general.architecture')}.context_length")
  template = file.metadata.get("tokenizer.chat_template")
  config = {"tokenizer_class": "PreTrainedTokenizerFast", **named, "chat_template": template,
            "model_max_length": context, "clean_up_tokenization_spaces": False}
  ends = dict.fromkeys(get(key) for key in ("eos_token_id", "eot_token_id", "eom_token_id"))
  generation = {"bos_token_id": get("bos_token_id"), "pad_token_id": get("padding_token_id"),
                "eos_token_id": [end for end in ends if end is not None]}
  for name, value in (("tokenizer_config.json", config), ("generation_config.json", generation)):
    present = {key: item for key, item in value.items() if item is not None}
    (directory / name).write_text(json.dumps(present, indent=2, ensure_ascii=False), encoding="utf-8")


def _build(file: GgufFile, tokens: list[str], kind: str, get: Callable[..., Any]) -> Any:
  """The `tokenizers.Tokenizer`. get: a key of tokenizer.ggml and its default -> its value."""
  if kind == "gpt2":
    tokenizer = _byte_level(file, tokens, get)
  elif kind == "llama":
    tokenizer = _sentencepiece(tokens, get, str(file.metadata.get("general.architecture")).startswith("gemma"))
  else:
    raise ValueError(f"{file.path}: tokenizer.ggml.model is {kind!r}; known are gpt2 (bytes) and llama "
                     "(SentencePiece).")
  _add_special(tokenizer, tokens, get("token_type") or ())
  return tokenizer


def _byte_level(file: GgufFile, tokens: list[str], get: Callable[..., Any]) -> Any:
  """BPE over bytes; tokens are spelled in an alphabet of 256 letters."""
  from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
  pre = get("pre", "default")
  if pre not in SPLITS:
    raise ValueError(f"{file.path}: tokenizer.ggml.pre is {pre!r}, an unknown way to split text; known: "
                     f"{', '.join(SPLITS)}.")
  merges = [tuple(merge.split(" ", 1)) for merge in get("merges") or ()]
  vocab = {token: index for index, token in enumerate(tokens)}
  tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre in WHOLE))
  split = SPLITS[pre]
  if split == "digits":
    first, gpt2_regex = pre_tokenizers.Digits(individual_digits=True), True
  else:
    first, gpt2_regex = (pre_tokenizers.Split(Regex(split), behavior="isolated") if split else None), not split
  to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2_regex)
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, to_bytes]) if first else to_bytes
  tokenizer.decoder = decoders.ByteLevel()
  if split == _QWEN2:
    tokenizer.normalizer = normalizers.NFC()
  return tokenizer


def _sentencepiece(tokens: list[str], get: Callable[..., Any], gemma: bool) -> Any:
  """BPE over characters, with merges in the order of the tokens' scores; spaces are written ▁, unknown characters as
  bytes.

  Gemma's tokens of spaces are stored as spaces, and its merges are in the order of the tokens, whatever their scores.
  """
  from tokenizers import Tokenizer, decoders, models, normalizers
  kinds, scores = get("token_type") or [1] * len(tokens), get("scores") or [0.0] * len(tokens)
  if gemma:
    tokens = [token if token.strip(" ") else "▁" * len(token) for token in tokens]
    scores = [-float(index) for index in range(len(tokens))]
  vocab = {token: index for index, token in enumerate(tokens)}
  pairs = []
  for token, kind, score in zip(tokens, kinds, scores, strict=True):
    if kind in (CONTROL, BYTE):
      continue
    halves = ((token[:end], token[end:]) for end in range(1, len(token)))
    pairs += [(-score, vocab[token], pair) for pair in halves if pair[0] in vocab and pair[1] in vocab]
  unknown = tokens[get("unknown_token_id")] if isinstance(get("unknown_token_id"), int) else None
  tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[pair for _, _, pair in sorted(pairs)], unk_token=unknown,
                              fuse_unk=True, byte_fallback=True))
  prefix = get("add_space_prefix", True)
  steps = [normalizers.Prepend("▁")] if prefix else []
  tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
  steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
  tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
  return tokenizer


def _add_special(tokenizer: Any, tokens: list[str], kinds: Sequence[int]) -> None:
  """Adds the tokens that are matched whole in a text: control tokens, and those that a family added."""
  from tokenizers import AddedToken
  for wanted, add in ((CONTROL, tokenizer.add_special_tokens), (USER_DEFINED, tokenizer.add_tokens)):
    add([AddedToken(token, normalized=False, special=wanted == CONTROL)
         for token, kind in zip(tokens, kinds, strict=False) if kind == wanted])
