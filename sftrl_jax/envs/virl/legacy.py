"""The verifier of the paper's released code, with its defects: the paper's style under `legacy=True`.

Whether an answer saw an intersection is compared with the text of the landmark, which never names one: who says
"intersection" at an intersection and acts wrongly loses 1.5 and reads that there is none. The template in the feedback
has doubled braces. (route.make without `wrap` holds the third defect, env.VIRL the fourth: a last try without a score.
views.LEGACY_TURNS is the fifth: the four views of an image are not where the prompt says.)
"""

from __future__ import annotations

from sftrl_jax.envs.virl import paper
from sftrl_jax.envs.virl.route import Point


def judge(point: Point, space: str, response: str) -> str:
  """The code of a response."""
  seen, _ = paper.read(response)
  code = paper.judge(point, space, response)
  if code == "correct":
    return code
  landmark = paper.phrase(point.landmark) if point.landmark else paper.NOTHING
  return "misread" if ("intersection" in seen) != ("intersection" in landmark) else "action"


def feedback(code: str, following: Point | None, vision: bool = False) -> str:
  """What the policy reads next."""
  if code == "misread":
    template = paper.feedback("action", None).rpartition("\n")[2]
    return ("You failed this trial because you are not at any intersection.\n"
            f"Answer with this block and nothing else:\n{{{template}}}")
  text = paper.feedback(code, following, vision)
  if code == "correct":
    return text
  head, _, template = text.rpartition("\n")
  return f"{head}\n{{{template}}}"
