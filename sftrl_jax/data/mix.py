"""Replay: some rows of every batch come from a second source, such as what the model was trained on before.

The second source is the run's own with other keys, so that it may be another file, or the same environment under other
rules. Both have a cursor, so that a batch follows from (seed, cursors) alone.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

OF_THE_RUN = ("length", "validation", "flops", "mix")   # keys of config.data that both sources share


@dataclasses.dataclass(frozen=True)
class MixConfig:
  """Replay of old data: rows of every batch from a second source, which is this one with other keys.

  share: of the rows of a batch, in whole rows (0: no second source)
  data: keys of config.data that differ: {'path': 'old.jsonl'}, or {'careless': 0.5} of demonstrations
  env: fields of config.env that differ, of demonstrations: {'faces': 'mixed'}
  """

  share: float = 0.0
  data: dict = dataclasses.field(default_factory=dict)
  env: dict = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not 0 <= self.share < 1:
      raise ValueError(f"share is {self.share}; it is a share of the rows of a batch, from 0 to below 1.")
    for key in OF_THE_RUN:
      if key in self.data:
        raise ValueError(f"data has {key!r}, which is one for both sources: give config.data.{key}.")
    if self.share and not (self.data or self.env):
      raise ValueError(f"share is {self.share}, but mix.data and mix.env are empty, so that the second source is the "
                       "first: say what differs, for example --config.data.mix.data=\"{'path': 'old.jsonl'}\".")

  def rows(self, batch: int) -> int:
    """The rows of a batch that come from the second source. ValueError where that is none, or all."""
    rows = round(self.share * batch)
    if self.share and not 0 < rows < batch:
      raise ValueError(f"config.data.mix.share is {self.share:g}, which is {rows} of config.batch = {batch} rows: use "
                       "a share of which each source has a row, or a larger batch.")
    return rows

  def settings(self, data: dict, kind: type) -> dict[str, Any]:
    """The section `data` of the second source. data: that of the run; kind: the class of the second source's"""
    fields = {field.name for field in dataclasses.fields(kind)} - {"mix", "validation", "flops"}
    return {**{key: value for key, value in data.items() if key in fields}, **self.data}


def mix_of(section: Any) -> MixConfig:
  """The key `mix` of a section, which may still be the dict that a config holds; none in sections without the key."""
  mix = getattr(section, "mix", {})
  return MixConfig(**mix) if isinstance(mix, dict) else mix


def parts(mine: Collection[int] | None, rows: int) -> tuple[frozenset[int] | None, frozenset[int] | None]:
  """The rows that a process makes of either source, counted from each one's first. mine: of the batch, None for all;
  rows: of the first source."""
  if mine is None:
    return None, None
  return frozenset(row for row in mine if row < rows), frozenset(row - rows for row in mine if row >= rows)
