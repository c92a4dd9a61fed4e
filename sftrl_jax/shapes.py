"""The legend of axis letters, and the check of array names against it.

Every array's name ends in one letter per axis: `tokens_BT` has rows and tokens.
"""

from typing import Any

LEGEND = {
    "B": "rows", "T": "tokens", "A": "tokens of all rows", "M": "tokens of a tile",
    "S": "cached tokens, or sides of the pairs of a row",
    "P": "prompt tokens, tokens of a prefix, or pairs of a row", "R": "response tokens",
    "D": "width", "H": "heads", "K": "kv heads", "C": "head channels, or colours of a pixel",
    "X": "queries of all heads that share a kv head, or columns of a picture", "Y": "rows of a picture",
    "F": "ffn, or features of the pictures of a row", "N": "layers, or pairs of a corpus", "V": "vocabulary",
    "J": "blocks of the vocabulary", "I": "ids of a block, or pictures of a row",
    "E": "episodes, or width of a teacher", "Q": "groups of episodes", "G": "episodes of a group", "U": "turns",
    "L": "positions on an episode's grid", "1": "a broadcast axis",
    "2": "the sides of a pair", "W": "rows of a teacher's table",
}
# report/ and forecast/ compare runs, not tokens: their arrays have a legend of their own.
LEGEND_OF_STATISTICS = {
    "R": "resamples", "B": "bases", "S": "seeds", "H": "episodes", "M": "vectors over episodes",
    "N": "runs, or curves that are tried", "K": "FLOPs", "U": "attempts", "D": "draws of a forecast",
    "G": "FLOPs of a grid", "T": "kinds of noise", "L": "FLOPs, a second time",
}


def check(**arrays: Any) -> dict[str, int]:
  """The size of every letter; ValueError unless equal letters have equal sizes.

  `check(tokens_BT=tokens_BT, mask_BT=mask_BT)` runs at trace time, so it costs nothing in a compiled function.
  """
  sizes: dict[str, int] = {}
  for name, array in arrays.items():
    letters = name.rpartition("_")[2]
    if len(letters) != array.ndim:
      raise ValueError(f"{name} should have {len(letters)} dimensions, but its shape is {array.shape}.")
    for letter, size in zip(letters, array.shape, strict=True):
      want = 1 if letter == "1" else sizes.setdefault(letter, size)
      if size != want:
        raise ValueError(f"{name} has {letter}={size} where {letter}={want} was expected; its shape is {array.shape}.")
  return sizes
