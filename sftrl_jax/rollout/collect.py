"""Episodes to arrays: rows for the model, and the grid on which returns are computed."""

import bisect
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from flax import struct

from sftrl_jax.inputs import Inputs, Prefix, after_prompts, prefixes, right_pad, share_prompts
from sftrl_jax.rollout.episodes import Episode, Response, Turn
from sftrl_jax.text.images import ImageReader, Pictures, with_pictures


@struct.dataclass
class Rows:
  """One row a chat, ids exactly as sampled. Column t is about token t + 1.

  An episode has one chat, or up to S of them where the environment rewrites its prompt. Row s * E + e is then the s-th
  chat of episode e of E; what an episode does not have is blank. So a batch that is dealt out by row number modulo a
  divisor of E keeps its episodes whole.
  """

  inputs: Inputs
  targets_BT: np.ndarray  # int32
  mask_BT: np.ndarray  # f32: the policy sampled the target
  turns_BT: np.ndarray  # int32: the turn within its row, -1 off the mask
  sampled_logprobs_BT: np.ndarray  # f32, by the sampler
  weights_BT: np.ndarray | None = None  # f32, of sampled targets; None where all are 1
  prefix: Prefix | None = None  # what a teacher alone reads before the row


@struct.dataclass
class ResponseRows:
  """The rows of `Rows` as a model reads them that scores responses: their last ids too, and no target.

  ends_BU: int32, the column of the last token of every response of a row; 0 where there is no response
  """

  inputs: Inputs
  ends_BU: np.ndarray


@struct.dataclass
class Grid:
  """One line an episode, one column a step; a step is a token (level "token") or a turn (level "turn").

  row_EL, column_EL: the place of a step's value in the rows, that is of the state before the step's first token. The
    last column of row_EL is the row of the state after the last step.
  """

  row_EL: np.ndarray  # int32
  column_EL: np.ndarray  # int32
  live_EL: np.ndarray  # f32
  rewards_EL: np.ndarray  # f32, on the last step of a turn
  ends_EL: np.ndarray  # f32: the last step of a turn
  last_column_E: np.ndarray  # int32: the column of the state after the last step
  bootstrap_E: np.ndarray  # f32: the episode was truncated, so that state has a value


@struct.dataclass
class Outcomes:
  """Numbers an episode, for methods that compare the episodes of a group, which stand next to one another."""

  rewards_E: np.ndarray  # f32: the sum of its turns' rewards, penalties for length subtracted
  in_loss_E: np.ndarray  # f32: 0 where the episode is left out of the loss
  has_advantage_E: np.ndarray  # f32: 0 where its group only fills the batch, or the episode is left out


def rows(episodes: Sequence[Episode], length: int, closing: Sequence[Sequence[int]], slots: int = 1,
         weigh: Callable[[Response], Sequence[float]] | None = None, reader: ImageReader | None = None,
         prefix_tokens: int = 0) -> Rows:
  """Rows of `length` tokens.

  closing: ids after each episode's last response, () where none are read
  slots: rows of an episode, S of `Rows`; ValueError for an episode that has more
  weigh: the weights of a response's tokens
  reader: of the pictures, where the model reads them
  prefix_tokens: columns of what a teacher reads before a row; 0 where it reads the row alone
  """
  texts, marks, turns, logprobs, weights, images = [], [], [], [], [], []
  for episode, row_turns, after in _in_order(episodes, closing, slots):
    ids, mark, turn, logprob, weight = [], [], [], [], []
    for number, response in enumerate(t.response for t in row_turns):
      context, tokens, logs = response.context, response.tokens, response.logprobs
      if len(tokens) != len(logs):
        raise ValueError(f"Episode {episode.seed}: {len(tokens)} sampled tokens but {len(logs)} log-probabilities.")
      ids += [*context, *tokens]
      mark += [0.0] * len(context) + [1.0] * len(tokens)
      turn += [-1] * len(context) + [number] * len(tokens)
      logprob += [0.0] * len(context) + list(logs)
      if weigh is not None:
        weight += [0.0] * len(context) + list(weigh(response))
    texts.append(ids + list(after))  # the last id is only ever a target: it needs no column
    blank = len(after)
    marks.append(mark + [0.0] * blank)
    turns.append(turn + [-1] * blank)
    logprobs.append(logprob + [0.0] * blank)
    weights.append(weight)
    images.append(_pictures(row_turns))
  inputs = right_pad([ids[:length] if len(ids) == length + 1 else ids for ids in texts], length)
  inputs = with_pictures(reader, inputs, images)
  return Rows(inputs, _shifted(texts, length, 0, np.int32), _shifted(marks, length, 0.0, np.float32),
              _shifted(turns, length, -1, np.int32), _shifted(logprobs, length, 0.0, np.float32),
              None if weigh is None else _shifted(weights, length, 0.0, np.float32),
              prefixes(_prefix_ids(episodes, slots), prefix_tokens) if prefix_tokens else None)


def sharing_prompts(rows: Rows, episodes: Sequence[Episode], columns: int, group: int) -> Rows:
  """`rows(episodes, ...)`, one row an episode, in which a group of neighbours has one prompt, of at most `columns`
  tokens and the last one. Column 0 of a row is then that of the prompt's last token."""
  first = lambda episode: len(episode.turns[0].response.context) - 1 if episode.turns else 0
  lengths_B = np.maximum(0, np.asarray([first(episode) for episode in episodes], np.int32))
  inputs = share_prompts(rows.inputs, lengths_B, columns, group)
  rest = lambda x_BT: None if x_BT is None else after_prompts(x_BT, inputs.prompts.lengths_B, columns)
  return rows.replace(inputs=inputs, targets_BT=rest(rows.targets_BT), mask_BT=rest(rows.mask_BT),
                      turns_BT=rest(rows.turns_BT), sampled_logprobs_BT=rest(rows.sampled_logprobs_BT),
                      weights_BT=rest(rows.weights_BT))


def _prefix_ids(episodes: Sequence[Episode], slots: int) -> list[tuple[Sequence[int], int]]:
  """Of every row, in the order of `Rows`."""
  return [episode.prefixes[slot] if slot < len(episode.prefixes) else ((), 0)
          for slot in range(slots) for episode in episodes]


def response_rows(episodes: Sequence[Episode], length: int, turns: int, slots: int = 1,
                  reader: ImageReader | None = None) -> ResponseRows:
  """Rows of `length` tokens that end with their last response, up to `turns` responses each. slots, reader: as of
  `rows`."""
  texts, images, ends_BU = [], [], np.zeros((slots * len(episodes), turns), np.int32)
  for row, (_, row_turns, _) in enumerate(_in_order(episodes, [()] * len(episodes), slots)):
    ids = []
    for number, response in enumerate(turn.response for turn in row_turns):
      ids += [*response.context, *response.tokens]
      ends_BU[row, number] = max(0, len(ids) - 1)
    texts.append(ids)
    images.append(_pictures(row_turns))
  return ResponseRows(with_pictures(reader, right_pad(texts, length), images), ends_BU)


def _pictures(turns: Sequence[Turn]) -> Pictures:
  """Of a row, in the order of its contexts."""
  return tuple(image for turn in turns for image in turn.response.images)


def by_turn(x_BU: np.ndarray, episodes: Sequence[Episode]) -> list[list[float]]:
  """Of every episode the numbers of its turns. x_BU: one a response, in the places of `response_rows`."""
  count, numbers = len(episodes), []
  for place, episode in enumerate(episodes):
    numbers.append([float(x_BU[slot * count + place, turn]) for slot, turns in enumerate(episode.rows)
                    for turn in range(len(turns))])
  return numbers


def thought_tokens(decode: Callable[[Sequence[int]], str], tokens: Sequence[int], action_start: int) -> int:
  """The number of a response's first tokens whose text ends where its action starts, or before.

  decode: from ids to text, of which more ids never have less; action_start: a place in the text of the response
  """
  return bisect.bisect_right(range(1, len(tokens) + 1), action_start, key=lambda count: len(decode(tokens[:count])))


def _in_order(episodes: Sequence[Episode], closing: Sequence[Sequence[int]], slots: int) -> Iterator[tuple]:
  """(episode, its turns in the row, ids after them) of every row."""
  parts = [episode.rows for episode in episodes]
  for episode, of_rows in zip(episodes, parts, strict=True):
    if len(of_rows) > slots:
      raise ValueError(f"Episode {episode.seed}: it has {len(of_rows)} chats, but a batch has {slots} rows for it.")
  for slot in range(slots):
    for episode, of_rows, after in zip(episodes, parts, closing, strict=True):
      turns = of_rows[slot] if slot < len(of_rows) else ()
      yield episode, turns, after if slot == len(of_rows) - 1 else ()


def row_numbers(chosen_E: np.ndarray, episodes: int, slots: int) -> np.ndarray:
  """The rows of some of `episodes` episodes, in the order of `Rows`."""
  return np.concatenate([chosen_E + slot * episodes for slot in range(slots)])


def _shifted(lists: Sequence[Sequence], length: int, fill: float, dtype: type) -> np.ndarray:
  """An array [len(lists), length] whose column t holds item t + 1."""
  out = np.full((len(lists), length), fill, dtype)
  for row, items in enumerate(lists):
    out[row, : max(0, len(items) - 1)] = items[1:]
  return out


def grid(episodes: Sequence[Episode], level: str, turns: int, tokens: int, closing: Sequence[Sequence[int]]) -> Grid:
  """The grid of `rows(episodes, ..., closing)`.

  turns, tokens: most turns of an episode, most tokens of a response. An episode is bootstrapped if it was truncated and
  its closing ids were read, because only then there is a state whose value can stand for the rest.
  """
  steps = turns if level == "turn" else turns * tokens
  E = len(episodes)
  row_EL = np.repeat(np.arange(E, dtype=np.int32)[:, None], steps, axis=1)
  column_EL = np.zeros((E, steps), np.int32)
  live_EL, rewards_EL, ends_EL = (np.zeros((E, steps), np.float32) for _ in range(3))
  last_column_E, bootstrap_E = np.zeros(E, np.int32), np.zeros(E, np.float32)
  for e, episode in enumerate(episodes):
    row = at = 0
    for u, turn in enumerate(episode.turns):
      if u and turn.response.begins_row:
        row, at = row + 1, 0
        row_EL[e, u if level == "turn" else u * tokens :] = row * E + e
      start, length = at + len(turn.response.context), len(turn.response.tokens)
      at = start + length
      if not length:
        continue
      # The state before token i is column i - 1.
      span = slice(u, u + 1) if level == "turn" else slice(u * tokens, u * tokens + length)
      column_EL[e, span] = start - 1 if level == "turn" else np.arange(start - 1, at - 1)
      live_EL[e, span] = 1.0
      rewards_EL[e, span.stop - 1] = turn.verdict.reward
      ends_EL[e, span.stop - 1] = 1.0
    last_column_E[e] = max(at + len(closing[e]) - 1, 0)
    bootstrap_E[e] = float(episode.truncated and len(closing[e]) > 0)
  return Grid(row_EL, column_EL, live_EL, rewards_EL, ends_EL, last_column_E, bootstrap_E)


def outcomes(episodes: Sequence[Episode], *, turn_gamma: float = 1.0, mask: bool = False, longest: int = 0,
             buffer: int = 0, penalty: float = 0.0, padding_episodes: int = 0) -> Outcomes:
  """One outcome an episode.

  turn_gamma: discount from a turn to the next. mask: leave episodes that were `cut` out of the loss.
  longest, buffer, penalty: a response loses `penalty` at `longest` tokens and nothing at `buffer` fewer, linearly.
  padding_episodes: so many at the end only fill the batch.
  """
  rewards = []
  for episode in episodes:
    total = 0.0
    for number, turn in enumerate(episode.turns):
      over = max(0.0, len(turn.response.tokens) - (longest - buffer)) / buffer if buffer else 0.0
      total += turn_gamma**number * (turn.verdict.reward - penalty * min(1.0, over))
    rewards.append(total)
  in_loss = [0.0 if mask and cut(episode) else 1.0 for episode in episodes]
  has_advantage_E = np.asarray([not episode.dropped for episode in episodes], np.float32)
  has_advantage_E[len(episodes) - padding_episodes:] = 0.0
  return Outcomes(np.asarray(rewards, np.float32), np.asarray(in_loss, np.float32), has_advantage_E)


def cut(episode: Episode) -> bool:
  """Whether a limit of the rollout ended a response without a stop token, or a chat that no longer fitted.

  An episode that is out of attempts is truncated too, but by its task.
  """
  refused = episode.truncated and not (episode.turns and episode.turns[-1].verdict.truncated)
  return refused or any(not turn.response.stopped for turn in episode.turns)
