"""The paper's style of V-IRL: a task in English, answered by a JSON block of which "action" is scored.

The prompt is written anew at every point and holds what was observed and done at the points before; only the failed
tries at one point add up in a chat. Responses are untrusted text: the work on any of them is bounded.
"""

from __future__ import annotations

import json
import re

from sftrl_jax.envs.virl import compass
from sftrl_jax.envs.virl.route import Landmark, Point, Route

REBUILT = True        # a right action begins a new chat
MOST_LEGS = 40
LONGEST = 1 << 13     # characters of the longest response that is read
WORDS = ()

OBSERVATION, INSTRUCTION, ACTION = "current observation", "current instruction", "action"
CROSSING = "You observe an intersection"
NOTHING = "No landmarks nearby"
VIEWS = "You observe an image of 4 views"   # in place of what is seen there
_WORDS = {"absolute": compass.COMPASS, "relative": compass.RELATIVE}
_DECODER = json.JSONDecoder()
_TEMPLATE = (f'{{"{OBSERVATION}": "what you observe now", "{INSTRUCTION}": "the line that you follow now", '
             f'"{ACTION}": "..."}}')


def prompt(route: Route, space: str, vision: bool = False) -> str:
  """Task, instruction and action space: all that is the same at every point of a route.

  vision: what is observed now is in an image before the text
  """
  words = ", ".join(_WORDS[space])
  views = ("[Observation format]\nThe image shows the 4 views around you: [front, right; back, left], front and right "
           "above, back and left below.\n\n") if vision else ""
  return ("[Task]\nYou are an expert navigator who walks through a city. Follow the instruction from its first line to "
          "its last, one action at a time, until you stop at the destination.\n\n"
          f"[Instruction]\n{chr(10).join(instruction(route))}\n\n"
          f"{views}[Action space]\n"
          "\"forward()\": walk one step ahead.\n"
          f"\"turn_direction(x)\": turn, where x is one of {words}.\n"
          "\"stop()\": end the walk at the destination.\n\n"
          "[Observations and actions sequence]\n")


def instruction(route: Route) -> list[str]:
  """The numbered lines: two a leg, the turn with the words of both action spaces and the walk with its landmark."""
  lines, last = [], len(route.turns) - 1
  for index, (turn, landmark) in enumerate(zip(route.turns, route.landmarks, strict=True)):
    lines.append(f"{'Turn' if index else 'First, turn'} {turn.relative} to face {turn.absolute}.")
    goal = "destination" if index == last else "next intersection"
    lines.append(f"Move forward until you reach {goal}{f' where {phrase(landmark)}' if landmark else ''}.")
  return [f"{number}. {line}" for number, line in enumerate(lines, 1)]


def turn_of(number: int, before: str, point: Point, vision: bool = False) -> str:
  """The observation at the `number`-th point (from 1) after the lines before it, and an action to be given.

  vision: the landmark is left to the image. As in the released code, what was observed before is text
  """
  return f"{before}O_{number}: {observation(point, vision)}\nA_{number}:"


def output() -> str:
  """The form of an answer: the end of every prompt."""
  return f"\n\n[Output]\nAnswer with this block and nothing else:\n{_TEMPLATE}"


def phrase(landmark: Landmark) -> str:
  """`Cedar Bank is on your right behind`."""
  return f"{landmark.name} is on your {landmark.side}" if landmark.side else landmark.name


def observation(point: Point, vision: bool = False) -> str:
  """What is seen and whether the point is an intersection, in one line."""
  seen = VIEWS if vision else phrase(point.landmark) if point.landmark else NOTHING
  return f"{seen}; {CROSSING if point.intersection else ''}"


def action(move: str, word: str) -> str:
  """The action of a move. word: of a turn."""
  return f"turn_direction({word})" if move == "turn" else f"{move}()"


def write(route: Route, point: Point, line: int, acted: str) -> str:
  """The response that reads `point` rightly, follows a line of the instruction and acts as given, in valid JSON."""
  text = instruction(route)[line - 1].partition(" ")[2]
  return json.dumps({OBSERVATION: observation(point), INSTRUCTION: text, ACTION: acted}, ensure_ascii=False)


def read(response: str) -> tuple[str, str]:
  """(observation, action) of a response, each "" where it has none.

  They are those of the first JSON object if it has a text at "action"; else of the first places in the response that
  look like these keys with a quoted value.
  """
  if len(response) > LONGEST:
    return "", ""
  opening = response.find("{")
  if opening >= 0:
    try:
      block, _ = _DECODER.raw_decode(response, opening)
      if isinstance(block.get(ACTION), str):
        seen = block.get(OBSERVATION)
        return seen if isinstance(seen, str) else "", block[ACTION]
    except (ValueError, RecursionError):   # not JSON, a number of thousands of digits, or nested beyond the stack
      pass
  return _loose(OBSERVATION, response), _loose(ACTION, response)


def judge(point: Point, space: str, response: str) -> str:
  """The code of a response. Of a right action nothing else is looked at; a wrong one is a misreading if what it says
  of the landmark, or of an intersection, is not what is there."""
  seen, acted = read(response)
  if acted == action(point.move, point.word(space)):
    return "correct"
  if acted not in _LEGAL["absolute"] and acted not in _LEGAL["relative"]:
    return "illegal"
  if acted not in _LEGAL[space]:
    return "space"
  return "action" if _sees(point, seen) and ("intersection" in seen.lower()) == point.intersection else "misread"


def sees(point: Point, response: str) -> bool:
  """Whether a response names the landmark of a point, or says that there is none."""
  return _sees(point, read(response)[0])


def _sees(point: Point, seen: str) -> bool:
  return point.landmark.name in seen if point.landmark else "no landmark" in seen.lower()


def action_start(response: str) -> int:
  """Where the last key "action" starts, as the paper has it; 0 where there is none."""
  return max((match.start() for match in _KEY.finditer(response)), default=0)


def feedback(code: str, following: Point | None, vision: bool = False) -> str:
  """What the policy reads next. following: the point after a right action; None at the end of the route."""
  if code == "correct":
    if following is None:
      return "Right. You have reached the destination."
    return f"Right. You observe: {observation(following, vision)}"
  return f"You failed this trial because {_REASONS[code]}.\nAnswer with this block and nothing else:\n{_TEMPLATE}"


_REASONS = {"action": "the action is not the right one here",
            "misread": "the action is not the right one here and the observation is not what you observe",
            "space": "the action is not in the action space",
            "illegal": f'the answer has no "{ACTION}" that is in the action space'}
_LEGAL = {space: frozenset(("forward()", "stop()", *(action("turn", word) for word in words)))
          for space, words in _WORDS.items()}


def _loose(key: str, response: str) -> str:
  match = _LOOSE[key].search(response)
  return (match[1] if match[1] is not None else match[2]) if match else ""


_COLON = r"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"
_KEY = re.compile(rf"""["']{ACTION}["']{_COLON}""")
_LOOSE = {key: re.compile(rf"""["']{key}["']{_COLON}(?:"([^"]{{0,999}})"|'([^']{{0,999}})')""")
          for key in (OBSERVATION, ACTION)}
