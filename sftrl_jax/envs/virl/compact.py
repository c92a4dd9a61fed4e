"""The compact style of V-IRL: a closed vocabulary and one growing chat, for small models that are trained in minutes.

  prompt    ACTIONS north northeast ... northwest ROUTE 1 TURN left west 2 WALK bank 3 TURN right north 4 REACH cafe
            END SEE nothing
  response  nothing LINE 1 TURN west    (what is seen, the line that is followed, the action: TURN x, FORWARD, STOP)
  feedback  SEE bank CROSSING           after a right action, which moves on: what is seen at the next point
            WRONG                       after a wrong one; DONE at the end

With vision, SEE stands alone (or before CROSSING), and what is seen is in the picture of the message.
"""

from __future__ import annotations

import re

from sftrl_jax.envs.virl import city, compass
from sftrl_jax.envs.virl.route import Point, Route

REBUILT = False       # the chat of an episode grows
MOST_LEGS = 6         # two lines a leg, and twelve numbers have a word
LONGEST = 200         # characters of the longest response that is read

NOTHING, SEE = "nothing", "SEE"
_SPACES = {"absolute": compass.COMPASS, "relative": tuple(word.replace(" ", "_") for word in compass.RELATIVE)}
_LINES = tuple(str(number) for number in range(1, 2 * MOST_LEGS + 1))
WORDS = ("ACTIONS", "ROUTE", "TURN", "WALK", "REACH", "END", SEE, "CROSSING", "LINE", "FORWARD", "STOP", "WRONG",
         "DONE", NOTHING, *_SPACES["absolute"], *_SPACES["relative"], *_LINES, *city.KNOWN, *city.UNSEEN)
_OPENING = re.compile(r"[^ ]+ LINE [0-9]+ ")
_TURNS = {space: frozenset(f"TURN {word}" for word in words) for space, words in _SPACES.items()}


def prompt(route: Route, space: str, vision: bool = False) -> str:
  """The words of the action space, the route's lines, and what is seen at its first point."""
  lines, last = [], len(route.turns) - 1
  for index, (turn, landmark) in enumerate(zip(route.turns, route.landmarks, strict=True)):
    lines += [f"TURN {turn.relative.replace(' ', '_')} {turn.absolute}",
              f"{'REACH' if index == last else 'WALK'} {kind_of(landmark)}"]
  numbered = " ".join(f"{number} {line}" for number, line in zip(_LINES, lines, strict=False))
  return f"ACTIONS {' '.join(_SPACES[space])} ROUTE {numbered} END {observation(route.points[0], vision)}"


def observation(point: Point, vision: bool = False) -> str:
  return f"{SEE}{'' if vision else f' {kind_of(point.landmark)}'}{' CROSSING' if point.intersection else ''}"


def action(move: str, word: str) -> str:
  """The action of a move. word: of a turn."""
  return f"TURN {word.replace(' ', '_')}" if move == "turn" else move.upper()


def write(route: Route, point: Point, line: int, acted: str) -> str:
  """The response that reads `point` rightly, follows a line of the instruction and acts as given."""
  del route
  return f"{kind_of(point.landmark)} LINE {line} {acted}"


def judge(point: Point, space: str, response: str) -> str:
  """The code of a response: of a right action nothing else is looked at, as in the paper."""
  words = response.split(" ") if len(response) <= LONGEST else ()
  if not (4 <= len(words) <= 5 and words[1] == "LINE" and words[2] in _LINES):
    return "illegal"
  acted = " ".join(words[3:])
  if acted == action(point.move, point.word(space)):
    return "correct"
  if acted in _TURNS["relative" if space == "absolute" else "absolute"]:
    return "space"
  if acted not in _TURNS[space] and acted not in ("FORWARD", "STOP"):
    return "illegal"
  return "action" if words[0] == kind_of(point.landmark) else "misread"


def sees(point: Point, response: str) -> bool:
  """Whether a response begins with the landmark of a point, or with `nothing` where there is none."""
  return response[:LONGEST].partition(" ")[0] == kind_of(point.landmark)


def action_start(response: str) -> int:
  """Where the words after "SEEN LINE 1" start; 0 where a response does not begin like that."""
  opening = _OPENING.match(response)
  return opening.end() if opening else 0


def feedback(code: str, following: Point | None, vision: bool = False) -> str:
  """What the policy reads next. following: the point after a right action; None at the end of the route."""
  if code != "correct":
    return "WRONG"
  return observation(following, vision) if following else "DONE"


def kind_of(landmark) -> str:
  """The word of a landmark, or of None."""
  return landmark.kind if landmark else NOTHING
