"""Placeholders in a row of ids: one id a picture becomes the block of ids that stands for it."""

from collections.abc import Collection, Sequence


def expand(ids: Sequence[int], image_id: int, blocks: Sequence[Sequence[int]], marks: Collection[int] = ()
           ) -> list[int]:
  """ids with the k-th placeholder replaced by the k-th block; ids that are already expanded stay as they are.

  blocks: of the row's pictures, in their order
  marks: ids behind which the placeholders of a tile begin, where a block has such

  ValueError where pictures and placeholders differ in number.
  """
  ids, whole = list(ids), [number for block in blocks for number in block]
  if _tiles(ids, image_id, marks) == _tiles(whole, image_id, marks):
    return ids
  single = sum(number == image_id for number in ids)
  if single != len(blocks):
    count = lambda number, noun: f"{number} {noun}" + ("" if number == 1 else "s")
    raise ValueError(f"{count(len(blocks), 'picture')}, but {count(single, 'placeholder')}: a text must have one "
                     "placeholder for each picture, in their order.")
  left = iter(blocks)
  return [token for number in ids for token in (next(left) if number == image_id else (number,))]


def _tiles(ids: Sequence[int], image_id: int, marks: Collection[int]) -> list[tuple[int, int]]:
  """(mark, how many placeholders follow) for each mark that placeholders follow; -1 for those that follow none."""
  tiles, before = [(-1, 0)], -1
  for number in ids:
    if number == image_id:
      if before in marks:
        tiles.append((before, 0))
      elif before != image_id and tiles[-1][0] != -1:
        tiles.append((-1, 0))
      tiles[-1] = (tiles[-1][0], tiles[-1][1] + 1)
    before = number
  return tiles
