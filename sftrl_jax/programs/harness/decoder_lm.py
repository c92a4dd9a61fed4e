"""Our decoder behind the interface of lm-eval, which is an extra.

Texts become ids and are cut to the context as in lm-eval's own Hugging Face backend (lm_eval/models/huggingface.py), so
that both give the same answers.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jinja2
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
  handle_stop_sequences,
  has_bos_prefix,
  normalize_gen_kwargs,
  postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from sftrl_jax.parallel import hosts, mesh as meshes
from sftrl_jax.programs.harness.decoder import Decoder
from sftrl_jax.programs.harness.harness_tasks import MOST_NEW_TOKENS
from sftrl_jax.programs.harness.likelihood import LikelihoodScorer, Pair
from sftrl_jax.programs.sample.generate import PIECE, ChatSettings, Generator, responses, start_conversation
from sftrl_jax.programs.sample.stopping import StopConditions
from sftrl_jax.rollout.decoding import placement
from sftrl_jax.rollout.sample import Sampling

ROWS = 16   # prompts that are answered together


class DecoderLM(TemplateLM):
  """A decoder that scores and writes texts. All methods run under decoder.on_mesh.

  decoder: what is asked
  params: its parameters on its mesh
  after_batch: called after every batch of requests
  """

  backend = "causal"

  def __init__(self, decoder: Decoder, params: dict, after_batch: Callable[[], None] = lambda: None):
    super().__init__()
    self.decoder, self.params, self.after_batch = decoder, params, after_batch
    self.own = decoder.tokenizer
    self.tokenizer = getattr(self.own, "hf", None)   # of transformers, where the model came with one
    self.scorer = LikelihoodScorer(decoder.model, params, decoder.mesh)
    self._generators: dict[tuple[int, float], Generator] = {}

  @property
  def max_length(self) -> int:
    """Tokens of a row at most."""
    return self.decoder.context

  @property
  def eot_token_id(self) -> int:
    """The id that ends a text."""
    own = getattr(self.tokenizer, "eos_token_id", None)
    return self.own.eos if own is None else own

  @property
  def prefix_token_id(self) -> int:
    """The id before the first token of what has no context."""
    if self.tokenizer is None:
      return self.own.bos
    return self.eot_token_id if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id

  @property
  def tokenizer_name(self) -> str:
    """A name of the tokenizer for file names."""
    return str(getattr(self.tokenizer, "name_or_path", self.own.kind)).replace("/", "__")

  def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """The text of a chat; without the system message for a template that takes none."""
    render = functools.partial(self.tokenizer.apply_chat_template, tokenize=False,
                               add_generation_prompt=add_generation_prompt,
                               continue_final_message=not add_generation_prompt)
    try:
      return render(chat_history)
    except jinja2.exceptions.TemplateError:
      return render([message for message in chat_history if message["role"] != "system"])

  def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
    """Ids of a text, behind those with which a text begins for this tokenizer.

    add_special_tokens: whether these are added (None: as the tokenizer does, unless the text begins so already)
    """
    if self.tokenizer is None:
      words = string.strip(" ") if self.own.kind == "words" else string   # which have single spaces between
      return [*([] if add_special_tokens is False else [self.own.bos]), *self.own.encode(words)]
    if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
      add_special_tokens = False
    added = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
    return self.tokenizer.encode(string, **added)

  def tok_decode(self, tokens: Sequence[int]) -> str:
    """The text of ids, special tokens left out."""
    ids = [number for number in tokens if number < self.own.size]   # a table may have more rows than there are ids
    if self.tokenizer is None:
      return self.own.decode([number for number in ids if number not in (self.own.bos, self.own.pad, *self.own.stops)])
    return self.tokenizer.decode(ids, skip_special_tokens=True)

  def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
    """(log-probability in nats, whether it is what greedy decoding writes) of each continuation behind its context."""
    return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

  def _loglikelihood_tokens(self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False,
                            **kwargs: Any) -> list[tuple[float, bool]]:
    pairs = []
    for texts, context, scored in requests:
      if not context or not scored or len(scored) > self.max_length:
        raise ValueError(f"A request has {len(context)} tokens of context and {len(scored)} to be scored, but it must "
                         f"have one of each, and at most {self.max_length} to be scored: {str(texts)[-200:]!r}.")
      room = self.max_length + 1 - len(scored)   # the last token is predicted and not read
      pairs.append(Pair(context[-room:], scored))
    with _bar(len(pairs), "log-likelihoods") as bar:
      after_each = lambda count: (bar.update(count), self.after_batch())
      return [tuple(likelihood) for likelihood in self.scorer.score(pairs, after_each)]

  def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
    """The log-probability of each whole text in nats, in windows of the context that do not overlap in what they
    score."""
    windows, counts = [], []
    for request in requests:
      own = [(None, *make_disjoint_window(window)) for window in get_rolling_token_windows(
          self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1)]
      windows += own
      counts.append(len(own))
    likelihoods = iter(self._loglikelihood_tokens(windows))
    return [sum(next(likelihoods)[0] for _ in range(count)) for count in counts]

  def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
    """The text that is written behind each context, up to a text of `until`, the end of text, or max_gen_toks."""
    groups: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
      groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(number)
    texts = [""] * len(requests)
    with _bar(len(requests), "responses") as bar:
      for numbers in groups.values():
        asked = normalize_gen_kwargs(requests[numbers[0]].args[1], MOST_NEW_TOKENS)
        room = self.max_length - asked["max_gen_toks"]
        contexts = {number: self.tok_encode(requests[number].args[0])[-room:] or [self.prefix_token_id]
                    for number in numbers}
        numbers = sorted(numbers, key=lambda number: -len(contexts[number]))
        size = self._rows(len(numbers))
        for first in range(0, len(numbers), size):
          some = numbers[first:first + size]
          answers = self._generate([contexts[number] for number in some], some, size, asked)
          for number, text in zip(some, answers, strict=True):
            texts[number] = text
          bar.update(len(some))
          self.after_batch()
    return texts

  def _rows(self, count: int) -> int:
    """Rows of a batch of prompts, a multiple of the parts that the mesh splits rows into."""
    parts = meshes.rows(self.decoder.mesh)
    return -(-min(ROWS, count) // parts) * parts

  def _generate(self, contexts: list[list[int]], numbers: list[int], rows: int, asked: dict) -> list[str]:
    """The text behind each context. numbers: of the requests, from which random keys are folded"""
    stops = handle_stop_sequences(asked["until"], eos=self._end_text)
    stops = [text for text in stops if text]
    temperature = float(asked.get("temperature", 0.0)) if asked.get("do_sample") else 0.0
    cut = (int(asked.get("top_k") or 0), float(asked.get("top_p") or 1.0)) if temperature else (0, 1.0)
    generator = self._generator(*cut)
    settings = ChatSettings(generator, StopConditions(asked["max_gen_toks"], tuple(stops)), temperature,
                            jax.random.key(0))
    conversation = start_conversation(generator, contexts, asked["max_gen_toks"], rows)
    *_, (_, generations) = responses(settings, conversation, numbers)
    return [postprocess_generated_text(self.tok_decode(generation.tokens), stops, None) for generation in generations]

  @functools.cached_property
  def _end_text(self) -> str | None:
    return None if self.tokenizer is None else self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)

  @functools.cached_property
  def _decoding_params(self) -> dict:
    return _to_decoding_fn(self.decoder.model, self.decoder.mesh)(self.params)

  def _generator(self, top_k: int, top_p: float) -> Generator:
    """One for each way of sampling, which compiles its own programs."""
    key = top_k, top_p
    if key not in self._generators:
      self._generators[key] = Generator(self.decoder.model, self.own, self._decoding_params, self.decoder.mesh,
                                        Sampling(PIECE, top_k, top_p))
    return self._generators[key]


_to_decoding_fn = functools.cache(placement.to_decoding_fn)   # compiled once for all parameters of a model


def _bar(total: int, title: str) -> tqdm:
  """A progress bar for people, on a terminal of the first process."""
  return tqdm(total=total, desc=title, unit="text", disable=None if hosts.is_first_process() else True,
              dynamic_ncols=True)
