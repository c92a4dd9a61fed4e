"""Are exactly the responses trained? Reads back as text what the arrays of a run mark as trained."""

import functools
import itertools
from collections import Counter
from collections.abc import Sequence

from sftrl_jax.chat import Message, continues
from sftrl_jax.data.batches import example, next_batch
from sftrl_jax.data.demonstrations import demonstration
from sftrl_jax.data.report import marked
from sftrl_jax.objectives.batches import TokenBatch
from sftrl_jax.parallel import hosts
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import sft_data
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode, Response, Turn, by_row
from sftrl_jax.text.render import continued, later_messages, pictures, render, response
from sftrl_jax.text.tokenizer import Tokenizer

TRAIN_WRITTEN = "train what text/render.py calls written, and nothing else"   # the way out of a wrong mask


def check_demonstrations(experiment: Experiment) -> str:
  """SFT on demonstrations: compares the first training batch with the chats that it was packed from."""
  tokenizer, data = experiment.tokenizer, experiment.data
  stream = functools.partial(demonstration, experiment.env, data, experiment.seed)
  batch, count = next_batch(stream, tokenizer, experiment.batch, data.length, 0)
  expected = Counter()
  for shown in map(stream, range(count)):
    ends = [number for number, message in enumerate(shown.chat, 1) if message.role == "assistant"]
    learned = [response(tokenizer, shown.chat[: ends[number]]) for number in shown.learned]
    expected[tuple(itertools.chain(*learned))] += 1
  trained = _trained_spans(batch)
  check_spans(tokenizer, trained, expected, trained.total(), count)
  return summary(tokenizer, trained, count, *example(tokenizer, stream(0)))


def check_rows(experiment: Experiment) -> str:
  """SFT on rows of one's own, or preferences on pairs: reads all of them, and compares the first training batch with
  them as rendered. A pair has two spans."""
  of_pairs = experiment.objective is not None
  try:
    data = (sft_data.make_pair_data if of_pairs else sft_data.make_sft_data)(experiment)
  except ConfigError as error:
    raise CheckFailed(str(error), "mend the data, or config.data") from error
  batch, count = data.batches(0)
  trained = _trained_spans(batch)
  strange = set(trained)
  corpus = data.corpus.examples if of_pairs else data.corpus
  for index in range(corpus.count):
    ids, learned = corpus.example(index)
    strange.discard(tuple(ids[1:][learned[1:]].tolist()))
  total = sum(hosts.gathered(trained.total()))   # each process makes the rows that it holds
  if total != count * (1 + of_pairs) or strange:
    what = "pairs" if of_pairs else "examples"
    raise CheckFailed(f"a batch of {count} {what} trains {total} spans, of which {len(strange)} are in no row",
                      TRAIN_WRITTEN)
  return data.summary.replace("\n", "\n          ")


def check_episodes(experiment: Experiment, episodes: Sequence[Episode]) -> str:
  """RL: compares training rows of the policy's episodes, and of the expert's, with the responses in them."""
  tokenizer = experiment.tokenizer
  episodes = [episode for episode in episodes if not episode.dropped]
  episodes = by_row([*episodes, *(expert_episode(experiment, episode.seed) for episode in episodes)])
  rows = collect.rows(episodes, experiment.actor.row_len(), [()] * len(episodes), reader=experiment.tokenizer.reader)
  expected = Counter(turn.response.tokens for episode in episodes for turn in episode.turns)
  trained, unbroken = Counter(), 0
  for row, episode in enumerate(episodes):
    ids = _ids(episode)
    unbroken += rows.inputs.tokens_BT[row][: len(ids) - 1].tolist() == ids[:-1]
    for number, turn in enumerate(episode.turns):
      mask_T = (rows.turns_BT[row] == number) & (rows.mask_BT[row] > 0)
      span = tuple(rows.targets_BT[row][mask_T].tolist())
      trained[span] += 1
      if tokenizer.decode(span[:-1] if turn.response.stopped else span) != turn.response.text:
        raise CheckFailed(f"the environment judged {turn.response.text!r}, but {tokenizer.decode(span)!r} is trained",
                          "let the policy's text be its tokens, decoded")
  check_spans(tokenizer, trained, expected, unbroken, len(episodes))
  row = max(range(len(episodes)), key=lambda row: (len(episodes[row].turns), row))   # the longest shows most
  ids = _ids(episodes[row])
  return summary(tokenizer, trained, len(episodes), ids, [0.0, *rows.mask_BT[row][: len(ids) - 1]])


def check_spans(tokenizer: Tokenizer, trained: Counter, expected: Counter, unbroken: int, chats: int) -> None:
  """Raises CheckFailed unless the trained spans are the responses, some end in <eos>, and each chat is in one row.

  trained, expected: {ids of a span: how often it occurs}
  unbroken: chats that lie in one row without a break, of `chats`
  """
  if trained != expected:
    strange = next(iter(trained - expected), ())
    raise CheckFailed(f"{(trained - expected).total()} of {trained.total()} trained spans are no response, for example "
                      f"{tokenizer.decode(strange)!r}", TRAIN_WRITTEN)
  if unbroken != chats:
    raise CheckFailed(f"{chats} chats lie in {unbroken} unbroken rows", "let a chat only grow from turn to turn")
  if not _ended(tokenizer, trained):
    raise CheckFailed("no trained response ends in <eos>, so the model never learns to stop",
                      "raise config.rollout.max_new_tokens")


def summary(tokenizer: Tokenizer, trained: Counter, chats: int, ids: Sequence[int], weights: Sequence[float]) -> str:
  """Counts the trained spans, and shows one row (ids, weights) as text."""
  tokens = sum(len(span) * count for span, count in trained.items())
  return (f"{tokens} trained tokens are {trained.total()} responses, {_ended(tokenizer, trained)} with their <eos>, of "
          f"{chats} chats in as many unbroken rows; in double brackets what is trained: "
          f"{marked(tokenizer, ids, weights)}")


def _ended(tokenizer: Tokenizer, trained: Counter) -> int:
  return sum(count for span, count in trained.items() if span and span[-1] in tokenizer.stops)


def _trained_spans(batch: TokenBatch) -> Counter:
  """Counts the trained ids of every example of a packed batch."""
  rows = zip(batch.targets_BT, batch.weights_BT, batch.inputs.segments_BT, strict=True)
  return Counter(tuple(targets_T[(segments_T == segment) & (weights_T > 0)].tolist())
                 for targets_T, weights_T, segments_T in rows for segment in range(1, segments_T.max() + 1))


def _ids(episode: Episode) -> list[int]:
  return [token for turn in episode.turns for token in (*turn.response.context, *turn.response.tokens)]


def expert_episode(experiment: Experiment, seed: int | str) -> Episode:
  """Plays an episode whose responses are the expert's, with the ids that a policy would have sampled for them."""
  state, chat = experiment.env.reset(seed)
  context, turns, anew = render(experiment.tokenizer, chat)[0], [], False
  images = pictures(experiment.tokenizer, chat)
  while True:
    text = experiment.env.expert(state)
    tokens = tuple(response(experiment.tokenizer, (*chat, Message("assistant", text))))
    state, verdict = experiment.env.step(state, text)
    turns.append(Turn(Response(text, tuple(context), tokens, (0.0,) * len(tokens), begins_row=anew, images=images),
                      verdict))
    if verdict.chat is None or len(turns) == experiment.env.attempts:
      return Episode(seed, tuple(turns), chat, verdict.truncated or verdict.chat is not None)
    anew = bool(experiment.actor.rewriting) and not continues(chat, text, verdict.chat)
    chat = verdict.chat
    context = render(experiment.tokenizer, chat)[0] if anew else continued(experiment.tokenizer, chat)
    images = pictures(experiment.tokenizer, chat if anew else later_messages(chat))
