"""A tokenizer that comes with a model: transformers', behind the surface of ours."""

import bisect
import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftrl_jax.chat import Chat
from sftrl_jax.text import template as templates
from sftrl_jax.text.template import Template

BATCH = 1024   # chats encoded at once, on all cores; what is known of each of their tokens takes memory


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Ids of texts and chats as transformers gives them. Equal if it gives the same ids, whatever files it came from.

  title: for messages
  size: ids are smaller than this; added tokens count
  pad: fills rows, and means nothing: rows are masked by their length, so it may be the same as `eos`
  bos: the id that this tokenizer puts before a text of its own accord (None: none); a chat has what its template writes
  eos: closes a turn of the assistant in a chat
  stops: ids at which a response ends: eos and what else this model ends with
  digest: of all that decides about ids
  """

  title: str = dataclasses.field(compare=False)
  size: int
  pad: int
  bos: int | None
  eos: int
  stops: tuple[int, ...]
  digest: str
  hf: Any = dataclasses.field(repr=False, compare=False)  # transformers' own
  encoder: Any = dataclasses.field(repr=False, compare=False)  # of `tokenizers`: control tokens by their names
  template: Template | None = dataclasses.field(repr=False, compare=False)  # None: it has no chat template
  kind: str = "pretrained"

  @classmethod
  def of(cls, hf: Any, stops: Sequence[int] = ()) -> "Pretrained":
    """What a fast tokenizer of transformers gives. stops: further ids at which responses end.

    ValueError for one whose chats could not be trained: its template ends no turn, or hides what was written.
    """
    title = str(getattr(hf, "name_or_path", "") or "this tokenizer")
    for number in stops:
      if type(number) is not int:
        raise ValueError(f"{title} is to end responses at id {number!r}, which is no whole number: mend eos_token_id "
                         "in generation_config.json.")
    backend = getattr(hf, "backend_tokenizer", None)
    if backend is None:
      raise ValueError(f"{title} is no fast tokenizer: save it as tokenizer.json, as AutoTokenizer does.")
    added = {token.content: number for number, token in hf.added_tokens_decoder.items()}
    variables = {key: _plain(value) for key, value in hf.special_tokens_map.items()}
    special = {token.content for token in hf.added_tokens_decoder.values() if token.special}
    special |= {token for token in variables.values() if isinstance(token, str) and token in added}
    special |= {token for token, number in added.items() if number in stops}
    source = hf.get_chat_template() if hf.chat_template else ""
    template = templates.make(title, source, variables, added, special) if source else None
    controls = template.controls if template else {token: templates.name_of(added[token]) for token in special}
    encoder, digest = _encoder(backend, controls, title)
    eos = _id_of(template.end) if template else hf.eos_token_id
    if eos is None:
      raise ValueError(f"{title} has neither a chat template nor an eos_token, so a model would never learn to stop: "
                       "set one of them in tokenizer_config.json.")
    size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
    every = dict.fromkeys((eos, *stops, *(() if hf.eos_token_id is None else (hf.eos_token_id,))))
    wrong = [number for number in every if not 0 <= number < size]
    if wrong:
      raise ValueError(f"{title} is to end responses at id {wrong[0]}, but has {size} ids: mend eos_token_id in "
                       "generation_config.json.")
    pad = eos if hf.pad_token_id is None else hf.pad_token_id
    bos = _opening(hf)
    read = {key: value for key, value in variables.items() if key in source}
    description = json.dumps([digest, source, read, list(every), size, pad, bos])
    identity = hashlib.sha256(description.encode()).hexdigest()
    tokenizer = cls(title, size, pad, bos, eos, tuple(every), identity, hf, encoder, template)
    tokenizer._refuse_joined_prompt()
    return tokenizer

  def encode(self, text: str) -> list[int]:
    """ids of a text, in which names of control tokens are just text; no token is put before or after it."""
    return self._encoded([_typed(text)])[0].ids

  def plain(self, text: str) -> list[int]:
    """ids of a text that no template surrounds: what this tokenizer puts before it, and the text."""
    return [*(() if self.bos is None else (self.bos,)), *self.encode(text)]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of any ids, control tokens by their own names; bytes that are no UTF-8 read as U+FFFD."""
    ids = list(ids)
    if ids and not 0 <= min(ids) <= max(ids) < self.size:
      wrong = next(number for number in ids if not 0 <= number < self.size)
      raise ValueError(f"id {wrong} is none of {self.title}, which has {self.size}.")
    return self.hf.backend_tokenizer.decode(ids, skip_special_tokens=False)

  def chats(self, chats: Sequence[Chat]) -> list[tuple[list[int], list[bool]] | ValueError]:
    """(ids, written) of each chat, as in text/render.py; the error in place of one that cannot be rendered."""
    answers = []
    for first in range(0, len(chats), BATCH):
      some = [self._rendered(chat) for chat in chats[first : first + BATCH]]
      good = [number for number, answer in enumerate(some) if not isinstance(answer, ValueError)]
      for number, encoded in zip(good, self._encoded([some[number][0] for number in good]), strict=True):
        some[number] = (encoded.ids, _marked(encoded, *some[number]))
      answers += some
    return answers

  def after(self, chat: Chat) -> list[int]:
    """ids of what stands behind the end of the last response."""
    text, stretches = self._of_chats().written(chat)
    if not stretches:
      raise ValueError("A chat in which nobody has answered cannot go on.")
    # Behind the end token as in the whole text: some tokenizers treat the beginning of a text in another way.
    ids = self._encoded([self.template.end + text[stretches[-1][1]:]])[0].ids
    return ids[1:]

  def save(self, directory: str | Path) -> None:
    """Writes the files that `load` and transformers read; end ids go to generation_config.json, unless it is there."""
    self.hf.save_pretrained(str(directory))
    home = Path(directory)
    config = json.loads((home / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name in ("is_local", "local_files_only"):   # of how it was loaded
      config.pop(name, None)
    if config.get("tokenizer_class") == "TokenizersBackend":
      config["tokenizer_class"] = "PreTrainedTokenizerFast"   # its name before transformers 5, which knows both
    if self.template is not None and "eos_token" not in self.template.source:
      # The one end that llama.cpp's converter reads, unless the template writes it elsewhere.
      config["eos_token"] = self.hf.convert_ids_to_tokens(self.eos)
    (home / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n",
                                                encoding="utf-8")
    path = home / "generation_config.json"
    if not path.exists():
      ids = {"bos_token_id": self.hf.bos_token_id, "eos_token_id": list(self.stops),
             "pad_token_id": self.hf.pad_token_id}
      path.write_text(json.dumps({key: value for key, value in ids.items() if value is not None}, indent=2) + "\n")

  def _rendered(self, chat: Chat):
    try:
      text, stretches = self._of_chats().written(chat)
      return _typed(text), stretches
    except ValueError as error:
      return error

  def _of_chats(self) -> Template:
    if self.template is None:
      raise ValueError(f"{self.title} has no chat template, and a made-up one would be learned by the model and known "
                       "to nobody else: put chat_template.jinja beside the tokenizer, or train on texts.")
    return self.template

  def _encoded(self, texts: list[str]):
    if not texts:
      return []
    if len(texts) == 1:
      return [self.encoder.encode(texts[0], add_special_tokens=False)]
    return self.encoder.encode_batch(texts, add_special_tokens=False)

  def _refuse_joined_prompt(self) -> None:
    """ValueError if the tokenizer joins the end of the generation prompt with the first letter of every response."""
    if self.template is None:
      return
    try:
      text, stretches = self.template.written(templates.PROBE)
    except ValueError:   # it refuses such a chat; each chat is asked anew
      return
    start = stretches[0][0]
    for first, last in self._encoded([text])[0].offsets:
      if first < start < last:
        raise ValueError(f"{self.title} joins the end of its template's generation prompt with the first letters of a "
                         f"response, into {text[first:last]!r}: a policy could never write what it is trained on. Let "
                         "the template put that blank behind the generation prompt.")


def load(directory: str | Path, stops: Sequence[int] = ()) -> Pretrained:
  """The tokenizer of a Hugging Face directory. stops: end ids besides those that its generation_config.json names."""
  home = Path(directory)
  if not home.is_dir():
    raise ValueError(f"{home} is no directory, so it holds no tokenizer.")
  try:
    hf = _reader(home).from_pretrained(str(home), local_files_only=True, trust_remote_code=False)
  except ImportError as error:
    raise ImportError(templates.NEEDS) from error
  except Exception as error:   # of many kinds: each format has a parser of its own
    raise ValueError(f"The tokenizer in {home} cannot be read: {error}") from error
  return Pretrained.of(hf, (*_ends(home), *stops))


def _reader(home: Path):
  """AutoTokenizer, or the class that it would choose: it imports torch where there is one, and the class does not."""
  path = home / "tokenizer_config.json"
  config = path.read_text(errors="replace") if path.is_file() and (home / "tokenizer.json").is_file() else ""
  if re.search(r'"tokenizer_class": *"(TokenizersBackend|PreTrainedTokenizerFast)"', config):
    from transformers import PreTrainedTokenizerFast
    return PreTrainedTokenizerFast
  from transformers import AutoTokenizer
  return AutoTokenizer


def _ends(home: Path) -> list[int]:
  path = home / "generation_config.json"
  if not path.is_file():
    return []
  try:
    ends = json.loads(path.read_text()).get("eos_token_id")
  except (ValueError, AttributeError) as error:
    raise ValueError(f"{path} cannot be read: {error}") from error
  return [] if ends is None else list(ends) if isinstance(ends, list) else [ends]


def _encoder(backend, controls: dict[str, str], title: str):
  """(tokenizer, digest): one that knows control tokens by their names only, and adds nothing to what it is given."""
  import tokenizers
  spec = json.loads(backend.to_str())
  spec.update(post_processor=None, truncation=None, padding=None)
  model = spec["model"]
  if model.get("dropout"):
    model["dropout"] = None   # ids are a function of the text
  digest = hashlib.sha256(json.dumps(spec).encode()).hexdigest()
  for token in spec["added_tokens"]:
    if token["content"] in controls:
      token.update(content=controls[token["content"]], normalized=False)
  vocab = model["vocab"]
  named = lambda token: controls.get(token, token)
  model["vocab"] = ({named(token): number for token, number in vocab.items()} if isinstance(vocab, dict)
                    else [[named(token), score] for token, score in vocab])
  if model.get("unk_token") is not None:
    model["unk_token"] = named(model["unk_token"])
  encoder = tokenizers.Tokenizer.from_str(json.dumps(spec))
  for name in controls.values():
    if encoder.token_to_id(name) != _id_of(name):
      raise ValueError(f"{title} has holes in its numbers of tokens: id {_id_of(name)} cannot be kept.")
  return encoder, digest


def _id_of(name: str) -> int:
  return int(name.strip(templates.NAME))


def _opening(hf) -> int | None:
  """The id that is put before a text, if any."""
  whole, bare = (hf("a", add_special_tokens=added)["input_ids"] for added in (True, False))
  return whole[0] if len(whole) > len(bare) and whole[1 : len(bare) + 1] == bare else None


def _plain(value):
  """A special token as its text."""
  return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)


def _typed(text: str) -> str:
  """The text; ValueError for half a surrogate pair, which no tokenizer takes."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(f"Character {error.start + 1} of a text is half a surrogate pair, which is no Unicode.") from error
  return text


def _marked(encoded, text: str, stretches: Sequence[tuple[int, int]]) -> list[bool]:
  """Which tokens begin in one of the stretches. One that begins before it holds words of the template."""
  written = [False] * len(encoded)
  for start, stop in stretches:
    first, last = (_token_at(encoded, text, place) for place in (start, stop))
    written[first:last] = [True] * (last - first)
  return written


def _token_at(encoded, text: str, place: int) -> int:
  """The first token that begins at a character or behind it."""
  if place >= len(text):
    return len(encoded)
  token = encoded.char_to_token(place)
  if token is None:   # a character that is in no token, as blanks are for some tokenizers
    return bisect.bisect_left([start for start, _ in encoded.offsets], place)
  return token + (encoded.token_to_chars(token)[0] < place)


__all__ = ["Pretrained", "load"]
