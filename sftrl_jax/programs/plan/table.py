"""A plan of a slice as a person reads it. `content` is the content of plan.json."""

from collections.abc import Callable

from sftrl_jax.parallel import rules
from sftrl_jax.parallel.chips import GIB
from sftrl_jax.programs.plan.compilation import Plan
from sftrl_jax.programs.start.trainable import abstract_trainable

COLUMNS = ("function", "calls", "params", "optimizer", "other", "cache", "temporary", "peak GiB", "TFLOP", "GB",
           "GB sent", "seconds", "bound by")
ELSE = ("reference", "reward model", "decoding", "batch", "other")   # roles that the column `other` adds up


def page(plan: Plan, content: dict) -> str:
  """The table of functions, their collectives, and the verdict."""
  rows = [_row(function) for function in content["functions"]]
  widths = [max(len(row[column]) for row in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
  align = lambda row: "  ".join([f"{row[0]:<{widths[0]}}", *(
      f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
  lines = ["", align(COLUMNS), *map(align, rows), "",
           "Per device and call: params to temporary in GiB, resident arrays included; TFLOP and GB computed and "
           "moved, remat", "included; seconds are a lower bound by the chip's peaks; calls are per step of the run.",
           *_unread(content), ""]
  lines += collectives(content)
  lines += [f"{function['name']} keeps {function['host_gib']:.3f} GiB a chip in the host's memory; the time to move "
            "them is in no bound." for function in content["functions"] if function.get("host_gib")]
  return "\n".join([*lines, *verdict(plan, content)])


def _row(function: dict) -> tuple[str, ...]:
  sizes = {role: function["arguments_gib"].get(role, 0.0) + function["resident_gib"].get(role, 0.0)
           for role in {*function["arguments_gib"], *function["resident_gib"]}}
  gib = lambda *roles: f"{sum(sizes.get(role, 0.0) for role in roles):.2f}"
  peak = f"{function['peak_gib']:.2f}" + ("" if function["compiled"] else "!")
  moved = f"{function['bytes'] / 1e9:.1f}" if function["text_read"] else "-"
  sent = f"{function['sent_bytes'] / 1e9:.2f}" if function["text_read"] else "-"
  return (function["name"], f"{function['calls_per_step']:g}", gib("parameters"), gib("optimizer"), gib(*ELSE),
          gib("cache"), f"{function['temporaries_gib']:.2f}", peak, f"{function['flops'] / 1e12:.2f}", moved, sent,
          f"{function['seconds_bound']:.3f}", function["bound_by"])


def _unread(content: dict) -> list[str]:
  """A line about functions whose traffic is not known."""
  if all(function["text_read"] or not function["compiled"] for function in content["functions"]):
    return []
  return ["-: XLA cannot print this program; its seconds count the least memory traffic, and none between chips."]


def collectives(content: dict) -> list[str]:
  """A line for each function that sends more than a megabyte by one kind of collective."""
  lines = []
  for function in content["functions"]:
    kinds = [f"{kind} {total['count']:,.0f} ({total['bytes'] / 1e9:.2f} GB)"
             for kind, total in function["collectives"].items() if total["bytes"] > 1e6]
    if kinds:
      lines.append(f"  {function['name']}: {', '.join(kinds)}")
  return ["Collectives of a call, bytes sent by a device:", *lines, ""] if lines else []


def verdict(plan: Plan, content: dict) -> list[str]:
  """Whether the run fits; if so, lower bounds on its time and cost."""
  limit = content["hbm_limit_gib"]
  if not content["fits"]:
    return [f"{function['name']} does not fit: needs {function['peak_gib']:.2f} GiB, the chip has {limit:g} GiB"
            for function in content["functions"] if not function["compiled"] or function["peak_gib"] > limit]
  lines = [f"fits: {content['peak_gib']:.2f} of {limit:g} GiB at most"]
  if content["only"]:
    only = ", ".join(content["only"])
    return [*lines, f"(only functions that begin with {only}; a step and its cost need all of them)"]
  seconds = content["step_seconds_bound"]
  lines.append(f"a step takes at least {seconds:.2f} s: at most {content['tokens_per_second_bound']:,.0f} tokens/s")
  lines += [content["expected_step"]["text"]] if content.get("expected_step") else []
  lines.append(f"{content['steps']} steps: at least {content['chip_hours_bound']:.1f} chip-hours, evaluations left out"
               + (f", {content['cost_bound']:.2f} at {content['price_per_chip_hour']:g} a chip-hour"
                  if "cost_bound" in content else ""))
  if plan.experiment.limits.flops:
    lines.append(f"config.flops = {plan.experiment.limits.flops:g} may end the run before its steps do")
  return lines


def optimizer_line(name: str, plan: Plan, say: Callable[[str], None]) -> dict:
  """Prints the train step with one optimizer in a line; returns its entry of `optimizers` in plan.json."""
  step = next(function for function in plan.functions if function.name == "train step")
  seconds, _ = step.bound(plan.machine)
  line = {"name": name, "fits": plan.fits, "peak_gib": plan.peak / GIB, "seconds_bound": seconds,
          "optimizer_gib": step.arguments.get("optimizer", 0.0) / GIB, "temporaries_gib": step.temporaries / GIB}
  say(f"optimizer {name:<24} {line['optimizer_gib']:6.2f} GiB of state, peak {line['peak_gib']:6.2f} GiB, train step "
      f"at least {seconds:.3f} s: {'fits' if plan.fits else 'does not fit'}")
  return line


def sharding(plan: Plan) -> str:
  """Every parameter: its shape, its sharding, and its bytes on a device."""
  return rules.table({"model": abstract_trainable(plan.experiment)[0]}, plan.experiment.mesh)
