"""Bytes that a compiled program moves, from XLA's text of it: memory traffic and collectives, loops multiplied out.

XLA's own cost analysis counts the body of a loop once, whatever its trip count, and most of a training step is loops.
The text is that of `executable.as_text()`: computations, one after another, with one instruction a line.

  %body (b: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
    %i = s32[]{:T(128)S(6)} get-tuple-element(%b), index=0
    %row = f32[1,8]{1,0:T(8,128)S(1)} fusion(%all, %i), kind=kLoop, calls=%fused
    ROOT %t = (s32[], f32[4,8]{1,0:T(8,128)}) tuple(%i, %all)
  }

The text is no stable format. tests/programs/plan/test_hlo_traffic.py holds the reader against the installed compiler.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

SIZES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2}   # bytes; other element types contain their bits
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "iota", "opt-barrier", "optimization-barrier"}
# f32[4,8]{1,0:T(8,128)S(1)}: element type, dimensions, layout if there is one; also inside a tuple's parentheses.
ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
MEMORY_SPACE = re.compile(r"S\(\d+\)")   # in a layout: the array is in this memory space, not in main memory
BITS = re.compile(r"[a-z]+(\d+)")   # of an element type: s32, f8e4m3fn
# "  ROOT %name = SHAPE OPCODE(OPERANDS), ATTRIBUTES": ROOT, the name, and all behind the equals sign.
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
# "ENTRY %name (PARAMETERS) -> SHAPE {": ENTRY, and the name of the computation whose instructions follow.
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
OPERAND = re.compile(r"%([\w.\-]+)")   # between the parentheses of an instruction
INDEX = re.compile(r"\bindex=(\d+)")   # attribute of get-tuple-element
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")   # attribute of a conditional of several branches
BRANCH = re.compile(r"%?([\w.\-]+)")
CHANNEL = re.compile(r"channel_id=(\d+)")   # attribute of a collective; parts of one share it
# replica_groups of a collective, in three forms: mesh['x'=4, 'y'=2] {'y'}; [groups,size]<=[16]; {{0,1},{2,3}}.
MESH_GROUPS = re.compile(r"replica_groups=mesh\[(.*?)\]\s*\{([^}]*)\}")
IOTA_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}")


@dataclasses.dataclass(frozen=True)
class Traffic:
  """The traffic of one device. bytes: to and from main memory; collectives: (kind, how many, bytes that it sends)."""

  bytes: float = 0.0
  collectives: tuple[tuple[str, float, float], ...] = ()

  @property
  def sent(self) -> float:
    return sum(sent for _, _, sent in self.collectives)

  def __add__(self, more: Traffic) -> Traffic:
    total = {}
    for kind, count, sent in (*self.collectives, *more.collectives):
      before = total.get(kind, (0.0, 0.0))
      total[kind] = (before[0] + count, before[1] + sent)
    return Traffic(self.bytes + more.bytes, tuple((kind, *pair) for kind, pair in total.items()))

  def times(self, count: float) -> Traffic:
    return Traffic(self.bytes * count, tuple((kind, n * count, sent * count) for kind, n, sent in self.collectives))


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation. inside: the text between its parentheses; attributes: the text behind them."""

  name: str
  shape: str
  opcode: str
  inside: str
  attributes: str
  root: bool

  @functools.cached_property
  def operands(self) -> tuple[str, ...]:
    return tuple(OPERAND.findall(self.inside))

  @property
  def number(self) -> int | None:
    """N of `parameter(N)` or `constant(N)`; None for a constant that is no whole number."""
    return int(self.inside) if re.fullmatch(r"\d+", self.inside.strip()) else None

  @property
  def index(self) -> int | None:
    """N of `get-tuple-element(%tuple), index=N`."""
    match = INDEX.search(self.attributes)
    return int(match[1]) if match else None

  def callees(self, *keys: str) -> list[str]:
    """Names of the computations in the attributes `KEY=%name`."""
    matches = [re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes) for key in keys]
    return [match[1] for match in matches if match]


def read(text: str, trips: int = 1) -> tuple[Traffic, Traffic]:
  """(traffic outside of loops whose trip count depends on data, traffic of one iteration of such a loop) of XLA's text.

  trips: iterations of such a loop inside another such loop; the caller multiplies the outermost one.
  """
  program, entry = _parse(text)
  return _Reader(program, trips).walk(entry, True)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """(name of a computation -> its instructions, name of the entry computation)."""
  program, entry, current = {}, "", None
  for line in text.splitlines():
    if head := COMPUTATION.match(line):
      current = program.setdefault(head[2], [])
      entry = head[2] if head[1] else entry
    elif current is not None and (match := INSTRUCTION.match(line)):
      shape, rest = _split_shape(match[3])
      opcode, _, behind = rest.partition("(")
      end = _closing("(" + behind) - 1
      current.append(Instruction(match[2], shape, opcode.strip(), behind[:end], behind[end + 1:], bool(match[1])))
  return program, entry


def _split_shape(text: str) -> tuple[str, str]:
  """(shape, the rest) of `SHAPE OPCODE(...)`; the shape of a tuple is in parentheses and contains spaces."""
  if not text.startswith("("):
    shape, _, rest = text.partition(" ")
    return shape, rest
  end = _closing(text)
  return text[: end + 1], text[end + 1:].lstrip()


def _closing(text: str) -> int:
  """Index of the parenthesis that closes the one with which the text begins."""
  depth = 0
  for index, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return index
  return len(text) - 1


@functools.lru_cache(maxsize=100_000)
def array_bytes(shape: str, main_memory: bool = True) -> tuple[float, ...]:
  """Bytes of every array in a shape; with main_memory only of those that are in main memory."""
  sizes = []
  for kind, dimensions, layout in ARRAY.findall(shape):
    if not (main_memory and MEMORY_SPACE.search(layout)):
      bits = BITS.match(kind)
      item = SIZES.get(kind) or (int(bits[1]) / 8 if bits else 0)
      sizes.append(item * math.prod(int(size) for size in dimensions.split(",") if size))
  return tuple(sizes)


class _Reader:
  """Walks the computations of one program. channels: ids of the collectives that are counted already."""

  def __init__(self, program: dict[str, list[Instruction]], trips: int):
    self.program, self.trips, self.channels = program, trips, set()
    self.by_name = {name: {line.name: line for line in body} for name, body in program.items()}

  def walk(self, name: str, outermost: bool = False) -> tuple[Traffic, Traffic]:
    """(once, looped) of a computation, as `read` returns them. outermost: no loop is around it."""
    once, looped = Traffic(), Traffic()
    for line in self.program.get(name, ()):
      if line.opcode == "while":
        body, inner = self.walk(line.callees("body")[0])
        trips = self._trip_count(line.callees("condition")[0], line.callees("body")[0])
        if trips is None and outermost:
          looped += body + inner.times(self.trips)
        else:
          once += (body + inner.times(self.trips)).times(self.trips if trips is None else trips)
      elif line.opcode == "conditional":
        listed = BRANCHES.search(line.attributes)
        branches = BRANCH.findall(listed[1]) if listed else line.callees("true_computation", "false_computation")
        once += max((self.walk(branch)[0] for branch in branches), key=lambda traffic: traffic.bytes)
      elif line.opcode in ("call", "async-start"):
        for callee in line.callees("to_apply", "calls", "called_computation"):
          more = self.walk(callee, outermost)
          once, looped = once + more[0], looped + more[1]
      else:
        once += Traffic(self._moved(name, line), self._sent(name, line))
    return once, looped

  def _trip_count(self, condition: str, body: str) -> int | None:
    """Of a loop that counts from 0 to a constant: its condition ends in `compare(%counter, %constant)`. Else None."""
    lines = self.by_name.get(condition, {})
    root = next((line for line in lines.values() if line.root), None)
    limit, compared = self._constant(lines, root), [lines[name] for name in root.operands if name in lines]
    if self._unwrapped(root).opcode != "compare" or limit is None:
      return None
    counter = next((line.index for line in compared if line.opcode == "get-tuple-element"), None)
    return -(-limit // self._stride(body, counter))

  def _stride(self, body: str, counter: int | None) -> int:
    """What an iteration adds to the counter: the compiler may merge several of the program's iterations into one."""
    lines = self.by_name.get(body, {})
    root = next((line for line in lines.values() if line.root and line.opcode == "tuple"), None)
    if root is None or counter is None or counter >= len(root.operands):
      return 1
    line = lines.get(root.operands[counter])
    while line is not None and line.opcode in ("copy", "bitcast") and line.operands:
      line = lines.get(line.operands[0])
    return self._added(lines, line) or 1 if line is not None else 1

  def _added(self, lines: dict[str, Instruction], line: Instruction) -> int | None:
    """N of `add(%x, %constant)` where the constant is N; the addition, or the addition alone, may be in a fusion."""
    last, around = self._unwrapped(line), lines
    if last is not line:
      around = self.by_name[line.callees("calls")[0]]
    for name in last.operands if last.opcode == "add" else ():
      part = around.get(name)
      if part is not None and last is not line and part.opcode == "parameter":
        part = lines.get(line.operands[part.number])
      if part is not None and part.opcode == "constant" and part.number is not None:
        return part.number
    return None

  def _unwrapped(self, line: Instruction) -> Instruction:
    """The root of the computation that a fusion calls; any other instruction itself."""
    inner = self.program.get((line.callees("calls") or [""])[0], ()) if line.opcode == "fusion" else ()
    return next((last for last in inner if last.root), line)

  def _constant(self, lines: dict[str, Instruction], line: Instruction) -> int | None:
    """The whole constant that an instruction reads, or that the computation of a fusion contains."""
    known = [lines[name].number for name in line.operands if name in lines and lines[name].opcode == "constant"]
    if line.opcode == "fusion":
      known += [inner.number for inner in self.program.get((line.callees("calls") or [""])[0], ())
                if inner.opcode == "constant"]
    return next((value for value in known if value is not None), None)

  def _sent(self, where: str, line: Instruction) -> tuple[tuple[str, float, float], ...]:
    """The collectives of an instruction, those inside its fusion included; each channel once."""
    collectives = ()
    for callee in line.callees("calls") if line.opcode == "fusion" else ():
      for inner in self.program.get(callee, ()):
        collectives += self._sent(callee, inner)
    kind = line.opcode.removesuffix("-start")
    channel = CHANNEL.search(line.attributes)
    if kind not in COLLECTIVES or (channel and channel[1] in self.channels):
      return collectives
    self.channels |= {channel[1]} if channel else set()
    size, devices = sum(array_bytes(line.shape, False)), group_size(line.attributes)
    if line.opcode.endswith("-start") and line.shape.startswith("("):   # a tuple of the operand and the result
      size = max(array_bytes(line.shape, False))
    if kind == "all-reduce" and "all-reduce-scatter" in where:
      kind, size = "reduce-scatter", size / devices
    share = (devices - 1) / devices
    sent = {"all-gather": size * share, "all-reduce": 2 * size * share, "reduce-scatter": size * (devices - 1),
            "all-to-all": size * share, "collective-permute": size}[kind]
    return (*collectives, (kind, 1.0, sent))

  def _moved(self, where: str, line: Instruction) -> float:
    """Bytes that an instruction reads from main memory and writes to it."""
    if line.opcode in FREE or line.opcode.endswith("-done") or "AsyncCollective" in line.attributes:
      return 0.0
    lines = self.by_name[where]
    operands = [lines[name] for name in line.operands if name in lines]
    if line.opcode == "fusion":
      callee = line.callees("calls")[0]
      return self._written(callee, line) + sum(
          self._read(callee, number, operand)[0] for number, operand in enumerate(operands))
    if line.opcode in ("dynamic-slice", "slice", "gather"):
      return 2 * sum(array_bytes(line.shape))
    if line.opcode == "dynamic-update-slice":
      return 2 * sum(array_bytes(operands[1].shape)) if len(operands) > 1 else 0.0
    if line.opcode == "dynamic-update-slice-start":   # to the host's memory, say, which is no main memory of the device
      update = sum(array_bytes(operands[1].shape)) if len(operands) > 1 else 0.0
      return update * (1 + bool(sum(array_bytes(operands[0].shape)))) if update else 0.0
    if line.opcode == "dynamic-slice-start":
      target = sum(array_bytes(line.shape[_closing(line.shape[1:]) + 2:]))
      return target * (1 + bool(operands and sum(array_bytes(operands[0].shape))))
    if line.opcode == "copy-start":   # its shape is a tuple of source and target
      return sum(array_bytes(line.shape))
    if line.opcode == "slice-start":   # its shape is ((source), target, ...)
      target = line.shape[_closing(line.shape[1:]) + 2:]
      return sum(array_bytes(target)) + sum(array_bytes(target, False)[:1])
    return sum(array_bytes(line.shape)) + sum(sum(array_bytes(operand.shape)) for operand in operands)

  def _read(self, callee: str, number: int, operand: Instruction) -> tuple[float, bool]:
    """(bytes that a fusion reads of its operand, whether the fusion returns that operand).

    Of an operand that the fusion only slices, the slices count. callee: the computation that the fusion calls, whose
    parameter `number` is the operand.
    """
    whole, body = sum(array_bytes(operand.shape)), self.program.get(callee, ())
    parameter = next((line for line in body if line.opcode == "parameter" and line.number == number), None)
    if not whole or parameter is None:
      return whole, False
    names, touched = {parameter.name}, 0.0   # names: of the operand and its bitcasts
    for line in body:
      if not names & set(line.operands):
        continue
      if line.opcode == "bitcast":
        names.add(line.name)
      elif line.opcode in ("dynamic-slice", "slice", "gather") and line.operands[0] in names:
        touched += sum(array_bytes(line.shape, False))
      elif line.opcode == "dynamic-update-slice" and line.operands[0] in names:
        continue   # in place
      elif line.opcode == "fusion":
        for index, name in enumerate(line.operands):
          if name in names:
            part, returned = self._read(line.callees("calls")[0], index, operand)
            touched += part
            names |= {line.name} if returned else set()
      else:
        return whole, False
    return min(whole, touched), any(line.root and line.name in names for line in body)

  def _written(self, callee: str, line: Instruction) -> float:
    """Bytes that a fusion writes; of an array that it updates in place, only the update."""
    lines = self.by_name.get(callee, {})
    root = next((inner for inner in lines.values() if inner.root), None)
    while root is not None and root.opcode == "bitcast" and root.operands and root.operands[0] in lines:
      root = lines[root.operands[0]]
    if root is not None and root.opcode == "dynamic-update-slice" and len(root.operands) > 1:
      return min(sum(array_bytes(line.shape)), sum(array_bytes(lines[root.operands[1]].shape, False)))
    return sum(array_bytes(line.shape))


def group_size(attributes: str) -> int:
  """How many devices take part in one group of a collective; 2 where no form of replica_groups is known."""
  if match := MESH_GROUPS.search(attributes):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
    return math.prod(int(sizes.get(name, 1)) for name in re.findall(r"'(\w+)'", match[2])) or 1
  if match := IOTA_GROUPS.search(attributes):
    return int(match[2])
  if match := LISTED_GROUPS.search(attributes):
    return match[1].count(",") + 1
  return 2
