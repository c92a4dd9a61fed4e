"""A claim of a study as data, written before its runs start: what is compared, and which result it predicts."""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

MEASURES = ("success", "per_step")   # of every task: episodes that were right; right responses of all responses
START = "start"   # what a method is compared with by default: the model that its run starts from


@dataclasses.dataclass(frozen=True)
class RegisteredClaim:
  """A prediction about a method's runs, at their end or at a success in distribution.

  `measure` is one of MEASURES or a part of the task's verdicts, such as "cards" or "sign".
  It says that `sign` * (estimate - `bound`) > 0. The estimate is the value of `measure` on `variant` at the end, minus
  that of `comparison`: START, another method, or "" for the value itself. `bound` is in [-1, 1], 0.6 for 60 points.
  matched: 0, or the share at which both are read instead: where the same measure in distribution, at the same
    temperature, first comes to it. Then `comparison` may be the method itself, for its end minus its value there.
  text: the claim in words, "" to have them made
  """

  method: str
  variant: str
  measure: str
  temperature: float
  comparison: str
  sign: int
  bound: float
  text: str
  matched: float = 0.0


def parse_claim(content: Any, methods: Collection[str], variant: str, measure: str) -> RegisteredClaim:
  """A claim from its keys.

  content: {"method": NAME} with sign (1 or -1), least or most (a share of 1), and, where they are not the default,
    variant, measure, temperature (0), comparison ("start", a method, or "" for the value itself), matched (a share
    between 0 and 1) and text
  variant, measure: of a claim that names none

  Raises ValueError, which begins with the key, for anything else.
  """
  if not isinstance(content, Mapping):
    raise ValueError(f"is {str(content)[:60]!r}, but should be a dict such as {{'method': 'ppo', 'sign': 1}}.")
  keys = ("method", "variant", "measure", "temperature", "comparison", "sign", "least", "most", "matched",
          "text")
  for key in content:
    if key not in keys:
      raise ValueError(f"{str(key)[:40]} is not a key of a claim: {', '.join(keys)}.")
  words = {"method": "", "variant": variant, "measure": measure, "comparison": START, "text": ""}
  for key in words:
    words[key] = content.get(key, words[key])
    if not isinstance(words[key], str):
      raise ValueError(f"{key} is {str(words[key])[:60]!r}, but should be text.")
  if words["method"] not in methods:
    raise ValueError(f"method is {words['method'][:60]!r}, but should be one of {', '.join(methods)}.")
  if not re.fullmatch(r"\w{1,40}", words["measure"]):
    raise ValueError(f"measure is {words['measure'][:60]!r}, but should be one of {', '.join(MEASURES)}, or the name "
                     "of a part of the task's verdicts.")
  matched = _matched(content)
  if words["comparison"] not in (START, "", *methods) or (words["comparison"] == words["method"] and not matched):
    raise ValueError(f"comparison is {words['comparison'][:60]!r}, but should be 'start', another method "
                     f"({', '.join(method for method in methods if method != words['method'])}) or '' for the value at "
                     "the end.")
  sign, bound = _prediction(content, words["comparison"])
  temperature = _number(content.get("temperature", 0.0))
  if not 0 <= temperature <= 100:
    raise ValueError(f"temperature is {str(content['temperature'])[:40]}, but should be from 0 (greedy) to 100.")
  return RegisteredClaim(**words, temperature=temperature, sign=sign, bound=bound, matched=matched)


def _matched(content: Mapping) -> float:
  """The success in distribution at which a claim reads, 0 for one about the end."""
  if "matched" not in content:
    return 0.0
  value = _number(content["matched"])
  if not 0 < value < 1:
    raise ValueError(f"matched is {str(content['matched'])[:40]}, but should be a share between 0 and 1: 0.4 reads "
                     "where 40% in distribution are first reached.")
  return value


def _prediction(content: Mapping, comparison: str) -> tuple[int, float]:
  """(sign, bound) from whichever of sign, least and most the claim has."""
  predictions = [key for key in ("sign", "least", "most") if key in content]
  if len(predictions) != 1:
    raise ValueError(f"sign, least, most: the claim has {', '.join(predictions) or 'none of them'}, but should have "
                     "one of the three.")
  key, = predictions
  value = _number(content[key])
  if key == "sign":
    if value not in (1, -1):
      raise ValueError(f"sign is {str(content[key])[:40]}, but should be 1 (above zero) or -1 (below zero).")
    if not comparison:
      raise ValueError("sign is about a difference, and comparison is '', the value at the end: use least or most.")
    return int(value), 0.0
  if not -1 <= value <= 1:
    raise ValueError(f"{key} is {str(content[key])[:40]}, but should be a share from -1 to 1: 0.6 is 60 points.")
  return (1 if key == "least" else -1), value


def _number(value: Any) -> float:
  """The value as a float, NaN for anything that is none."""
  if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
    return math.nan
  return float(value)
