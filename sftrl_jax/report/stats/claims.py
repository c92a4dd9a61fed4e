"""What a study shows and what it does not: verdicts on claims and the sentences of "What does not hold", from the
numbers alone.
"""

import dataclasses
import math

from sftrl_jax.report import labels
from sftrl_jax.report.stats import alarms
from sftrl_jax.report.stats.bootstrap import Estimate

MIN_BASES = 3
HOLDS, FAILS, FEW = "holds", "does not hold", "too few bases"


@dataclasses.dataclass(frozen=True)
class Claim:
  """A directed statement about one estimate; `sign` +1 claims it is above zero, -1 below. `verdict` is one of HOLDS,
  FAILS, FEW.
  """
  text: str
  temperature: float
  sign: int
  estimate: Estimate
  verdict: str
  reason: str


def judge(estimate, sign):
  """(verdict, reason): a claim holds if both intervals lie on its side of zero and at least three bases stand behind
  it.
  """
  bounds = [sign * bound for bound in (estimate.low, estimate.high, estimate.t_low, estimate.t_high)]
  if estimate.bases < MIN_BASES:
    side = "on the claimed side" if sign * estimate.value > 0 else "not on the claimed side"
    return FEW, f"{estimate.bases} of at least {MIN_BASES} bases; the estimate is {side}"
  if min(bounds) > 0:
    return HOLDS, "both intervals exclude zero"
  if max(bounds) < 0:
    return FAILS, "both intervals exclude zero on the other side: the opposite was measured"
  if min(bounds[:2]) > 0:
    return FAILS, "not shown: the t interval over bases touches zero"
  return FAILS, "not shown: the interval touches zero"


def claims(study, effects):
  """Every claim of the comparison at every temperature for which there is an estimate."""
  if study.against or study.crowd:
    return ()  # what is claimed here is claimed of SFT and RL
  sft = study.reference_label
  inside, outside = labels.variant_label(study.id), labels.variant_label(study.ood)
  wanted = []
  for method in study.others:
    label = study.methods[method]
    wanted += [
      (f"{label} raises success on {outside}", 1, ("change", method, study.ood)),
      (f"{sft} lowers success on {outside}", -1, ("change", study.reference, study.ood)),
      (f"{label} ends ahead of {sft} on {outside} at equal FLOPs", 1, ("gap", method, study.ood)),
      (f"{label} is ahead of {sft} on {outside} at the same success on {inside}", 1, ("matched", method, study.ood)),
      (f"{label} raises success on {inside}", 1, ("change", method, study.id)),
    ]
  wanted.append((f"{sft} raises success on {inside}", 1, ("change", study.reference, study.id)))
  found = []
  for text, sign, place in dict.fromkeys(wanted):
    for temperature in study.temperatures:
      estimate = effects.find(*place, temperature)
      if estimate is not None and estimate.bases:
        found.append(Claim(text, temperature, sign, estimate, *judge(estimate, sign)))
  return tuple(found)


def told(estimate):
  """An estimate in words: +8.2 points (95%: +4.7 to +11.3)."""
  return f"{labels.points(estimate.value)} points (95%: {labels.points_range(estimate.low, estimate.high)})"


def early_stopping(study, effects, temperature):
  """What stopping SFT early does to its harm; "" if nothing was measured or there is no harm."""
  harm = effects.find("change", study.reference, study.ood, temperature)
  best = effects.find("early_best", study.reference, study.ood, temperature)
  if harm is None or best is None or harm.value >= 0:
    return ""
  inside = effects.find("early_best", study.reference, study.id, temperature)
  name, at = study.reference_label, labels.temperature_label(temperature)
  removed = 1 - best.value / harm.value
  how = "removes most of" if removed >= 0.5 else "leaves most of"
  text = (
    f"Early stopping {how} {name}'s harm ({at}): at its best evaluation on {labels.variant_label(study.ood)} the change "
    "from "
    f"the start is {told(best)} instead of {told(harm)}"
  )
  if inside is not None:
    text += f", and {labels.variant_label(study.id)} has then changed by {told(inside)}"
  text += (
    ". That evaluation was picked by looking at the shifted variant itself, so this is the most early stopping could "
    "give."
  )
  unseen = effects.find("early_unseen", study.reference, study.ood, temperature)
  if unseen is not None:
    text += (
      " Stopping where held-out in-distribution success is best, which needs no look at the shift, gives "
      f"{told(unseen)}."
    )
  return text


def ahead_in_distribution(study, effects, temperature):
  """Sentences for each method on who wins in distribution at equal FLOPs."""
  sentences = []
  for method in study.others:
    gap = effects.find("gap", method, study.id, temperature)
    if gap is not None and gap.value < 0:
      sure = "" if gap.high < 0 else ", although the interval touches zero"
      sentences.append(
        f"{study.reference_label} is ahead in distribution at equal FLOPs ({labels.temperature_label(temperature)}): "
        f"{study.methods[method]} minus {study.reference_label} on {labels.variant_label(study.id)} is "
        f"{told(gap)}{sure}. Whoever "
        "only needs the training distribution is better served by it.")
  return sentences


def retries(study, effects, temperature):
  """Whether a gain outside the distribution is there at the first attempt, or comes from using the verifier's
  feedback.
  """
  sentences = []
  for method in study.others:
    within, first = (effects.find("change", method, study.ood, temperature, tries) for tries in (0, 1))
    if effects.attempts == 1 or within is None or first is None or within.value <= 0:
      continue
    shown = judge(first, 1)[0] == HOLDS
    sentences.append(
      f"{study.methods[method]}'s gain on {labels.variant_label(study.ood)} ({labels.temperature_label(temperature)}) is "
      f"{told(within)} within {effects.attempts} attempts and {told(first)} at the first attempt"
      + ("." if shown else ": the gain in single answers alone is not shown."))
  return sentences


def learning_rates(study):
  rates = {}
  for (_, method, _), run in study.runs.items():
    optimizer = run.config.get("optimizer")
    if isinstance(optimizer, dict) and "learning_rate" in optimizer:
      rates.setdefault(method, set()).add(str(optimizer["learning_rate"]))
  told_rates = "" if study.crowd else ", ".join(
    f"{study.methods[method]} {' and '.join(sorted(values))}" for method, values in rates.items())
  return ("The size of every effect depends on the learning rate and the length of training"
          + (f" (here: {told_rates})" if told_rates else "")
          + ": one rate a method was run, so the sign and the matched comparison are the result, not the size.")


def mixed_base(study):
  """The assumption behind any gain outside the distribution, if the starts were trained on careless answers or are
  unknown.
  """
  shares = {value for run in study.starts.values() for key, value in _careless(run.config)}
  if shares:
    return (
      "The starts were pre-trained on mixed-quality answers (share of careless ones: "
      f"{', '.join(sorted(map(str, shares)))}), "
      "which is an assumption: a gain outside the distribution is headroom in that start that reinforcement "
      "brings out. A "
      "start without such headroom can give none, or a loss."
    )
  return (
    "What a start can already do is an assumption of the study: a gain outside the distribution is ability of the "
    "start that "
    "reinforcement brings out, so a start without headroom shared by both distributions may show none."
  )


def _careless(config, depth=0):
  for key, value in config.items():
    if isinstance(value, dict) and depth < 8:
      yield from _careless(value, depth + 1)
    elif "careless" in str(key) and isinstance(value, (int, float)) and value:
      yield key, value


def limits(study, effects, judged):
  """The sentences of "What does not hold", most damaging first."""
  at = min(study.temperatures, default=0.0)
  bases = len({key[0] for key in effects.comparison.at})
  sentences = []
  if bases < 2:
    sentences.append(
      "THERE IS ONE BASE MODEL. Every interval below is over episodes only: it says how this one base would do on "
      "other episodes, and nothing about other bases. No claim about methods can rest on it."
    )
  for claim in judged:
    if claim.verdict != HOLDS:
      sentences.append(
        f"{claim.text} ({labels.temperature_label(claim.temperature)}): {claim.verdict}. {told(claim.estimate)}; "
        f"{claim.reason}."
      )
  if study.crowd:
    sentences.append(
      f"{len(study.methods)} methods are ordered by what came out, so the first of them is partly the luckiest: "
      "neighbours whose intervals overlap are not told apart, and no interval is corrected for the number of methods.")
  else:
    sentences += ahead_in_distribution(study, effects, at)
    sentences += [text for text in [early_stopping(study, effects, t) for t in study.temperatures] if text]
    for temperature in study.temperatures:
      sentences += retries(study, effects, temperature)
  sentences += [learning_rates(study), mixed_base(study)]
  for method in study.others:
    width = effects.brackets.get((method, at), math.nan)
    if math.isfinite(width):
      sentences.append(f"The matched comparison reads {study.reference_label} between two evaluations that are "
                       f"{100 * width:.0f} points of {labels.variant_label(study.id)} apart on average; its curve "
                       "between them is "
                       "assumed straight.")
  if 2 <= bases:
    sentences.append(
      f"With {bases} bases a percentile interval is too narrow: bases are drawn from {bases} bases. That is why the t "
      "interval over bases stands beside it and a claim has to pass both. "
      + (f"No interval is corrected for the number of claims ({len(judged)})." if judged else "")
    )
  return tuple(sentences + list(study.disclosure))


def checks(study):
  """Sanity of the comparison: [(what, passed, detail)]; equal starts mean equal greedy outcomes at step 0."""
  rows, compared, differing = [], 0, []
  for base in study.bases:
    for variant in study.variants:
      first = {}
      for key, run in study.runs.items():
        curve = run.curve(variant, 0.0)
        if key[0] == base and curve and curve[0].step == 0 and curve[0].outcomes.size:
          first[run.name] = curve[0].outcomes.tobytes()
      compared += len(first) > 1
      if len(set(first.values())) > 1:
        differing.append(f"base-{base} on {variant}")
  if compared:
    detail = "differ on " + "; ".join(differing) if differing else f"{compared} groups of runs agree episode by episode"
    rows.append(("All runs of a base start from the same model (greedy outcomes at step 0)", not differing, detail))
  spent = [(run.name, alarms.skipped(run)) for run in study.runs.values()]
  bad = [f"{name}: {count:g}" for name, count in spent if count]
  rows.append(("No step was skipped for a non-finite loss or gradient", not bad, "; ".join(bad) or "none in any run"))
  for run in study.runs.values():
    for alarm in alarms.raised(run):
      rows.append((f"{run.name}: no alarm {alarm.name}", False, alarm.told))
  return tuple(rows)
