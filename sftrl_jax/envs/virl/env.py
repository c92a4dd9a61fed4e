"""V-IRL in language: follow a route through a city, one action a point; the action space, or the city, is the shift.

The policy stands on a rail of points. At each it reads what is observed there and the route's instruction, and has
`tries` tries at the right action, which moves it on. Every turning line of the instruction has the word of both action
spaces, so each space can be answered by copying. The variants are one class, so SFT, RL and evaluation share every
line. Where the paper's released verifier is wrong, this one follows the paper's text, unless `legacy` is set.
"""

from __future__ import annotations

import dataclasses
import random
import zlib
from typing import ClassVar

import numpy as np

from sftrl_jax.chat import Chat, Message
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.virl import city, compact, legacy, paper, saved_routes, signs, views
from sftrl_jax.envs.virl.route import Landmark, Point, Route
from sftrl_jax.envs.virl.validation import SPACES, STYLES, VARIANT_LABELS, VISUAL_LABELS, WORDS, checked

CODE_LABELS = {"correct": "correct", "action": "wrong action", "misread": "misread, wrong action",
               "space": "other action space", "illegal": "illegal format"}
PART_LABELS = {"sign": "signs read", "distractor": "signs of no instruction read"}
GOLDEN = (5**0.5 - 1) / 2
SHIFTED_CITIES = 1000   # cities that `city_ood`, and training with pool="all", draw from
_REWARD = {"correct": 0, "action": 1, "misread": 2, "space": 1, "illegal": 1}   # index into `rewards`


@dataclasses.dataclass(frozen=True, slots=True)
class Walk:
  """The state of an episode: at which point of which route, and how many tries were made there.

  opening: the part of the prompt that is the same at every point; history: the observations and actions before
  signs: those of the picture where reading alone is asked for, else ()
  """

  route: Route
  space: str
  chat: Chat
  opening: str = ""
  history: str = ""
  place: int = 0
  tries: int = 0
  ended: bool = False
  signs: signs.Signs = ()

  @property
  def point(self) -> Point:
    return self.route.points[self.place]


@dataclasses.dataclass(frozen=True)
class VIRL:
  """Routes through generated cities, or those of a file.

  style: "paper" (English and JSON; every point has a prompt of its own) or "compact" (74 words; one growing chat).
  space: the action space of training: "absolute", "relative", or "mixed" (drawn for every route).
  legs: of a route: one number, or the smallest and the largest.
  straight, drop: candidates for points at which one only walks on, a leg, and the share of them that is left out.
  landmarks: share of the intersections that have a landmark.
  distractors: share of the points between the ends of a leg at which a landmark is seen that the route does not name.
    Without them whether there is a landmark says where one is, and the instruction which one: nothing need be read.
  cities: number of training cities.
  size: intersections along a side of a city.
  pool: landmarks of training: "known", or "all" (as a base model that is to know the words of every city needs).
  tries: scored answers at a point at most.
  rewards: of a right action, a wrong one, and a wrong one after misreading what is observed.
  routes: a file of the paper's routes (route_infos.json with gps_pano_mapping.pkl beside it) in place of the cities.
  legacy: the defects of the paper's released environment and verifier; for style="paper" only.
  variant: "train"; "id" (the same cities, absolute actions); "rule_ood" (the routes of `id` under relative actions;
    both spaces change places where training is relative); "city_ood" (other cities with other landmarks); or, with
    vision, "visual_ood" (the routes of `id`, whose cities have another look).
  vision: every point is shown as a picture of four views, and the text does not name what is seen now.
  pixels: of a view's side: 1200 in the paper. 0 for 224 in style "paper", 64 in "compact".
  look: of the cities of training: "day", or "any" (that of the visual shifts too, as a base model needs).
  panoramas: the directory of the panoramas of `routes` (the data's street_views); "" for drawn streets.
  answer: "action"; or "signs": with vision, in style "compact", an episode is one picture of a point of the route with
    signs in its four views, and the whole answer is their names; see signs.py.
  """

  style: str = "paper"
  space: str = "absolute"
  legs: int | tuple[int, int] = (2, 5)
  straight: int = 5
  drop: float = 0.5
  landmarks: float = 0.75
  distractors: float = 0.0
  cities: int = 4
  size: int = 8
  pool: str = "known"
  tries: int = 2
  rewards: tuple[float, float, float] = (1.0, -1.0, -1.5)
  routes: str = ""
  legacy: bool = False
  variant: str = "train"
  vision: bool = False
  pixels: int = 0
  look: str = "day"
  panoramas: str = ""
  answer: str = "action"

  codes: ClassVar[tuple[str, ...]] = tuple(CODE_LABELS)
  code_labels: ClassVar[dict[str, str]] = CODE_LABELS
  part_labels: ClassVar[dict[str, str]] = PART_LABELS
  thread_safe: ClassVar[bool] = True
  attempts_of: ClassVar[str] = "point"

  def __post_init__(self):
    for name, value in checked(self).items():
      object.__setattr__(self, name, value)
    if self.legacy and self.style != "paper":
      raise ValueError(f"legacy is True, but style is {self.style!r}: the released code has style='paper' only.")
    most = STYLES[self.style].MOST_LEGS
    if not self.routes and self.legs[1] > most:
      raise ValueError(f"legs is {self.legs}, but style {self.style!r} has at most {most}: use legs={most}.")
    if self.variant == "visual_ood" and self.variant not in self.variants:
      raise ValueError("variant is 'visual_ood', but it is another look of drawn streets: use vision=True and "
                       "panoramas=''.")
    if self.variant not in ("train", *self.variants):
      raise ValueError(f"variant is {self.variant!r}, but the routes of {self.routes} are of one set of cities: use "
                       "routes=FILE of other cities with variant='id', or routes='' for generated cities.")
    if self.routes:
      self._check_saved()
      if self.distractors:
        raise ValueError(f"distractors is {self.distractors}, but the routes of {self.routes} have their own "
                         "landmarks: use routes='' for generated cities, or distractors=0.")

  @property
  def variants(self) -> tuple[str, ...]:
    return tuple(self.variant_labels)

  @property
  def variant_labels(self) -> dict[str, str]:
    labels = VARIANT_LABELS | (VISUAL_LABELS if self.vision and not self.panoramas else {})
    if self.routes:
      del labels["city_ood"]   # a file has the cities of its routes
    return labels

  @property
  def rewrites_prompt(self) -> bool:
    """Whether a point has a prompt of its own."""
    return STYLES[self.style].REBUILT

  @property
  def words(self) -> tuple[str, ...]:
    """The vocabulary of the compact style; () in the paper's."""
    return STYLES[self.style].WORDS

  @property
  def attempts(self) -> int:
    """The most answers of one episode: `tries` at every point of the longest route."""
    return self.tries * self.most_rows + self.legacy

  @property
  def row_attempts(self) -> int:
    """The most answers of one chat in the paper's style: those at a point."""
    return self.tries + self.legacy

  @property
  def most_rows(self) -> int:
    """The points of the longest route, each of which has a chat of its own in the paper's style."""
    if self.answer == "signs":
      return 1
    if self.routes:
      return max(len(saved.points) for saved in self._saved())
    return self.legs[1] * max(1, self.straight) + 1

  def reset(self, seed: int | str) -> tuple[Walk, Chat]:
    """A route and the prompt of its first point, the same for the same seed."""
    route = self.route(seed)
    if self.answer == "signs":
      draw = stream("signs", seed)
      shown = signs.draw(draw, self._pool, views.TURNS)
      walk = Walk(route, "", (), compact.SEE, signs=shown)
      state = self._at(walk, int(draw.random() * len(route.points)))
      return state, state.chat
    space = self._space(seed)
    style = STYLES[self.style]
    opening = style.prompt(route, space, self.vision)
    state = self._at(Walk(route, space, (), opening), 0)
    return state, state.chat

  def route(self, seed: int | str) -> Route:
    """The route of a seed; `id` and `rule_ood` have the same ones."""
    draw = stream("route", seed)
    if self.routes:
      saved = self._saved()
      chosen = saved[int(draw.random() * len(saved))]
      return saved_routes.route(chosen, draw, self.straight, self.drop, wrap=not self.legacy, random_start=self.legacy)
    pool = self._pool
    count = self.cities if pool == "known" else SHIFTED_CITIES
    low, high = self.legs
    legs = low + int(draw.random() * (high - low + 1))
    place = city.generate(int(draw.random() * count), pool, self.size, self.landmarks)
    return city.walk(place, draw, legs, self.straight, self.drop, seed, not self.legacy, self.distractors)

  @property
  def _pool(self) -> str:
    """The landmarks of the variant's cities."""
    return "unseen" if self.variant == "city_ood" else self.pool

  def step(self, state: Walk, response: str) -> tuple[Walk, Verdict]:
    """Judges a response; ValueError when the episode of `state` has ended."""
    if state.ended:
      raise ValueError("this episode has ended: call reset(seed) for a new one, or step an earlier state.")
    if not isinstance(response, str):
      raise TypeError(f"response is a {type(response).__name__}, but it must be a str.")
    style, verifier, point = STYLES[self.style], legacy if self.legacy else STYLES[self.style], state.point
    # The released code truncates at one try more than it scores.
    unscored = self.legacy and state.tries >= self.tries
    code = ("action" if unscored else signs.judge(state.signs, response) if state.signs else
            verifier.judge(point, state.space, response))
    correct, tries = code == "correct", state.tries + 1
    arrived = correct and (bool(state.signs) or point.move == "stop")
    truncated = not correct and tries >= self.tries + self.legacy
    following = state.route.points[state.place + 1] if correct and not arrived else None
    feedback = verifier.feedback(code, following, self.vision)
    parts = {"signs": correct} if state.signs else self._parts(state, response) if self.vision else None
    image = self._picture(state, following) if following and not style.REBUILT else None
    chat = (*state.chat, Message("assistant", response), Message("user", feedback, image))
    ended = arrived or truncated
    if following:
      done = f" {style.action(point.move, point.word(state.space))}\n"
      state = self._at(dataclasses.replace(state, chat=chat, tries=0, history=state.history + done), state.place + 1)
    else:
      state = dataclasses.replace(state, chat=chat, tries=tries, ended=ended)
    reward = self.rewards[1 if unscored else _REWARD[code]]
    following_chat = None if ended else state.chat
    return state, Verdict(reward, arrived, truncated, correct, arrived, feedback, following_chat, code, parts)

  def _parts(self, state: Walk, response: str) -> dict[str, bool]:
    """Whether a response names what is seen (`nothing` too), and of points with a landmark its sign; apart, those that
    the instruction does not name: what they say is in the picture alone."""
    seen, right = state.point.landmark, STYLES[self.style].sees(state.point, response)
    named = seen is None or seen.kind in [mark.kind for mark in state.route.landmarks if mark]
    return {"landmark": right} | ({"sign": right} if seen else {}) | ({} if named else {"distractor": right})

  def _picture(self, state: Walk, point: Point) -> np.ndarray | None:
    return views.picture(self, state.route, point, state.signs or (point.landmark,)) if self.vision else None

  def _at(self, state: Walk, place: int) -> Walk:
    """The state at a point: with the chat as it is, or with the point's own prompt where the style writes one anew."""
    style, point = STYLES[self.style], state.route.points[place]
    if not style.REBUILT:
      chat = state.chat or (Message("user", state.opening, self._picture(state, point)),)
      return dataclasses.replace(state, chat=chat, place=place)
    shown = style.turn_of(place + 1, state.history, point, self.vision)
    chat = (Message("user", f"{state.opening}{shown}{style.output()}", self._picture(state, point)),)
    history = style.turn_of(place + 1, state.history, point)
    return dataclasses.replace(state, chat=chat, history=history, place=place)

  def expert(self, state: Walk, choice: int = 0) -> str:
    """The right answer at the point where `state` is; there is one."""
    del choice
    point = state.point
    return self._answer(state, point, point.line, point.move, point.word(state.space))

  def action_start(self, response: str) -> int:
    """The index at which the scored part of a response starts, after what only leads to it; 0 where it has none."""
    return STYLES[self.style].action_start(response)

  def careless(self, state: Walk, seed: int | str) -> str:
    """Reads the point rightly, but acts on the line before the one that holds, as if it had not noticed arriving; at
    the first line it begins to walk."""
    del seed
    line = state.point.line - 1 or 2
    if line % 2 == 0:
      return self._answer(state, state.point, line, "forward", "")
    turn = state.route.turns[line // 2]
    return self._answer(state, state.point, line, "turn", turn.absolute if state.space == "absolute" else turn.relative)

  def careless_bias(self, state: Walk) -> float:
    """From -1 to 1, by what is seen: some views are overlooked more often than others, in every city alike.

    Multiples of the golden ratio, modulo 1, spread the views evenly: random numbers would leave the few most frequent
    ones, where nothing but the line is seen, to luck.
    """
    point = state.point
    view = point.line
    if point.landmark:
      kinds = city.POOLS["all"]
      kind = point.landmark.kind
      number = kinds.index(kind) if kind in kinds else len(kinds) + zlib.crc32(kind.encode()) % 1000
      view = 2 * paper.MOST_LEGS + 2 * number + point.intersection
    return 2 * (GOLDEN * view % 1) - 1

  def misread(self, state: Walk, seed: int | str) -> str:
    """Sees another landmark, and acts wrongly."""
    point, draw = state.point, stream("misread", seed)
    if state.signs:
      return signs.misread(state.signs, draw, self._pool)
    kinds = [kind for kind in city.POOLS[self.pool] if point.landmark is None or kind != point.landmark.kind]
    kind = kinds[int(draw.random() * len(kinds))]
    seen = dataclasses.replace(point, landmark=Landmark(f"Other {kind.capitalize()}", kind, "front"))
    actions = [("forward", ""), ("stop", ""), *(("turn", word) for word in WORDS[state.space])]
    actions.remove((point.move, point.word(state.space)))
    return self._answer(state, seen, point.line, *actions[int(draw.random() * len(actions))])

  def _answer(self, state: Walk, seen: Point, line: int, move: str, word: str) -> str:
    if state.signs:
      return signs.write(state.signs)
    style = STYLES[self.style]
    return style.write(state.route, seen, line, style.action(move, word))

  def _space(self, seed: int | str) -> str:
    space = self.space
    if space == "mixed":   # evaluation needs one space a variant, and training with both knows them alike
      space = SPACES[int(2 * stream("space", seed).random())] if self.variant == "train" else "absolute"
    if self.variant == "rule_ood":
      space = SPACES[1 - SPACES.index(space)]
    return space

  def _saved(self) -> tuple[saved_routes.SavedRoute, ...]:
    return saved_routes.read(self.routes)

  def _check_saved(self) -> None:
    for saved in self._saved():
      if self.style == "compact":
        raise ValueError(f"style is 'compact', but {saved.where} has landmarks that have no word there, such as "
                         f"{saved.legs[-1].landmark.name!r}: use style='paper'.")


def stream(purpose: str, seed: int | str) -> random.Random:
  """A random stream for (purpose, seed); the same numbers on every machine."""
  return random.Random(f"virl {purpose} {seed}")
