"""Measurements as bench.json holds them, and as a person reads them."""

from sftrl_jax.programs.bench.machine_peak import MachinePeak
from sftrl_jax.programs.bench.paired_timing import Pairs
from sftrl_jax.programs.bench.workloads import Timed


def line_of(work: str, shape: str, timed: Timed, measured: Pairs, peak: MachinePeak, dtype: str,
            steps: int = 1, their_tokens: float = 0.0) -> dict:
  """One measurement, an entry of `lines` in bench.json. of_peak and of_bandwidth are shares of all devices' peaks.

  steps: of decoding, in one run of the work; their_tokens: of one run of the peer (0: as many as ours)
  """
  seconds = measured.seconds
  line = {"work": work, "shape": shape, "seconds": seconds, "ms_per_step": 1e3 * seconds / steps,
          "tokens_per_second": timed.tokens / seconds, "flops": timed.flops, "runs": list(measured.ours)}
  if timed.flops:
    line["of_peak"] = timed.flops / seconds / peak.matmul(dtype) / peak.devices
  if timed.labels:
    line["label_tokens_per_second"] = timed.labels / seconds
  if timed.bytes:
    line["of_bandwidth"] = timed.bytes * steps / seconds / peak.bandwidth / peak.devices
  if timed.temporaries:
    line["temporaries"] = timed.temporaries
  if measured.theirs:
    line |= {"their_seconds": measured.their_seconds, "their_runs": list(measured.theirs),
             "their_tokens_per_second": (their_tokens or timed.tokens) / measured.their_seconds,
             "ratio": measured.ratio, "ratio_spread": list(measured.spread), "ratios": list(measured.ratios)}
  return line


def describe_machine(peak: MachinePeak) -> str:
  """The machine and its peaks in a line."""
  devices = f"{peak.devices} x {peak.device}" if peak.devices > 1 else peak.device
  return (f"{devices}, {peak.threads} CPU threads: matmul {peak.float32 / 1e9:.0f} GFLOP/s in f32, "
          f"{peak.bfloat16 / 1e9:.0f} in bf16, memory {peak.bandwidth / 1e9:.1f} GB/s")


def describe_line(line: dict) -> str:
  """One measurement in a line, printed once it is done."""
  against = (f", {line['ratio']:.2f} times the peer ({line['ratio_spread'][0]:.2f} to {line['ratio_spread'][1]:.2f})"
             if "ratio" in line else "")
  note = f"; {line['note']}" if "note" in line else ""
  return f"{line['work']} {line['shape']}: {_number(line['tokens_per_second'])} tokens/s{against}{note}"


def _number(value: float) -> str:
  return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


# Key of a line, heading, width, format. Columns of str are aligned on the left.
COLUMNS = (("work", "work", 16, str), ("shape", "shape", 10, str), ("ms_per_step", "ms/step", 10, "{:.1f}".format),
           ("tokens_per_second", "tokens/s", 11, _number), ("label_tokens_per_second", "labels/s", 11, _number),
           ("of_peak", "of peak", 9, "{:.0%}".format), ("of_bandwidth", "of memory", 11, "{:.0%}".format),
           ("alive", "alive", 8, "{:.0%}".format), ("their_alive", "undivided", 11, "{:.0%}".format),
           ("temporaries", "temporaries", 13, lambda size: f"{size / 1e9:.2f} GB"),
           ("memory", "memory", 10, lambda size: f"{size / 1e9:.2f} GB"),
           ("their_memory", "peer memory", 13, lambda size: f"{size / 1e9:.2f} GB"),
           ("their_tokens_per_second", "peer tokens/s", 15, _number), ("ratio", "ratio", 8, "{:.2f}".format),
           ("ratio_spread", "pairs", 14, lambda spread: f"{spread[0]:.2f} - {spread[1]:.2f}"))


def table(lines: list[dict], peak: MachinePeak, dtype: str) -> str:
  """All measurements, a row each, without empty columns; below them what the two sides of each do differently."""
  shown = [column for column in COLUMNS if any(column[0] in line for line in lines)]
  align = lambda text, width, form: f"{text:<{width}}" if form is str else f"{text:>{width}}"
  rows = ["".join(align(heading, width, form) for _, heading, width, form in shown)]
  rows += ["".join(align(form(line[key]) if key in line else "", width, form) for key, _, width, form in shown)
           for line in lines]
  return "\n".join([describe_machine(peak),
                    f"activations in {dtype}; of peak: of the matmul above; of memory: of its bandwidth", *rows,
                    *(f"{line['work']}: {line['sides']}" for line in lines if "sides" in line)])
