"""Tokenizers: a few dozen words, or bytes. Both mark where a turn ends and know nothing of its content."""

import dataclasses
from collections.abc import Sequence

from sftrl_jax.text.images import ImageReader

PAD, BOS, EOS, END, IMAGE = "<pad>", "<bos>", "<eos>", "<end>", "<image>"
BYTES = 256


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """Ids of texts. `bos` opens a chat, `eos` closes a response, `after_user` closes what others say (may be empty).

  kind: "words": texts are words of a closed vocabulary with single spaces between; "bytes": any UTF-8 text.
  image: the id that stands for a feature of a picture, which no text gives; None where there is none
  reader: how pictures are read, of a model that reads them
  """

  kind: str
  names: tuple[str, ...]  # id -> what it reads as
  ids: dict = dataclasses.field(repr=False, hash=False, compare=False)
  pad: int = 0
  bos: int = 1
  eos: int = 2
  after_user: tuple[int, ...] = ()
  image: int | None = None
  reader: ImageReader | None = None

  @property
  def size(self) -> int:
    return len(self.names)

  @property
  def stops(self) -> tuple[int, ...]:
    """Ids at which a response ends."""
    return (self.eos,)

  def encode(self, text: str) -> list[int]:
    """ids of a text; ValueError for a word that is not in the vocabulary."""
    if self.kind == "bytes":
      return [byte + 4 for byte in text.encode("utf-8", errors="surrogatepass")]
    ids = self.ids
    try:
      return [ids[word] for word in text.split(" ")] if text else []
    except KeyError as error:
      raise ValueError(f"{error.args[0]!r} is no word of this tokenizer ({len(self.names)} words): use the "
                       "vocabulary of the environment, or tokenizer.name='bytes'.") from None

  def decode(self, ids: Sequence[int]) -> str:
    """The text of ids. Any ids: a policy may write what no person would."""
    if self.kind == "bytes":
      pieces = (bytes([i - 4]) if 4 <= i < 4 + BYTES else self.names[i].encode() for i in ids)
      return b"".join(pieces).decode("utf-8", "replace")
    names = self.names
    return " ".join([names[i] for i in ids])


def words(vocabulary: Sequence[str], image: bool = False) -> Tokenizer:
  """One id a word, after <pad>, <bos>, <eos>. image: whether the last id stands for a feature of a picture."""
  names = (PAD, BOS, EOS, *vocabulary)
  if len(set(names)) != len(names):
    raise ValueError("The vocabulary names a word twice, or one of <pad>, <bos>, <eos>.")
  ids = {name: index for index, name in enumerate(names)}
  return Tokenizer("words", (*names, IMAGE), ids, image=len(names)) if image else Tokenizer("words", names, ids)


def byte(image: bool = False) -> Tokenizer:
  """One id a UTF-8 byte, after <pad>, <bos>, <eos>, <end>; what others say is closed by <end>. image: as of `words`."""
  names = (PAD, BOS, EOS, END, *(chr(value) for value in range(BYTES)))
  return (Tokenizer("bytes", (*names, IMAGE), {}, after_user=(3,), image=len(names)) if image else
          Tokenizer("bytes", names, {}, after_user=(3,)))
