"""Texts as ids by the `tokenizers` library, and which characters each token holds."""

import bisect
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from sftrl_jax.text.jinja import NAME

BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")   # what a tokenizer falls back to: it must find them by their names


def seam(read: Any, decode: Callable[[Sequence[int]], str], prompt: str, text: str) -> tuple[list[int], list[int], str]:
  """(ids of a prompt as it is read before anything is written, ids of what follows, the token across the seam).

  Together they are the ids of the joint text, unless that has a token across the seam, or another before it: then what
  follows is read as it would be written behind that prompt. read: of `tokenizers`.
  """
  encode = lambda text: read.encode(typed(text), add_special_tokens=False)
  joint, head = encode(prompt + text), encode(prompt).ids if prompt else []
  first = token_at(joint, prompt + text, len(prompt)) if prompt else 0
  if not first or joint.offsets[first - 1][1] <= len(prompt):
    return head, joint.ids[first:], ""
  crossed, whole = (prompt + text)[slice(*joint.offsets[first - 1])], decode(joint.ids)
  for anchor in "\na0.":   # some of them ends in a token of its own
    behind = encode(anchor + text)
    place = token_at(behind, anchor + text, 1)
    if place and behind.offsets[place - 1][1] == 1 and decode([*head, *behind.ids[place:]]) == whole:
      return head, behind.ids[place:], crossed
  return head, encode(text).ids, crossed


def encoder(backend, controls: dict[str, str], title: str):
  """(tokenizer, digest): one that knows control tokens by their names only, and adds nothing to what it is given."""
  import tokenizers
  spec = json.loads(backend.to_str())
  spec.update(post_processor=None, truncation=None, padding=None)
  model = spec["model"]
  if model.get("dropout"):
    model["dropout"] = None   # ids are a function of the text
  digest = hashlib.sha256(json.dumps(spec).encode()).hexdigest()
  vocab = model["vocab"]
  if isinstance(vocab, dict):   # a byte's name in a text is text, as other names are
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not (
        token["special"] and BYTE.fullmatch(token["content"]) and token["content"] in vocab)]
  for token in spec["added_tokens"]:
    if token["content"] in controls:
      token.update(content=controls[token["content"]], normalized=False)
  named = lambda token: controls.get(token, token)
  model["vocab"] = ({named(token): number for token, number in vocab.items()} if isinstance(vocab, dict)
                    else [[named(token), score] for token, score in vocab])
  if model.get("unk_token") is not None:
    model["unk_token"] = named(model["unk_token"])
  encoder = tokenizers.Tokenizer.from_str(json.dumps(spec))
  for name in controls.values():
    if encoder.token_to_id(name) != id_of(name):
      raise ValueError(f"{title} has holes in its numbers of tokens: id {id_of(name)} cannot be kept.")
  return encoder, digest


def id_of(name: str) -> int:
  return int(name.strip(NAME))


def typed(text: str) -> str:
  """The text; ValueError for half a surrogate pair, which no tokenizer takes."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(f"Character {error.start + 1} of a text is half a surrogate pair, which is no Unicode.") from error
  return text


def marked(encoded, text: str, stretches: Sequence[tuple[int, int]]) -> tuple[list[bool], str]:
  """Which tokens begin in one of the stretches, and the first text that is a token across the beginning of one: that
  token holds words of the template, so it does not count as written."""
  written, crossed = [False] * len(encoded), ""
  for start, stop in stretches:
    first, last = (token_at(encoded, text, place) for place in (start, stop))
    written[first:last] = [True] * (last - first)
    if first and not crossed and (span := encoded.offsets[first - 1])[0] < start < span[1]:
      crossed = text[slice(*span)]
  return written, crossed


def token_at(encoded, text: str, place: int) -> int:
  """The first token that begins at a character or behind it."""
  if place >= len(text):
    return len(encoded)
  token = encoded.char_to_token(place)
  if token is None:   # a character that is in no token, as blanks are for some tokenizers
    return bisect.bisect_left([start for start, _ in encoded.offsets], place)
  return token + (encoded.token_to_chars(token)[0] < place)
