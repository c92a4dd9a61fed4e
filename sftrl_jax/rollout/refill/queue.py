"""Episodes that are played from one queue: a slot whose response has ended takes the next conversation.

A response begins in the first ring, whose slots have room for most responses. One that is longer goes on in a slot of
the second, of which there are fewer, and which is decoded whenever it is full and others are to enter it.

What runs, and in which order, follows from the lengths of responses alone and never from the time that a verdict takes,
so a run that is repeated, or resumed, has the same bits. Verdicts come while others are decoded: those of a last turn
are awaited at the end, others one segment later, and at once where no conversation is left that could begin.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence

from sftrl_jax.chat import Chat, continues
from sftrl_jax.envs.env import Env
from sftrl_jax.parallel import hosts
from sftrl_jax.rollout.episodes import JUDGING, Clock, Episode, Games, Judging, Response
from sftrl_jax.rollout.fitting import group_pictures, group_prompts, later_ids
from sftrl_jax.rollout.policy import response_of
from sftrl_jax.rollout.refill.slots import Decoding, Request, Slots
from sftrl_jax.text.images import Pictures
from sftrl_jax.text.render import later_messages, pictures


def begin(env: Env, decoding: Decoding, episodes: Sequence[int], seeds: Sequence[int | str], group: int = 1,
          before_segment: Callable[[], None] = lambda: None, judging: Judging = JUDGING
          ) -> Callable[[], tuple[list[Episode], Clock]]:
  """`rollout.episodes.begin` of any number of episodes, those of this process, in refilled slots.

  episodes: their numbers, from which random numbers follow. group: so many, standing together, begin with one prompt.
  before_segment: is called equally often by all processes; it may end the process.
  """
  queue = _Queue(env, decoding, episodes, seeds, group, judging)
  while True:
    before_segment()
    queue.take_verdicts()
    if not any(hosts.gathered(queue.unfinished)):
      break
    queue.answer()

  def end() -> tuple[list[Episode], Clock]:
    return queue.end(), Clock(queue.rollout, queue.verify)

  return end


@dataclasses.dataclass
class _Conversation:
  """Where a conversation stands.

  ids: of the chat so far, contexts and responses
  context: what is read before the next response. begins_row: whether that is another chat than the one before
  images: the pictures in the context, and all_images those of the whole chat
  answered: the last chat and the response to it
  turn: responses so far
  """

  ids: tuple[int, ...] = ()
  context: Sequence[int] = ()
  begins_row: bool = False
  answered: tuple[Chat, str] | None = None
  turn: int = 0
  images: Pictures = ()
  all_images: Pictures = ()


class _Queue:
  """The conversations of this process: those that wait for a slot, that have one, and that wait for a verdict.

  rollout, verify: seconds spent with the policy, and waiting for the environment
  """

  def __init__(self, env: Env, decoding: Decoding, episodes: Sequence[int], seeds: Sequence[int | str], group: int,
               judging: Judging):
    mark = time.perf_counter()
    self._games, self._env, self._decoding, self._actor, self._episodes, self._group = (
        Games(env, seeds, judging), env, decoding, decoding.actor, episodes, group)
    self._young, *old = (Slots(decoding, ring) for ring in decoding.actor.rings)
    self._old = old[0] if old else None
    self._batch = len(self._actor.share.slots(self._actor.newcomers))   # most that enter a ring together
    self._pending: list[tuple[Callable[[], list[int]], int]] = []   # verdicts, and of how many conversations
    self._last: list[Callable[[], list[int]]] = []   # verdicts after which no conversation goes on
    self._later: deque[Request] = deque()
    self.verify, self.rollout = time.perf_counter() - mark, 0.0
    self._conversations = [_Conversation() for _ in seeds]
    self._first = self._prompts()

  @property
  def unfinished(self) -> int:
    """Conversations that have not had their last response."""
    waiting = len(self._later) + self._group * len(self._first)
    taken = len(self._young.taken) + (len(self._old.taken) if self._old else 0)
    return waiting + taken + sum(count for _, count in self._pending)

  def take_verdicts(self) -> None:
    """Takes the verdicts that are due, and queues the conversations that go on."""
    mark = time.perf_counter()
    while self._pending and not (self._first and self._games.overlap and len(self._pending) == 1):
      wait, _ = self._pending.pop(0)
      going_on = sorted(wait())
      self.verify += time.perf_counter() - mark
      mark = time.perf_counter()
      for number in going_on:
        self._go_on(number)
      self.rollout += time.perf_counter() - mark
      mark = time.perf_counter()

  def answer(self) -> None:
    """Lets waiting conversations take free slots, decodes a segment, and begins the verdicts on what has ended."""
    mark, most = time.perf_counter(), lambda: min(self._batch, self._young.free)
    later, first = (max(rounds) for rounds in zip(*hosts.gathered(self._rounds()), strict=True))
    ended = []
    for _ in range(later):
      ended += self._admit([self._later.popleft() for _ in range(min(most(), len(self._later)))], turn=1)
    for _ in range(first):
      groups = [self._first.popleft() for _ in range(min(most() // self._group, len(self._first)))]
      ended += self._admit([request for group in groups for request in group], group=self._group)
    ended += self._decode()
    self._promote()
    self.rollout += time.perf_counter() - mark
    mark = time.perf_counter()
    self._judge(sorted(ended, key=lambda request: request.conversation))
    self.verify += time.perf_counter() - mark

  def end(self) -> list[Episode]:
    """All episodes, after their last verdicts."""
    mark = time.perf_counter()
    for wait in self._last:
      wait()
    self.verify += time.perf_counter() - mark
    return self._games.closed()

  def _prompts(self) -> deque[list[Request]]:
    """The groups of first requests; conversations that are refused end here."""
    mark, actor, count = time.perf_counter(), self._actor, len(self._conversations)
    chats = [self._games.chat(number) for number in range(count)]
    contexts, refused = group_prompts(actor.tokenizer, chats, actor.rollout.prompt_tokens, self._group)
    shown = group_pictures(actor.tokenizer, chats, contexts, self._group)
    for number, trouble in enumerate(refused):
      conversation = self._conversations[number]
      conversation.context, conversation.images, conversation.all_images = contexts[number], *[shown[number]] * 2
      if trouble:
        self._refuse(number, Response("", tuple(contexts[number]), refused=trouble))
    requests = [self._request(number, live=not refused[number]) for number in range(count)]
    groups = [requests[start : start + self._group] for start in range(0, count, self._group)]
    self.rollout += time.perf_counter() - mark
    return deque(group for group in groups if any(request.live for request in group))

  def _go_on(self, number: int) -> None:
    """Queues the next response of a conversation, unless its chat cannot be read."""
    actor, conversation, chat = self._actor, self._conversations[number], self._games.chat(number)
    anew = bool(actor.rewriting) and not continues(*conversation.answered, chat)
    ids = () if anew else conversation.ids
    context, trouble = later_ids(actor.tokenizer, actor.rollout, chat, ids, anew)
    conversation.ids, conversation.context, conversation.begins_row = ids, context, anew
    if trouble:
      self._refuse(number, Response("", refused=trouble, begins_row=anew))
    else:
      conversation.images = pictures(actor.tokenizer, chat if anew else later_messages(chat))
      conversation.all_images = pictures(actor.tokenizer, chat)
      self._later.append(self._request(number))

  def _request(self, number: int, live: bool = True) -> Request:
    conversation = self._conversations[number]
    return Request(number, self._episodes[number], conversation.turn, (*conversation.ids, *conversation.context), live,
                   conversation.all_images)

  def _refuse(self, number: int, response: Response) -> None:
    self._games.judge([number], [response])()

  def _rounds(self) -> tuple[int, int]:
    """How many calls of `_admit` this process wants, for later responses and for first ones: full ones, and one for the
    rest where nothing that is left could fill it."""
    batch, free = self._batch, self._young.free
    waiting = min(free, len(self._later))
    later = waiting // batch + bool(waiting % batch and not self._first)
    groups = min((free - min(waiting, later * batch)) // self._group, len(self._first))
    per_call = batch // self._group
    return later, groups // per_call + bool(groups % per_call and groups == len(self._first))

  def _admit(self, requests: Sequence[Request], turn: int = 0, group: int = 1) -> list[Request]:
    """Lets requests take slots; returns those that have ended with their first token."""
    newer = self._decoding.read(requests, turn, group)
    ended = [request for request in requests if request.live and self._decoding.has_ended(request)]
    self._young.enter([request if request.live and request not in ended else None for request in requests], newer)
    return ended

  def _decode(self) -> list[Request]:
    """A segment of the ring whose turn it is, with as few rows as the conversations need once none waits. It ends when
    there are slots for a call of `_admit`, or so many free ones that fewer rows do."""
    old = self._old.taken if self._old else []
    standing = hosts.gathered((bool(self._later or self._first), self.unfinished, self._young.taken, old,
                               len(self._young.old), self._young.most))
    waits, unfinished, young, old, blocked, mosts = (list(each) for each in zip(*standing, strict=True))
    if any(blocked) or (not any(map(len, young)) and any(map(len, old))):
      slots, taken, free = self._old, old, self._old.rows - sum(map(len, old))
      last, most = not any(map(len, young)) and not any(waits), self._actor.segment
    else:
      slots, taken, free = self._young, young, self._young.rows - sum(map(len, young))
      last, most = not any(waits), min(mosts)
    several, batch = self._env.attempts > 1, self._actor.newcomers
    if last and (size := self._smallest(slots, unfinished if several else list(map(len, taken)))) < slots.rows:
      slots.shrink(size, taken)
      free = slots.rows - sum(map(len, taken))
    enough = batch if free < batch else free + batch
    if last:
      smaller = next((slots.rows - size for size in slots.ring.sizes if slots.rows - size > free), slots.rows)
      enough = min(smaller, enough) if several else smaller
    return slots.decode(min(enough, slots.rows), most)

  def _smallest(self, slots: Slots, counts: Sequence[int]) -> int:
    """The smallest size of a ring in which every process has slots for its count of conversations."""
    share = self._actor.share
    return next((size for size in reversed(slots.ring.sizes) if all(
        count <= len(share.slots(size, process)) for process, count in enumerate(counts))), slots.rows)

  def _promote(self) -> None:
    """Moves responses that are too long for the first ring to free slots of the second."""
    if self._old is None:
      return
    leaving = hosts.gathered(self._young.old[: min(self._batch, self._old.free)])
    while any(leaving):
      requests, cache = self._young.leave(leaving)
      self._old.enter(requests, cache)
      leaving = hosts.gathered(self._young.old[: min(self._batch, self._old.free)])

  def _judge(self, requests: Sequence[Request]) -> None:
    """Begins the verdicts on responses that have ended."""
    judged: dict[bool, tuple[list[int], list[Response]]] = {True: ([], []), False: ([], [])}
    for request in requests:
      conversation = self._conversations[request.conversation]
      response = response_of(self._actor, request.sampled, conversation.context,
                             begins_row=conversation.begins_row, images=conversation.images)
      conversation.ids = (*request.ids, *response.tokens)
      conversation.answered = self._games.chat(request.conversation), response.text
      conversation.turn += 1
      numbers, responses = judged[conversation.turn == self._env.attempts]
      numbers.append(request.conversation)
      responses.append(response)
    for last, (numbers, responses) in judged.items():
      wait = self._games.judge(numbers, responses)
      if last:
        self._last.append(wait)
      else:   # also if there are none: those before are due one segment later
        self._pending.append((wait, len(numbers)))
