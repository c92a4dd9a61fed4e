"""Are exactly the responses trained? What the arrays of a run mark as trained, read back as text."""

import functools
from collections import Counter

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
  trained, found = Counter(), 0
  for targets, weights, segments in zip(batch.targets_BT, batch.weights_BT, batch.inputs.segments_BT, strict=True):
    for segment in range(1, segments.max() + 1):
      trained[tuple(targets[(segments == segment) & (weights > 0)].tolist())] += 1
      found += 1
  return told(tokenizer, trained, wanted, found, count, example(tokenizer, chats(0)))


def of_rows(experiment: Experiment) -> str:
  """SFT on rows of one's own: all are read, and the first batch is as they were rendered."""
  try:
    supply = sft_data.make_sft_data(experiment)
  except ConfigError as error:
    raise CheckFailed(str(error), "mend the data, or config.data") from error
  batch, count = supply.batches(0)
  trained = Counter(tuple(targets[(segments == segment) & (weights > 0)].tolist())
                    for targets, weights, segments in zip(batch.targets_BT, batch.weights_BT, batch.inputs.segments_BT,
                                                          strict=True)
                    for segment in range(1, segments.max() + 1))
  strange = set(trained)
  for index in range(supply.corpus.count):
    ids, learned = supply.corpus.example(index)
    strange.discard(tuple(ids[1:][learned[1:]].tolist()))
  if trained.total() != count or strange:
    raise CheckFailed(f"a batch of {count} examples trains {trained.total()} spans, of which {len(strange)} are in no row",
                "train what text/render.py calls written, and nothing else")
  return supply.summary.replace("\n", "\n          ")


def of_episodes(experiment: Experiment, episodes) -> str:
  """RL: rows as they are trained, of the policy's episodes and of the expert's, against what was said in them."""
  tokenizer = experiment.tokenizer
  episodes = [*episodes, *(spoken(experiment, episode.seed) for episode in episodes)]
  rows = collect.rows(episodes, experiment.actor.row_len(), [()] * len(episodes))
  wanted = Counter(turn.response.tokens for episode in episodes for turn in episode.turns)
  trained, found = Counter(), 0
  for row, episode in enumerate(episodes):
    said = _ids(episode)
    found += rows.inputs.tokens_BT[row][: len(said) - 1].tolist() == said[:-1]
    for number, turn in enumerate(episode.turns):
      here = (rows.turns_BT[row] == number) & (rows.mask_BT[row] > 0)
      ids = tuple(rows.targets_BT[row][here].tolist())
      trained[ids] += 1
      if tokenizer.decode(ids[:-1] if turn.response.stopped else ids) != turn.response.text:
        raise CheckFailed(f"the environment judged {turn.response.text!r}, but {tokenizer.decode(ids)!r} is trained",
                    "let the policy's text be its tokens, decoded")
  row = max(range(len(episodes)), key=lambda row: (len(episodes[row].turns), row))   # the longest tells most
  said = _ids(episodes[row])
  return told(tokenizer, trained, wanted, found, len(episodes), (said, [0.0, *rows.mask_BT[row][: len(said) - 1]]))


def _ids(episode: Episode) -> list[int]:
  return [token for turn in episode.turns for token in (*turn.response.context, *turn.response.tokens)]


def told(tokenizer: Tokenizer, trained: Counter, wanted: Counter, found: int, chats: int, shown) -> str:
  """What both methods are held to: the trained spans are the responses, each with its <eos>; a chat is one row.

  found: chats that lie in one unbroken row. shown: (ids, weights) of one row, for a person to look at.
  """
  if trained != wanted:
    strange = next(iter(trained - wanted), ())
    raise CheckFailed(f"{(trained - wanted).total()} of {trained.total()} trained spans are no response, for example "
                f"{tokenizer.decode(strange)!r}", "train what text/render.py calls written, and nothing else")
  if found != chats:
    raise CheckFailed(f"{chats} chats lie in {found} unbroken rows", "let a chat only grow from turn to turn")
  ended = sum(number for ids, number in trained.items() if ids and ids[-1] in tokenizer.stops)
  if not ended:
    raise CheckFailed("no trained response ends in <eos>, so the model never learns to stop",
                "raise config.rollout.max_new_tokens")
  tokens = sum(len(ids) * number for ids, number in trained.items())
  return (f"{tokens} trained tokens are {wanted.total()} responses, {ended} with their <eos>, of {chats} chats in as "
          f"many unbroken rows; in double brackets what is trained: {marked(tokenizer, *shown)}")


def spoken(experiment: Experiment, seed) -> Episode:
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
