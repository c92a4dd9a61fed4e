"""The reader of XLA's text: on texts of known traffic, and on programs of the installed compiler."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sftrl_jax.programs.plan import hlo_traffic
from sftrl_jax.programs.plan.hlo_traffic import Traffic

TEXT = """HloModule m

%fused (p.0: f32[4,8], p.1: s32[]) -> f32[1,8] {
  %p.0 = f32[4,8]{1,0:T(8,128)} parameter(0)
  %p.1 = s32[]{:T(128)S(6)} parameter(1)
  ROOT %slice = f32[1,8]{1,0:T(8,128)} dynamic-slice(%p.0, %p.1), dynamic_slice_sizes={1,8}
}

%body (b: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %b = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%b), index=0
  %all = f32[4,8]{1,0:T(8,128)} get-tuple-element(%b), index=1
  %row = f32[1,8]{1,0:T(8,128)S(1)} fusion(%all, %i), kind=kLoop, calls=%fused
  %whole = f32[4,8]{1,0:T(8,128)S(1)} all-gather(%row), channel_id=7, replica_groups=mesh['a'=4] {'a'}, dimensions={0}
  %again = f32[4,8]{1,0:T(8,128)S(1)} all-gather(%row), channel_id=7, replica_groups=mesh['a'=4] {'a'}, dimensions={0}
  ROOT %t = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) tuple(%i, %all)
}

%condition (c: (s32[], f32[4,8])) -> pred[] {
  %c = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) parameter(0)
  %n = s32[]{:T(128)} constant(5)
  %j = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(512)} compare(%j, %n), direction=LT
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) tuple(%zero, %x)
  %loop = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  %out = f32[4,8]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  ROOT %y = f32[4,8]{1,0:T(8,128)} negate(%out)
}
"""


def test_a_slice_is_charged_and_not_what_it_is_cut_from_and_a_collective_once_a_round():
  once, looped = hlo_traffic.read(TEXT)
  assert once.bytes == 5 * 32 + 2 * 128   # arrays in the chip's own memory, S(1), are not moved
  assert once.collectives == (("all-gather", 5.0, 5 * 128 * 3 / 4),) and looped == Traffic()


@pytest.mark.parametrize("reader", ["negate(%same)", "slice(%same), slice={[0:1], [0:8]}"])
def test_what_a_fusion_returns_is_read_by_its_reader(reader):
  """A matrix that a fusion only renames is read by the product behind it."""
  shape = "f32[4,8]" if reader.startswith("negate") else "f32[1,8]"
  text = ("HloModule m\n\n%renamed (r: f32[4,8]) -> f32[4,8] {\n  %r = f32[4,8] parameter(0)\n"
          "  ROOT %again = f32[4,8] bitcast(%r)\n}\n\n"
          f"%outer (o: f32[4,8]) -> {shape} {{\n  %o = f32[4,8] parameter(0)\n"
          "  %same = f32[4,8] fusion(%o), kind=kLoop, calls=%renamed\n"
          f"  ROOT %end = {shape} {reader}\n}}\n\n"
          f"ENTRY %main (x: f32[4,8]) -> {shape} {{\n  %x = f32[4,8] parameter(0)\n"
          f"  ROOT %y = {shape} fusion(%x), kind=kOutput, calls=%outer\n}}\n")
  assert hlo_traffic.read(text)[0].bytes == (256 if shape == "f32[4,8]" else 64)


@pytest.mark.parametrize("counting", [
    "  %two = s32[] constant(2)\n  %next = s32[]{:T(128)} add(%i, %two)\n",
    "  %two = s32[] constant(2)\n  %sum = s32[]{:T(128)} fusion(%two, %i), kind=kLoop, calls=%adding\n"
    "  %next = s32[]{:T(128)} copy(%sum)\n"])
def test_a_round_may_count_for_two(counting):
  """As in loops of the TPU compiler that pass matrices around a ring in both directions."""
  adding = ("%adding (p.0: s32[], p.1: s32[]) -> s32[] {\n  %p.0 = s32[] parameter(0)\n  %p.1 = s32[] parameter(1)\n"
            "  %zero = s32[] constant(99)\n  ROOT %sum = s32[] add(%p.1, %p.0)\n}\n\n%body (b")
  text = TEXT.replace("%body (b", adding).replace("  ROOT %t = ", f"{counting}  ROOT %t = ").replace(
      "tuple(%i, %all)", "tuple(%next, %all)")
  assert hlo_traffic.read(text)[0].collectives == (("all-gather", 3.0, 3 * 128 * 3 / 4),)   # 0, 2, 4: three rounds


def test_a_loop_without_a_known_end_is_counted_apart():
  once, looped = hlo_traffic.read(TEXT.replace("constant(5)", "parameter(1)"))
  assert once.bytes == 2 * 128 and looped.bytes == 32 and looped.collectives[0][1] == 1.0


@pytest.mark.parametrize(("groups", "size"), [
    ("replica_groups={{0,1,2,3},{4,5,6,7}}", 4), ("replica_groups=[2,8]<=[16]", 8),
    ("replica_groups=mesh['x'=4, 'y'=2] {'x', 'y'}", 8), ("replica_groups=mesh['x'=4, 'y'=2] {'y'}", 2)])
def test_the_size_of_a_group(groups, size):
  assert hlo_traffic.group_size(f"channel_id=1, {groups}, dimensions=0") == size


def test_sizes_of_shapes():
  shape = "(bf16[2,3]{1,0:T(8,128)(2,1)}, pred[], f8e4m3fn[10]{0}, /*index=3*/s32[4]{0:S(1)})"
  assert hlo_traffic.array_bytes(shape) == (12, 1, 10)
  assert sum(hlo_traffic.array_bytes("(f32[2], s32[4]{0:S(1)})", False)) == 24


def test_addition_keeps_kinds_apart():
  total = Traffic(1.0, (("all-gather", 1.0, 2.0),)) + Traffic(2.0, (("all-gather", 1.0, 3.0), ("all-reduce", 1.0, 1.0)))
  assert total.times(2).collectives == (("all-gather", 4.0, 10.0), ("all-reduce", 2.0, 2.0)) and total.sent == 6.0


@pytest.mark.parametrize("stride", [1, 2])
def test_a_compiled_loop_counts_by_its_stride(stride):
  mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
  turn = lambda carry: (carry[0] + stride, carry[1] + jnp.sum(carry[2] * carry[1]), carry[2])
  run = jax.jit(lambda row: jax.lax.while_loop(lambda carry: carry[0] < 9, turn, (0, 1.0, row))[1])
  row = jax.ShapeDtypeStruct((64,), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("x")))
  once, looped = hlo_traffic.read(run.lower(row).compile().as_text())
  assert once.collectives[0][:2] == ("all-reduce", 9 if stride == 1 else 5) and not looped.bytes


@pytest.mark.parametrize("rounds", [3, 9])
def test_a_compiled_scan_is_read(rounds):
  """Sums over devices inside a scan: as many as it has rounds."""
  mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

  def step(total, row):
    return total + jnp.sum(row * total), None

  run = jax.jit(lambda rows: jax.lax.scan(step, 1.0, rows)[0])
  rows = jax.ShapeDtypeStruct((rounds, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "x")))
  once, looped = hlo_traffic.read(run.lower(rows).compile().as_text())
  (kind, count, sent), = once.collectives
  assert (kind, count) == ("all-reduce", rounds) and sent == rounds * 2 * 4 * 7 / 8
  assert once.bytes > 0 and not looped.bytes


def test_what_moves_to_the_host_and_back_is_moved_once_each_way():
  host, row = "f32[4,8]{1,0:T(8,128)S(5)}", "f32[1,8]{1,0:T(8,128)}"
  text = (f"HloModule m\n\nENTRY %main (h: f32[4,8], r: f32[1,8], i: s32[]) -> f32[1,8] {{\n"
          f"  %h = {host} parameter(0)\n  %r = {row} parameter(1)\n  %i = s32[]{{:T(128)S(6)}} parameter(2)\n"
          f"  %up = (({host}, {row}, s32[]), {host}, u32[]{{:S(2)}}) dynamic-update-slice-start(%h, %r, %i)\n"
          f"  %stored = {host} dynamic-update-slice-done(%up)\n"
          f"  %down = (({host}, s32[]), {row}, u32[]{{:S(2)}}) dynamic-slice-start(%stored, %i)\n"
          f"  ROOT %row = {row} dynamic-slice-done(%down)\n}}\n")
  assert hlo_traffic.read(text)[0].bytes == 2 * 32
