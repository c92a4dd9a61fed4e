"""The short style of GeneralPoints: one line of English, answered by the paper's JSON block without a space.

A prompt has about 30 tokens of a pretrained tokenizer and a response about 40, an eighth of the paper's prompt: for
small models and slow machines. Responses are read as in the paper's style.

  prompt    J=Q=K=10. Cards: 2 K 3. Make 24.
  response  {"cards":["2","K","3"],"number":[2,10,3],"formula":"..."}
"""

from __future__ import annotations

from sftrl_jax.envs.general_points import cards, paper

RECITED = False  # the numbers of a response are not scored

ORDERED = paper.ORDERED

read, recited, action_start = paper.read, paper.recited, paper.action_start


def prompt(ranks: tuple[str, ...], rule: cards.Rule, target: int, vision: bool = False) -> str:
  """The prompt: values of the face cards, cards, target. vision: the cards are in a picture before the text alone"""
  j, q, k = rule
  faces = f"J=Q=K={j}" if j == q == k else f"J={j}, Q={q}, K={k}"
  listed = "" if vision else f" Cards: {' '.join(ranks)}."
  return f"{faces}.{listed} Make {target}."


def write(ranks: tuple[str, ...], numbers: tuple[int, ...], formula: str, target: int,
          steps: tuple[str, ...] = ()) -> str:
  """The response with these cards, numbers and formula; the steps stand before it."""
  shown = '","'.join(ranks)
  block = f'{{"cards":["{shown}"],"number":[{",".join(map(str, numbers))}],"formula":"{formula}={target}"}}'
  return " ".join((*steps, block))


def feedback(code: str, reason: str, target: int) -> str:
  """The feedback on a response with verdict `code`: a few words, whatever the reason."""
  del reason
  return {"correct": "Right.", "value": f"That is not {target}. Try again.",
          "numbers": "Use each card once. Try again.", "illegal": "No formula. Try again.",
          "misread": "Those are not the cards. Try again."}[code]
