"""Are exactly the responses trained? What the arrays of a run mark as trained, read back as text."""

import functools
from collections import Counter
from collections.abc import Sequence

from sftrl_jax.chat import Message
from sftrl_jax.data.batches import example, next_batch
from sftrl_jax.data.demonstrations import demonstration
from sftrl_jax.data.report import marked
from sftrl_jax.programs.check.expert_episodes import CheckFailed
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.experiment import Experiment
from sftrl_jax.programs.loop import sft_data
from sftrl_jax.rollout import collect
from sftrl_jax.rollout.episodes import Episode, Response, Turn
from sftrl_jax.text.render import continued, render, response
from sftrl_jax.text.tokenizer import Tokenizer


def of_demonstrations(experiment: Experiment) -> str:
  """SFT: the first batch as it is trained, against the chats that it was packed from."""
  tokenizer, data = experiment.tokenizer, experiment.data
  chats = functools.partial(demonstration, experiment.env, data, experiment.seed)
  batch, count = next_batch(chats, tokenizer, experiment.batch, data.length, 0)
  wanted = Counter(tuple(response(tokenizer, chats(index))) for index in range(count))
  trained, unbroken = Counter(), 0
  for targets, weights, segments in zip(batch.targets_BT, batch.weights_BT, batch.inputs.segments_BT, strict=True):
    for segment in range(1, segments.max() + 1):
      trained[tuple(targets[(segments == segment) & (weights > 0)].tolist())] += 1
      unbroken += 1
  return describe_spans(tokenizer, trained, wanted, unbroken, count, example(tokenizer, chats(0)))


def of_rows(experiment: Experiment) -> str:
  """SFT on rows of one's own: all are read, and the first batch is as they were rendered."""
  try:
    data = sft_data.make_sft_data(experiment)
  except ConfigError as error:
    raise CheckFailed(str(error), "mend the data, or config.data") from error
  batch, count = data.batches(0)
  trained = Counter(tuple(targets[(segments == segment) & (weights > 0)].tolist())
                    for targets, weights, segments in zip(batch.targets_BT, batch.weights_BT, batch.inputs.segments_BT,
                                                          strict=True)
                    for segment in range(1, segments.max() + 1))
  strange = set(trained)
  for index in range(data.corpus.count):
    ids, learned = data.corpus.example(index)
    strange.discard(tuple(ids[1:][learned[1:]].tolist()))
  if trained.total() != count or strange:
    raise CheckFailed(f"a batch of {count} examples trains {trained.total()} spans, of which "
                      f"{len(strange)} are in no row",
                "train what text/render.py calls written, and nothing else")
  return data.summary.replace("\n", "\n          ")


def of_episodes(experiment: Experiment, episodes: Sequence[Episode]) -> str:
  """RL: rows as they are trained, of the policy's episodes and of the expert's, against their texts."""
  tokenizer = experiment.tokenizer
  episodes = [*episodes, *(expert_episode(experiment, episode.seed) for episode in episodes)]
  rows = collect.rows(episodes, experiment.actor.row_len(), [()] * len(episodes))
  wanted = Counter(turn.response.tokens for episode in episodes for turn in episode.turns)
  trained, unbroken = Counter(), 0
  for row, episode in enumerate(episodes):
    ids = _ids(episode)
    unbroken += rows.inputs.tokens_BT[row][: len(ids) - 1].tolist() == ids[:-1]
    for number, turn in enumerate(episode.turns):
      here = (rows.turns_BT[row] == number) & (rows.mask_BT[row] > 0)
      span = tuple(rows.targets_BT[row][here].tolist())
      trained[span] += 1
      if tokenizer.decode(span[:-1] if turn.response.stopped else span) != turn.response.text:
        raise CheckFailed(f"the environment judged {turn.response.text!r}, but {tokenizer.decode(span)!r} is trained",
                    "let the policy's text be its tokens, decoded")
  row = max(range(len(episodes)), key=lambda row: (len(episodes[row].turns), row))   # the longest shows most
  ids = _ids(episodes[row])
  return describe_spans(tokenizer, trained, wanted, unbroken, len(episodes),
                        (ids, [0.0, *rows.mask_BT[row][: len(ids) - 1]]))


def _ids(episode: Episode) -> list[int]:
  return [token for turn in episode.turns for token in (*turn.response.context, *turn.response.tokens)]


def describe_spans(tokenizer: Tokenizer, trained: Counter, wanted: Counter, unbroken: int, chats: int,
                   shown: tuple) -> str:
  """A sentence on the trained spans; CheckFailed unless they are the responses, each with its <eos>, a chat a row.

  trained, wanted: {ids of a span: how often}
  unbroken: chats that stand in one unbroken row
  shown: (ids, weights) of one row, for a person to look at
  """
  if trained != wanted:
    strange = next(iter(trained - wanted), ())
    raise CheckFailed(f"{(trained - wanted).total()} of {trained.total()} trained spans are no response, for example "
                f"{tokenizer.decode(strange)!r}", "train what text/render.py calls written, and nothing else")
  if unbroken != chats:
    raise CheckFailed(f"{chats} chats stand in {unbroken} unbroken rows", "let a chat only grow from turn to turn")
  ended = sum(number for ids, number in trained.items() if ids and ids[-1] in tokenizer.stops)
  if not ended:
    raise CheckFailed("no trained response ends in <eos>, so the model never learns to stop",
                "raise config.rollout.max_new_tokens")
  tokens = sum(len(ids) * number for ids, number in trained.items())
  return (f"{tokens} trained tokens are {wanted.total()} responses, {ended} with their <eos>, of {chats} chats in as "
          f"many unbroken rows; in double brackets what is trained: {marked(tokenizer, *shown)}")


def expert_episode(experiment: Experiment, seed: int | str) -> Episode:
  """An episode whose responses are the expert's, with the ids that a policy would have sampled for them."""
  state, chat = experiment.env.reset(seed)
  context, turns = render(experiment.tokenizer, chat)[0], []
  while True:
    text = experiment.env.expert(state)
    tokens = tuple(response(experiment.tokenizer, (*chat, Message("assistant", text))))
    state, verdict = experiment.env.step(state, text)
    turns.append(Turn(Response(text, tuple(context), tokens, (0.0,) * len(tokens)), verdict))
    if verdict.chat is None:
      return Episode(seed, tuple(turns), chat, verdict.truncated)
    chat, context = verdict.chat, continued(experiment.tokenizer, verdict.chat)
