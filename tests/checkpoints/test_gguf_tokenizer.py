"""The tokenizer rebuilt from metadata gives the ids of the tokenizer that the metadata was made of."""

import json

import numpy as np
import pytest

from sftrl_jax.checkpoints import gguf, gguf_tokenizer
from sftrl_jax.checkpoints.gguf_file import GgufFile

tokenizers = pytest.importorskip("tokenizers")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("the answer is", "24", "(3 + 5) * 8/2", "x  24", "\n\n2+2", "don't", "Größe", "日本語", "🙂",
         '{"cards": [2, 10]}', "tab\there", " leading", "trailing ", "UPPER lower", "1234567", "a<|im_end|>b", "\r\n",
         "it's 7:30", "§4.2", "e\u0301")
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def texts():
  """A few hundred: every pair of words, and random letters."""
  random = np.random.default_rng(0)
  letters = list("abcdefghij 0123456789\n\t.,'\"+-*/()<|>éß日🙂")
  pairs = [first + second for first in WORDS for second in WORDS]
  return [*pairs, *("".join(random.choice(letters, 20)) for _ in range(100))]


def trained(cut, normalizer=None, whole=False):
  """A small byte-level tokenizer that cuts up text as given; whole: a piece that is a word needs no merges."""
  from tokenizers import Tokenizer, decoders, models, trainers
  tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
  tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
  if normalizer:
    tokenizer.normalizer = normalizer
  alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  tokenizer.train_from_iterator(texts() * 3, trainers.BpeTrainer(
      vocab_size=500, special_tokens=list(SPECIAL), initial_alphabet=sorted(alphabet), show_progress=False))
  return tokenizer


def metadata(tokenizer, pre, **more):
  """What llama.cpp would write of it."""
  model = json.loads(tokenizer.to_str())["model"]
  words = sorted(model["vocab"], key=model["vocab"].get)
  keys = {"model": "gpt2", "pre": pre, "tokens": words, "merges": [" ".join(pair) for pair in model["merges"]],
          "token_type": [3 if word in SPECIAL else 1 for word in words], "bos_token_id": 1, "eos_token_id": 2,
          "padding_token_id": 2, "unknown_token_id": 0, **more}
  return {"general.architecture": "llama", "llama.context_length": 64, "tokenizer.chat_template": TEMPLATE,
          **{f"tokenizer.ggml.{name}": value for name, value in keys.items()}}


def cuts():
  from tokenizers import Regex, normalizers, pre_tokenizers
  bytes_of = pre_tokenizers.ByteLevel
  split = lambda pattern: pre_tokenizers.Sequence([
      pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_of(add_prefix_space=False, use_regex=False)])
  # The expressions of the tokenizer.json of Qwen2.5 and Llama 3.
  tail = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  head = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
  return {
      "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_of(False)]), None),
      "qwen2": (split(head + r"\p{N}" + tail), normalizers.NFC()),
      "llama-bpe": (split(head + r"\p{N}{1,3}" + tail), None),
      "gpt-2": (bytes_of(False), None)}


@pytest.mark.parametrize("pre", ["smollm", "qwen2", "llama-bpe", "gpt-2"])
def test_ids_are_those_of_the_tokenizer_it_was_made_of(tmp_path, pre):
  tokenizer = trained(*cuts()[pre], whole=pre == "llama-bpe")
  gguf_tokenizer.write(GgufFile(tmp_path / "x.gguf", metadata(tokenizer, pre, add_bos_token=False), {}), tmp_path)
  again = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  different = [text for text in texts() if tokenizer.encode(text).ids != again.encode(text).ids]
  assert not different
  assert [again.decode(again.encode(text).ids, skip_special_tokens=False) for text in WORDS[:10]] == list(WORDS[:10])


def test_without_its_cut_a_digit_after_two_spaces_has_other_ids(tmp_path):
  """So the test above can fail: this is what transformers makes of such a file."""
  tokenizer = trained(*cuts()["smollm"])
  gguf_tokenizer.write(GgufFile(tmp_path / "x.gguf", metadata(tokenizer, "gpt-2"), {}), tmp_path)
  again = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  assert tokenizer.encode("x  24").ids != again.encode("x  24").ids


def test_sentencepiece_gives_the_same_ids(tmp_path):
  pieces = pytest.importorskip("sentencepiece")
  corpus = [text.replace("<|im_end|>", "").strip() or "a" for text in texts()]
  pieces.SentencePieceTrainer.train(
      sentence_iterator=iter(text.replace("\n", " ") for text in corpus), model_prefix=str(tmp_path / "m"),
      vocab_size=400, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
      remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2)
  tokenizer = pieces.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
  kind = lambda i: 2 if tokenizer.is_unknown(i) else 3 if tokenizer.is_control(i) else 6 if tokenizer.is_byte(i) else 1
  number = range(tokenizer.get_piece_size())
  values = {"model": "llama", "tokens": [tokenizer.id_to_piece(i) for i in number],
          "scores": [tokenizer.get_score(i) for i in number], "token_type": [kind(i) for i in number],
          "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
  values = {f"tokenizer.ggml.{name}": value for name, value in values.items()}
  gguf_tokenizer.write(GgufFile(tmp_path / "x.gguf", values, {}), tmp_path)
  again = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  plain = [text for text in texts() if "<" not in text]
  assert len(plain) > 200
  assert [again.encode(text).ids for text in plain] == [[1, *tokenizer.encode(text)] for text in plain]
  assert again.decode(tokenizer.encode("the answer is 日本語 🙂")) == "the answer is 日本語 🙂"


def test_gemmas_spaces_are_merged_in_the_order_of_its_words(tmp_path):
  words = ["<pad>", "<eos>", "<bos>", "<unk>", "  ", "   ", "▁", "a", "▁a", "b", "ab"]
  values = {"model": "llama", "tokens": words, "scores": [-1000.0] * len(words), "token_type": [3, 3, 3, 2, *[1] * 7],
          "bos_token_id": 2, "eos_token_id": 1, "unknown_token_id": 3, "add_bos_token": True, "add_space_prefix": False}
  keys = {"general.architecture": "gemma3", **{f"tokenizer.ggml.{name}": value for name, value in values.items()}}
  gguf_tokenizer.write(GgufFile(tmp_path / "x.gguf", keys, {}), tmp_path)
  tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  # "▁a" stands before "ab" in the words, so " ab" is "▁a" "b".
  assert [tokenizer.encode(text).ids for text in ("  a", "   ab", " ab")] == [[2, 4, 7], [2, 5, 10], [2, 8, 9]]


def test_files_are_made_once_and_open_in_transformers(tmp_path, monkeypatch):
  pytest.importorskip("transformers")
  package = pytest.importorskip("gguf")
  from sftrl_jax.chat import Message
  from sftrl_jax.text import render
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  tokenizer = trained(*cuts()["smollm"])
  writer = package.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
  for name, value in metadata(tokenizer, "smollm", add_bos_token=False, eot_token_id=2).items():
    if name != "general.architecture":
      add = {int: writer.add_uint32, str: writer.add_string, bool: writer.add_bool}.get(type(value), writer.add_array)
      add(name, value)
  writer.add_tensor("token_embd.weight", np.zeros((500, 2), np.float32))
  for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
  words = gguf.tokenizer(tmp_path / "x.gguf")
  assert (words.eos, words.stops, words.bos, words.pad, words.size) == (2, (2,), None, 2, 500)
  text = "<|im_start|>user\n2+  2<|im_end|>\n<|im_start|>assistant\n"
  assert render.render(words, (Message("user", "2+  2"),))[0] == tokenizer.encode(text).ids
  monkeypatch.setattr(gguf_tokenizer, "write", lambda *_: pytest.fail("made twice"))
  assert gguf.tokenizer(tmp_path / "x.gguf") == words


@pytest.mark.parametrize("change, message", [
    (dict(pre="poro"), "'poro', an unknown way to split text; known: llama-bpe"),
    (dict(model="bert"), "'bert'; known are gpt2"),
    (dict(merges=["a b"]), "tokens and merges of its tokenizer do not fit")])
def test_another_kind_of_tokenizer_is_told(tmp_path, change, message):
  keys = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"],
          **{f"tokenizer.ggml.{name}": value for name, value in change.items()}}
  with pytest.raises(ValueError, match=message):
    gguf_tokenizer.write(GgufFile(tmp_path / "x.gguf", keys, {}), tmp_path)
