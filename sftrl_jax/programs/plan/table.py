"""A plan as a person reads it."""

from sftrl_jax.parallel import rules
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.start.trainable import abstract_trainable

COLUMNS = ("function", "calls", "params", "optimizer", "other", "cache", "temporary", "peak GiB", "TFLOP", "GB",
           "GB sent", "seconds", "bound by")
ELSE = ("reference", "decoding", "batch", "other")   # what the column `other` adds up


def page(made, told: dict) -> str:
  """The table of functions and what follows for the run."""
  rows = [_row(one) for one in told["functions"]]
  widths = [max(len(row[column]) for row in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
  align = lambda row: "  ".join([f"{row[0]:<{widths[0]}}", *(
      f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
  lines = ["", align(COLUMNS), *map(align, rows), "",
           "A device, a call: params to temporary in GiB with what lies there meanwhile; TFLOP and GB as computed and "
           "moved,", "remat included; seconds are the least by the chip's peaks; calls a step of the run.", ""]
  lines += collectives(told)
  return "\n".join([*lines, *verdict(made, told)])


def _row(one: dict) -> tuple[str, ...]:
  have = {role: one["arguments_gib"].get(role, 0.0) + one["resident_gib"].get(role, 0.0)
          for role in {*one["arguments_gib"], *one["resident_gib"]}}
  gib = lambda *roles: f"{sum(have.get(role, 0.0) for role in roles):.2f}"
  peak = f"{one['peak_gib']:.2f}" + ("" if one["compiled"] else "!")
  moved = f"{one['bytes'] / 1e9:.1f}" if one["text_read"] else "-"
  sent = f"{one['sent_bytes'] / 1e9:.2f}" if one["text_read"] else "-"
  return (one["name"], f"{one['calls_per_step']:g}", gib("parameters"), gib("optimizer"), gib(*ELSE), gib("cache"),
          f"{one['temporaries_gib']:.2f}", peak, f"{one['flops'] / 1e12:.2f}", moved, sent,
          f"{one['seconds_bound']:.3f}", one["bound_by"])


def collectives(told: dict) -> list[str]:
  """A line a function that has any."""
  lines = []
  for one in told["functions"]:
    found = [f"{kind} {each['count']:,.0f} ({each['bytes'] / 1e9:.2f} GB)" for kind, each in one["collectives"].items()
             if each["bytes"] > 1e6]
    if found:
      lines.append(f"  {one['name']}: {', '.join(found)}")
  return ["Collectives of a call, bytes sent by a device:", *lines, ""] if lines else []


def verdict(made, told: dict) -> list[str]:
  """Whether it fits, and what it takes at least."""
  limit = told["hbm_limit_gib"]
  lines = [f"{one['name']} does not fit: needs {one['peak_gib']:.2f} GiB, the chip has {limit:g} GiB"
           for one in told["functions"] if not one["compiled"] or one["peak_gib"] > limit]
  if not told["fits"]:
    return lines
  lines = [f"fits: {told['peak_gib']:.2f} of {limit:g} GiB at most"]
  if told["only"]:
    return [*lines, f"(only functions that begin with {', '.join(told['only'])}; a step and its cost need all of them)"]
  seconds = told["step_seconds_bound"]
  lines.append(f"a step takes at least {seconds:.2f} s: at most {told['tokens_per_second_bound']:,.0f} tokens/s")
  lines.append(f"{told['steps']} steps: at least {told['chip_hours_bound']:.1f} chip-hours, evaluations left out"
               + (f", {told['cost_bound']:.2f} at {told['price_per_chip_hour']:g} a chip-hour"
                  if "cost_bound" in told else ""))
  if made.experiment.limits.flops:
    lines.append(f"config.flops = {made.experiment.limits.flops:g} may end the run before its steps do")
  return lines


def optimizer_line(name: str, made, say) -> dict:
  """One optimizer's train step in a line, and in plan.json."""
  step = next(one for one in made.functions if one.name == "train step")
  seconds, _ = step.bound(made.machine)
  told = {"name": name, "fits": made.fits, "peak_gib": made.peak / GIB, "seconds_bound": seconds,
          "optimizer_gib": step.arguments.get("optimizer", 0.0) / GIB, "temporaries_gib": step.temporaries / GIB}
  say(f"optimizer {name:<24} {told['optimizer_gib']:6.2f} GiB of state, peak {told['peak_gib']:6.2f} GiB, train step "
      f"at least {seconds:.3f} s: {'fits' if made.fits else 'does not fit'}")
  return told


def sharding(made) -> str:
  """Every parameter: its shape, how it is split, and what of it lies on a device."""
  return rules.table({"model": abstract_trainable(made.experiment)[0]}, made.experiment.mesh)
