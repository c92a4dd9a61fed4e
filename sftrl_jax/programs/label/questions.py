"""The questions to a person, one after the other, until all are answered, or nobody answers any more."""

import random
from collections import Counter
from collections.abc import Callable

from sftrl_jax.programs.label import screen
from sftrl_jax.programs.label.items import Item, Items, shown
from sftrl_jax.programs.label.label_file import UNUSABLE, Answer, LabelFile

ASK = "1 or 2 is better, t(ie), s(kip), u(ndo), q(uit): "
CUT = "\n(cut off at --max-new-tokens)"
WORDS = {"1": "1", "2": "2", "t": "tie", "tie": "tie", "s": "skip", "skip": "skip"}


def ask_all(items: Items, labels: LabelFile, count: int, seed: int, ask: Callable[[str], str],
            show: Callable[[str], None], width: int = 0) -> None:
  """Asks until `count` answers are there, earlier sessions included, or the items end; each is written at once.

  count: 0 for all items
  seed: of the order in which two responses are shown
  ask: question -> a line; EOFError ends, as `q` does
  width: of the terminal, 0 where there is none
  """
  while not count or _asked(labels) < count:
    item = items(labels.next_item)
    if item is None:
      return
    number = labels.next_item
    first = first_shown(seed, number)
    texts = [shown(response) for response in item.responses]
    if texts[0] == texts[1] or not all(text.strip() for text in texts):
      labels.add(Answer(number, UNUSABLE))
      continue
    place = f"{_asked(labels) + 1}/{count}" if count else f"{_asked(labels) + 1}"
    texts = [text + CUT * cut for text, cut in zip(texts, item.cut, strict=True)]
    show(screen.question(place, shown(item.prompt), (texts[first], texts[1 - first]), width))
    try:
      word = _word(ask, show)
    except EOFError:
      show("\n")
      return
    if word == "quit":
      return
    if word == "undo":
      if not labels.undo():
        show("There is nothing to take back.\n")
      continue
    labels.add(_answer(item, number, first, word))


def first_shown(seed: int, number: int) -> int:
  """Which response of an item is shown as [1]: either, so that a person's habit favours neither."""
  source = random.Random(f"{seed} {number} order")
  return int(source.random() < 0.5)


def _answer(item: Item, number: int, first: int, pick: str) -> Answer:
  if pick not in ("1", "2"):
    return Answer(number, pick, first)
  better = first if pick == "1" else 1 - first
  return Answer(number, pick, first, item.row(better), None if item.preferred is None else better == item.preferred)


def _word(ask: Callable[[str], str], show: Callable[[str], None]) -> str:
  while True:
    line = ask(ASK).strip().lower()
    if line in ("q", "quit"):
      return "quit"
    if line in ("u", "undo"):
      return "undo"
    if line in WORDS:
      return WORDS[line]
    show(f"{screen.visible(line)[:40]!r} is no answer.\n")


def _asked(labels: LabelFile) -> int:
  return sum(answer.asked for answer in labels.answers)


def summary(labels: LabelFile) -> str:
  """What a person has done so far."""
  picks = Counter(answer.pick for answer in labels.answers)
  compared = [answer.agrees for answer in labels.answers if answer.agrees is not None]
  counted = lambda number, noun: f"{number} {noun}{'s' * (number != 1)}"
  lines = [f"{labels.out}: {counted(picks['1'] + picks['2'], 'pair')}, {counted(picks['tie'], 'tie')}, {picks['skip']} "
           "skipped" + (f"; {counted(picks[UNUSABLE], 'item')} had equal or empty responses" if picks[UNUSABLE] else "")
           + "."]
  if compared:
    lines.append(f"They prefer what the file prefers in {sum(compared)} of {len(compared)}.")
  return "\n".join(lines)
