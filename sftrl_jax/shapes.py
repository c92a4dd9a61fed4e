"""The legend of axis letters, and the check that holds array names to it.

Every array's name ends in one letter per axis: `tokens_BT` has rows and tokens. The legend of the house:

  B rows       T tokens      S cached tokens   D width       H heads      K kv heads    C head channels
  F ffn        V vocabulary  N layers          E episodes    U turns      R response tokens
  G group      P prompt tokens                 L positions on an episode's grid         1 a broadcast axis
"""


def check(**arrays) -> dict[str, int]:
  """Equal suffix letters mean equal sizes: `check(tokens_BT=tokens_BT, mask_BT=mask_BT)`.

  Runs at trace time, so it costs nothing in a compiled function. Returns the size of every letter.
  Raises ValueError naming the array, the letter, and the size that was expected.
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
