"""A tokenizer that comes with a model: transformers', behind the surface of ours."""

import copy
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftrl_jax.chat import Chat
from sftrl_jax.text import encoding, jinja, notes, probes
from sftrl_jax.text.images import ImageReader, expanded
from sftrl_jax.text.template import PROBE, REPLIES, Template, name_of

SEAM = "answers whose first letters lie in one token with the end of the prompt"
BATCH = 1024   # chats encoded at once, on all cores; what is known of each of their tokens takes memory


@dataclasses.dataclass(frozen=True)
class Rendering:
  """A chat as ids. written: as in text/render.py. notes: (what, example) of all that a person should know of it.
  unread: keys of messages, and arguments, that make no difference."""

  ids: list[int]
  written: list[bool]
  notes: tuple[tuple[str, str], ...] = ()
  unread: tuple[str, ...] = ()


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
  reader: how pictures are read, of a model that reads them; its placeholder is what the template writes for a picture
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
  controls: tuple[str, ...] = dataclasses.field(default=(), repr=False, compare=False)   # as they are spelled
  reader: ImageReader | None = None

  @classmethod
  def of(cls, hf: Any, stops: Sequence[int] = (), assistant_tokens: Sequence[str] = ()) -> "Pretrained":
    """What a fast tokenizer of transformers gives. stops: further ids at which responses end. assistant_tokens: control
    tokens that are such, and no text, in what the assistant says.

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
    vocab = backend.get_vocab(with_added_tokens=True)
    special = {token for token in special if not encoding.BYTE.fullmatch(token)}
    source = hf.get_chat_template() if hf.chat_template else ""
    _refuse_tokens(title, assistant_tokens, added)
    template = (probes.make(title, source, variables, added, special, frozenset(assistant_tokens)) if source else None)
    controls = template.controls if template else {token: name_of(added[token]) for token in special}
    encoder, digest = encoding.encoder(backend, controls, title)
    eos = encoding.id_of(template.end) if template else hf.eos_token_id
    if eos is None:
      raise ValueError(f"{title} has neither a chat template nor an eos_token, so a model would never learn to stop: "
                       "set one of them in tokenizer_config.json.")
    size = 1 + max(vocab.values())
    every = dict.fromkeys((eos, *stops, *(() if hf.eos_token_id is None else (hf.eos_token_id,))))
    wrong = [number for number in every if not 0 <= number < size]
    if wrong:
      raise ValueError(f"{title} is to end responses at id {wrong[0]}, but has {size} ids: mend eos_token_id in "
                       "generation_config.json.")
    pad = eos if hf.pad_token_id is None else hf.pad_token_id
    bos = _opening(hf)
    _refuse_ends(title, assistant_tokens, [token for token, number in added.items() if number in every])
    read = {key: value for key, value in variables.items() if key in source}
    description = json.dumps([digest, source, read, list(every), size, pad, bos,
                              *([sorted(assistant_tokens)] if assistant_tokens else [])])
    identity = hashlib.sha256(description.encode()).hexdigest()
    tokenizer = cls(title, size, pad, bos, eos, tuple(every), identity, hf, encoder, template,
                    controls=tuple(controls))
    tokenizer._refuse_joined_prompt()
    return tokenizer

  def encode(self, text: str) -> list[int]:
    """ids of a text, in which names of control tokens are just text; no token is put before or after it."""
    return self._encoded([encoding.typed(text)])[0].ids

  def plain(self, text: str) -> list[int]:
    """ids of a text that no template surrounds: what this tokenizer puts before it, and the text."""
    return [*(() if self.bos is None else (self.bos,)), *self.encode(text)]

  def spelled(self, text: str, by_assistant: bool = False) -> list[str]:
    """The control tokens whose names a text holds, where they are read as letters."""
    if not self.controls or not any(token in text for token in self.controls):
      return []
    if self.template is not None:
      return self.template.spelled(text, by_assistant)
    return [token for token in self.controls if token in text]

  def seam(self, prompt: str, text: str, control_tokens: bool = False) -> tuple[list[int], list[int], str]:
    """As encoding.seam, with what this tokenizer puts first. control_tokens: whether their names are such."""
    head, rest, crossed = encoding.seam(self._theirs if control_tokens else self.encoder, self.decode, prompt, text)
    begun = self.bos is None or (control_tokens and [*head, *rest][:1] == [self.bos])
    return [*([] if begun else [self.bos]), *head], rest, crossed

  @functools.cached_property
  def _theirs(self) -> Any:
    """Of `tokenizers`: control tokens as they are spelled."""
    return encoding.encoder(self.hf.backend_tokenizer, {}, self.title)[0]

  @property
  def marks(self) -> tuple[Callable[[str], int | None], Callable[[str], list[int]]]:
    """(the id of a token's name, or None; ids of a text), by which a reader of pictures writes marks around tiles."""
    return self.hf.backend_tokenizer.token_to_id, self.encode

  def decode(self, ids: Sequence[int]) -> str:
    """The text of any ids, control tokens by their own names; bytes that are no UTF-8 read as U+FFFD."""
    ids = list(ids)
    if ids and not 0 <= min(ids) <= max(ids) < self.size:
      wrong = next(number for number in ids if not 0 <= number < self.size)
      raise ValueError(f"id {wrong} is none of {self.title}, which has {self.size}.")
    return self.hf.backend_tokenizer.decode(ids, skip_special_tokens=False)

  def chats(self, chats: Sequence[Chat]) -> list[tuple[list[int], list[bool]] | ValueError]:
    """(ids, written) of each chat, as in text/render.py; the error in place of one that cannot be rendered."""
    return [answer if isinstance(answer, ValueError) else (answer.ids, answer.written)
            for answer in self.renderings(chats)]

  def renderings(self, chats: Sequence[Chat], args: Sequence[Mapping] = ()) -> list[Rendering | ValueError]:
    """Each chat as ids, with what is to be known of it; the error in place of one that cannot be rendered.

    args: of each chat what its template gets besides (tools, ...); (): nothing
    """
    answers = []
    for first in range(0, len(chats), BATCH):
      some = [self._rendered(chat, args[first + place] if args else {})
              for place, chat in enumerate(chats[first : first + BATCH])]
      good = [number for number, answer in enumerate(some) if not isinstance(answer, ValueError)]
      for number, encoded in zip(good, self._encoded([some[number][0] for number in good]), strict=True):
        text, stretches, noted, unread = some[number]
        written, crossed = encoding.marked(encoded, text, stretches)
        seams = [(SEAM, repr(self.template.readable(crossed)))] if crossed else []
        some[number] = self._with_images(chats[first + number], Rendering(
            encoded.ids, written, (*noted, *seams), tuple(unread)))
      answers += some
    return answers

  def after(self, chat: Chat) -> list[int]:
    """ids of what stands behind the end of the last response."""
    text, stretches = self._of_chats().written(chat)
    if not stretches:
      raise ValueError("A chat in which nobody has answered cannot go on.")
    # Behind the end token as in the whole text: some tokenizers treat the beginning of a text in another way.
    ids = self._encoded([self.template.end + text[stretches[-1][1]:]])[0].ids
    answered = max(number for number, message in enumerate(chat) if message.role == "assistant")
    rendering = self._with_images(chat[answered + 1:], Rendering(ids[1:], [False] * (len(ids) - 1)))
    if isinstance(rendering, ValueError):
      raise rendering
    return rendering.ids

  def _with_images(self, messages: Chat, rendering: Rendering) -> Rendering | ValueError:
    """The rendering of messages with the block of each picture in the place of its placeholder."""
    if self.reader is None:
      return rendering
    try:
      blocks = [self.reader.ids(image) for message in messages for image in message.images]
      ids, written = expanded(rendering.ids, rendering.written, self.reader.image_id, blocks)
    except ValueError as error:
      return error
    return dataclasses.replace(rendering, ids=ids, written=written)

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

  def _rendered(self, chat: Chat, args: Mapping):
    try:
      template = self._of_chats()
      template = _under(template, json.dumps(args)) if args else template
      text, stretches = template.written(chat)
      return encoding.typed(text), stretches, notes.of(template, chat, text, stretches), notes.unread(template, chat)
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
    for reply in REPLIES.values() if "<think>" in self.template.prompt else (PROBE[1].text,):
      try:
        text, stretches = self.template.written((PROBE[0], dataclasses.replace(PROBE[1], text=reply)))
      except ValueError:   # it refuses such a chat; each chat is asked anew
        return
      encoded, = self._encoded([text])
      _, crossed = encoding.marked(encoded, text, stretches[:1])
      if not crossed:
        return
    raise ValueError(f"{self.title} joins the end of its template's generation prompt with the first letters of a "
                     f"response, into {crossed!r}: a policy could never write what it is trained on. Let "
                     "the template put that blank behind the generation prompt.")


def configured(tokenizer: Pretrained, template_args: Mapping[str, Any],
               assistant_tokens: Sequence[str]) -> Pretrained:
  """The tokenizer with arguments written into its chat template, and with tokens that the assistant may write."""
  if not template_args and not assistant_tokens:
    return tokenizer
  hf, source = copy.copy(tokenizer.hf), tokenizer.template.source if tokenizer.template else ""
  if source:
    hf.chat_template = jinja.with_args(source, template_args, tokenizer.title)
  elif template_args:
    tokenizer._of_chats()
  return Pretrained.of(hf, tokenizer.stops, assistant_tokens)


@functools.lru_cache(maxsize=256)
def _under(template: Template, args: str) -> Template:
  """The template with arguments, which may change what begins an answer. args: as JSON."""
  return probes.opened(dataclasses.replace(template, args=json.loads(args)))


def _refuse_tokens(title: str, assistant_tokens: Sequence[str], added: Mapping[str, int]) -> None:
  for token in assistant_tokens:
    if token not in added:
      raise ValueError(f"assistant_tokens names {token!r}, which is no added token of {title}.")


def _refuse_ends(title: str, assistant_tokens: Sequence[str], ends: Sequence[str]) -> None:
  for token in assistant_tokens:
    if token in ends:
      raise ValueError(f"assistant_tokens names {token!r}, at which responses of {title} end: it cannot stand inside "
                       "one.")


def load(directory: str | Path, stops: Sequence[int] = ()) -> Pretrained:
  """The tokenizer of a Hugging Face directory. stops: end ids besides those that its generation_config.json names."""
  home = Path(directory)
  if not home.is_dir():
    raise ValueError(f"{home} is no directory, so it holds no tokenizer.")
  try:
    hf = _reader(home).from_pretrained(str(home), local_files_only=True, trust_remote_code=False)
  except ImportError as error:
    raise ImportError(jinja.NEEDS) from error
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


def _opening(hf) -> int | None:
  """The id that is put before a text, if any."""
  whole, bare = (hf("a", add_special_tokens=added)["input_ids"] for added in (True, False))
  return whole[0] if len(whole) > len(bare) and whole[1 : len(bare) + 1] == bare else None


def _plain(value):
  """A special token as its text."""
  return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)


__all__ = ["Pretrained", "load"]
