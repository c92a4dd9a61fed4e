"""The table of `sftrl plan --published`: each published run beside its prediction, and how far off the tests are."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from sftrl_jax.programs.plan.published import calibration, train_step
from sftrl_jax.programs.plan.published.calibration import Prediction
from sftrl_jax.training.log import write_json

COLUMNS = ("run", "B params", "TFLOP ours", "theirs", "recount", "bound s", "published s", "predicted s", "ratio",
           "MFU published", "predicted", "half")
LEGEND = """
A run is CHIP x CHIPS MODEL. TFLOP and seconds are of a step on one chip: ours counts all scores of attention, theirs is
the publisher's count of its day (published/runs.py); recount is our count by their rule over what they published, where
they published both a time and FLOP/s. The bound is the roofline of `sftrl plan`, here from shapes instead of a compiled
program: a compiler needs too long for models of this size. It includes what the backward pass computes again.
predicted = bound / the efficiency of the generation. Sorted by name, even places calibrate and odd places are tested.
All bounds are FLOPs: the efficiencies say nothing about decoding, which memory bounds."""


def run(out: str = "") -> dict:
  """Prints the table and returns the content of the JSON file, which is written to `out` if that is not empty."""
  content = to_json(calibration.predictions())
  print(page(calibration.predictions()), flush=True)
  if out:
    write_json(Path(out), content)
    print(f"Written: {out}")
  return content


def page(runs: tuple[Prediction, ...]) -> str:
  """The table, the efficiencies, the sources, and the errors of the tested half in the last line."""
  rows = [COLUMNS, *map(_row, runs)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = ["  ".join([f"{row[0]:<{widths[0]}}", *(
      f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]) for row in rows]
  chips = dict.fromkeys(run.run.chip for run in runs)
  share = "Efficiency of the bound, fitted on the calibrating half (and its range over all runs): " + ", ".join(
      f"{chip} {efficiency.fitted:.0%} ({efficiency.lowest:.0%} to {efficiency.highest:.0%} of {efficiency.runs})"
      for chip, efficiency in ((chip, calibration.efficiency(chip)) for chip in chips))
  sources = [f"  {source}" for source in dict.fromkeys(run.run.source for run in runs)]
  return "\n".join([*lines, LEGEND, "", share, "Sources:", *sources, "", *errors(runs)])


def errors(runs: tuple[Prediction, ...]) -> list[str]:
  """The error with one efficiency for all chips, and in the last line the errors of the tested half."""
  same = calibration.fit(tuple(run for run in runs if run.calibrates))
  with_same = [dataclasses.replace(run, predicted=run.bound / same) for run in runs]
  tested = [run for run in runs if not run.calibrates]
  median, worst = calibration.tested_errors(runs)
  near = sum(run.error <= 0.1 for run in tested)
  return [f"With one efficiency for all chips ({same:.0%}) the median error of the tested half would be "
          f"{calibration.tested_errors(with_same)[0]:.1%}.",
          f"Tested half: {len(tested)} runs, median error {median:.1%}, worst {worst.error:.1%} ({worst.run.name}); "
          f"{near} within 10%."]


def to_json(runs: tuple[Prediction, ...]) -> dict:
  """The content of the JSON file."""
  median, worst = calibration.tested_errors(runs)
  return {"runs": [_to_json(run) for run in runs], "median_error": median, "worst_error": worst.error,
          "efficiency": {chip: dataclasses.asdict(calibration.efficiency(chip))
                         for chip in dict.fromkeys(run.run.chip for run in runs)}}


def _to_json(prediction: Prediction) -> dict:
  run, step = prediction.run, train_step.of(prediction.run)
  return {"name": run.name, "source": run.source, "chip": run.chip, "chips": run.chips, "rows_per_chip": run.rows,
          "length": run.length, "parameters": prediction.parameters, "flops": prediction.our_flops,
          "flops_published_count": prediction.their_flops, "flops_computed": step.computed_flops,
          "bytes": step.traffic.bytes, "sent_bytes": step.traffic.sent, "seconds_bound": prediction.bound,
          "bound_by": prediction.bound_by, "seconds_published": prediction.seconds,
          "seconds_predicted": prediction.predicted, "calibrates": prediction.calibrates}


def _row(prediction: Prediction) -> Iterable[str]:
  recount = prediction.recount
  return (prediction.run.name, f"{prediction.parameters / 1e9:.1f}", f"{prediction.our_flops / 1e12:,.0f}",
          f"{prediction.their_flops / 1e12:,.0f}", "-" if recount is None else f"{recount:.3f}",
          f"{prediction.bound:.2f}", f"{prediction.seconds:.2f}", f"{prediction.predicted:.2f}",
          f"{prediction.ratio:.2f}", f"{prediction.mfu(prediction.seconds):.1%}",
          f"{prediction.mfu(prediction.predicted):.1%}", "calibrates" if prediction.calibrates else "tested")
