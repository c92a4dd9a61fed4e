"""What a compiled program moves, read from its text: bytes to and from memory, and collectives, loops multiplied out.

The compiler's own count has the body of a loop once, however often it runs; and most of a training step lies in loops.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

SIZES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2}   # of a number; others say their bits
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "iota", "opt-barrier", "optimization-barrier"}
ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Of one device. collectives: kind -> (how many are run, bytes sent by a device)."""

  bytes: float = 0.0
  collectives: tuple[tuple[str, float, float], ...] = ()

  @property
  def sent(self) -> float:
    return sum(sent for _, _, sent in self.collectives)

  def __add__(self, other: Traffic) -> Traffic:
    total = {}
    for kind, count, sent in (*self.collectives, *other.collectives):
      before = total.get(kind, (0.0, 0.0))
      total[kind] = (before[0] + count, before[1] + sent)
    return Traffic(self.bytes + other.bytes, tuple((kind, *pair) for kind, pair in total.items()))

  def times(self, count: float) -> Traffic:
    return Traffic(self.bytes * count, tuple((kind, n * count, sent * count) for kind, n, sent in self.collectives))


@dataclasses.dataclass(frozen=True)
class Instruction:
  name: str
  shape: str
  kind: str
  inside: str   # of its brackets: operands, the place of a parameter, the value of a constant
  rest: str
  root: bool

  @functools.cached_property
  def operands(self) -> tuple[str, ...]:
    return tuple(re.findall(r"%([\w.\-]+)", self.inside))

  @property
  def number(self) -> int | None:
    """The place of a parameter, the value of a whole constant."""
    return int(self.inside) if re.fullmatch(r"\d+", self.inside.strip()) else None

  @property
  def index(self) -> int | None:
    """Which element of a tuple is taken."""
    found = re.search(r"\bindex=(\d+)", self.rest)
    return int(found[1]) if found else None

  def called(self, *keys: str) -> list[str]:
    """Names of the computations that it calls by these attributes."""
    found = [re.search(rf"\b{key}=%?([\w.\-]+)", self.rest) for key in keys]
    return [one[1] for one in found if one]


def read(text: str, trips: int = 1) -> tuple[Traffic, Traffic]:
  """(what happens once, what happens in one round of a loop whose end depends on data) of a program in XLA's words.

  trips: rounds of such a loop inside another; the outermost one's are left to the caller.
  """
  program, entry = _parse(text)
  return _Reader(program, trips).walk(entry, True)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  program, entry, current = {}, "", None
  for line in text.splitlines():
    if head := HEAD.match(line):
      current = program.setdefault(head[2], [])
      entry = head[2] if head[1] else entry
    elif current is not None and (found := LINE.match(line)):
      shape, rest = _split_shape(found[3])
      kind, _, behind = rest.partition("(")
      end = _closing("(" + behind) - 1
      current.append(Instruction(found[2], shape, kind.strip(), behind[:end], behind[end + 1:], bool(found[1])))
  return program, entry


def _split_shape(text: str) -> tuple[str, str]:
  if not text.startswith("("):
    shape, _, rest = text.partition(" ")
    return shape, rest
  end = _closing(text)
  return text[: end + 1], text[end + 1:].lstrip()


def _closing(text: str) -> int:
  """Where the bracket closes that text begins with."""
  depth = 0
  for place, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return place
  return len(text) - 1


@functools.lru_cache(maxsize=100_000)
def arrays(shape: str, memory: bool = True) -> tuple[float, ...]:
  """Bytes of every array in a shape; those that are not in the main memory left out, unless memory is False."""
  found = []
  for kind, sizes, layout in ARRAY.findall(shape):
    if not (memory and re.search(r"S\(\d+\)", layout)):
      bits = re.match(r"[a-z]+(\d+)", kind)
      each = SIZES.get(kind) or (int(bits[1]) / 8 if bits else 0)
      found.append(each * math.prod(int(size) for size in sizes.split(",") if size))
  return tuple(found)


class _Reader:

  def __init__(self, program, trips: int):
    self.program, self.trips, self.channels = program, trips, set()
    self.by_name = {name: {one.name: one for one in body} for name, body in program.items()}

  def walk(self, name: str, outermost: bool = False) -> tuple[Traffic, Traffic]:
    once, looped = Traffic(), Traffic()
    for one in self.program.get(name, ()):
      if one.kind == "while":
        body, inner = self.walk(one.called("body")[0])
        rounds = self._rounds(one.called("condition")[0], one.called("body")[0])
        if rounds is None and outermost:
          looped += body + inner.times(self.trips)
        else:
          once += (body + inner.times(self.trips)).times(self.trips if rounds is None else rounds)
        continue
      branches = re.search(r"branch_computations=\{([^}]*)\}", one.rest)
      inside = re.findall(r"%?([\w.\-]+)", branches[1]) if branches else one.called(
          "true_computation", "false_computation")
      if one.kind == "conditional":
        most = max((self.walk(branch) for branch in inside), key=lambda pair: pair[0].bytes)
        once += most[0]
      elif one.kind in ("call", "async-start"):
        for callee in one.called("to_apply", "calls", "called_computation"):
          more = self.walk(callee, outermost)
          once, looped = once + more[0], looped + more[1]
      else:
        once += Traffic(self._moved(name, one), self._sent(name, one))
    return once, looped

  def _rounds(self, condition: str, body: str) -> int | None:
    """Of a loop that counts from 0 to a constant; None for one whose end depends on data."""
    there = self.by_name.get(condition, {})
    root = next((one for one in there.values() if one.root), None)
    limit, compared = self._constant(there, root), [there[name] for name in root.operands if name in there]
    root = self._unwrapped(root)
    if root.kind != "compare" or limit is None:
      return None
    counter = next((one.index for one in compared if one.kind == "get-tuple-element"), None)
    return -(-limit // self._stride(body, counter))

  def _stride(self, body: str, counter: int | None) -> int:
    """By how much a round moves the counter on: a round of the compiler's may be several of the program's."""
    there = self.by_name.get(body, {})
    root = next((one for one in there.values() if one.root and one.kind == "tuple"), None)
    if root is None or counter is None or counter >= len(root.operands):
      return 1
    one = there.get(root.operands[counter])
    while one is not None and one.kind in ("copy", "bitcast") and one.operands:
      one = there.get(one.operands[0])
    return self._added(there, one) or 1 if one is not None else 1

  def _added(self, there: dict, one: Instruction) -> int | None:
    """The whole constant that an addition adds, which may be wrapped in a fusion."""
    last, around = self._unwrapped(one), there
    if last is not one:
      around = self.by_name[one.called("calls")[0]]
    for name in last.operands if last.kind == "add" else ():
      part = around.get(name)
      if part is not None and last is not one and part.kind == "parameter":
        part = there.get(one.operands[part.number])
      if part is not None and part.kind == "constant" and part.number is not None:
        return part.number
    return None

  def _unwrapped(self, one: Instruction) -> Instruction:
    """What a fusion computes at last."""
    inner = self.program.get((one.called("calls") or [""])[0], ()) if one.kind == "fusion" else ()
    return next((last for last in inner if last.root), one)

  def _constant(self, there: dict, one: Instruction) -> int | None:
    """The whole constant that an instruction reads, or a fusion has within it."""
    known = [there[name].number for name in one.operands if name in there and there[name].kind == "constant"]
    if one.kind == "fusion":
      known += [inner.number for inner in self.program.get((one.called("calls") or [""])[0], ())
                if inner.kind == "constant"]
    return next((value for value in known if value is not None), None)

  def _sent(self, where: str, one: Instruction):
    """Collectives of an instruction, those in what it fuses included; each once, however many parts it has."""
    found = ()
    for callee in one.called("calls") if one.kind == "fusion" else ():
      for inner in self.program.get(callee, ()):
        found += self._sent(callee, inner)
    kind = one.kind.removesuffix("-start")
    channel = re.search(r"channel_id=(\d+)", one.rest)
    if kind not in COLLECTIVES or (channel and channel[1] in self.channels):
      return found
    self.channels |= {channel[1]} if channel else set()
    size, parts = sum(arrays(one.shape, False)), group(one.rest)
    if one.kind.endswith("-start") and one.shape.startswith("("):
      size = max(arrays(one.shape, False))
    if kind == "all-reduce" and "all-reduce-scatter" in where:
      kind, size = "reduce-scatter", size / parts
    share = (parts - 1) / parts
    sent = {"all-gather": size * share, "all-reduce": 2 * size * share, "reduce-scatter": size * (parts - 1),
            "all-to-all": size * share, "collective-permute": size}[kind]
    return (*found, (kind, 1.0, sent))

  def _moved(self, where: str, one: Instruction) -> float:
    """Bytes that an instruction reads and writes in main memory."""
    if one.kind in FREE or one.kind.endswith("-done") or "AsyncCollective" in one.rest:
      return 0.0
    there = self.by_name[where]
    read = [there[name] for name in one.operands if name in there]
    if one.kind == "fusion":
      callee = one.called("calls")[0]
      return self._written(callee, one) + sum(self._read(callee, place, other)[0] for place, other in enumerate(read))
    if one.kind in ("dynamic-slice", "slice", "gather"):
      return 2 * sum(arrays(one.shape))
    if one.kind == "dynamic-update-slice":
      return 2 * sum(arrays(read[1].shape)) if len(read) > 1 else 0.0
    if one.kind == "copy-start":   # its shape names both ends
      return sum(arrays(one.shape))
    if one.kind == "slice-start":
      target = one.shape[_closing(one.shape[1:]) + 2:]
      return sum(arrays(target)) + sum(arrays(target, False)[:1])
    return sum(arrays(one.shape)) + sum(sum(arrays(other.shape)) for other in read)

  def _read(self, callee: str, place: int, given: Instruction) -> tuple[float, bool]:
    """(bytes that a fusion reads of its operand: of one that it only slices, the slices; whether it hands it on)."""
    whole, body = sum(arrays(given.shape)), self.program.get(callee, ())
    parameter = next((one for one in body if one.kind == "parameter" and one.number == place), None)
    if not whole or parameter is None:
      return whole, False
    names, touched = {parameter.name}, 0.0
    for one in body:
      if not names & set(one.operands):
        continue
      if one.kind == "bitcast":
        names.add(one.name)
      elif one.kind in ("dynamic-slice", "slice", "gather") and one.operands[0] in names:
        touched += sum(arrays(one.shape, False))
      elif one.kind == "dynamic-update-slice" and one.operands[0] in names:
        continue   # changed where it lies
      elif one.kind == "fusion":
        for at, name in enumerate(one.operands):
          if name in names:
            part, handed = self._read(one.called("calls")[0], at, given)
            touched += part
            names |= {one.name} if handed else set()
      else:
        return whole, False
    return min(whole, touched), any(one.root and one.name in names for one in body)

  def _written(self, callee: str, one: Instruction) -> float:
    """Bytes that a fusion writes: of an array that it changes in place, what is changed."""
    there = self.by_name.get(callee, {})
    root = next((inner for inner in there.values() if inner.root), None)
    while root is not None and root.kind == "bitcast" and root.operands and root.operands[0] in there:
      root = there[root.operands[0]]
    if root is not None and root.kind == "dynamic-update-slice" and len(root.operands) > 1:
      return min(sum(arrays(one.shape)), sum(arrays(there[root.operands[1]].shape, False)))
    return sum(arrays(one.shape))


def group(rest: str) -> int:
  """How many devices take part in a collective together."""
  if found := re.search(r"replica_groups=mesh\[(.*?)\]\s*\{([^}]*)\}", rest):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
    return math.prod(int(sizes.get(name, 1)) for name in re.findall(r"'(\w+)'", found[2])) or 1
  if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
    return int(found[2])
  if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
    return found[1].count(",") + 1
  return 2
