"""What a study shows and what it does not: verdicts on claims and the sentences of "What does not hold"."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from sftrl_jax.report import labels
from sftrl_jax.report.records import Study
from sftrl_jax.report.stats import alarms
from sftrl_jax.report.stats.bootstrap import Estimate
from sftrl_jax.report.stats.effects import Effects

MIN_BASES = 3
HOLDS, FAILS, FEW = "holds", "does not hold", "too few bases"


@dataclasses.dataclass(frozen=True)
class Claim:
  """A directed statement about one estimate.

  `sign` +1 claims it is above zero, -1 below. `verdict` is one of HOLDS, FAILS, FEW.
  """

  text: str
  temperature: float
  sign: int
  estimate: Estimate
  verdict: str
  reason: str


def judge(estimate: Estimate, sign: int) -> tuple[str, str]:
  """(verdict, reason): a claim holds if both intervals are on its side of zero and at least three bases back it."""
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


def judge_claims(study: Study, effects: Effects) -> tuple[Claim, ...]:
  """Every claim of the comparison at every temperature for which there is an estimate.

  The claims are about SFT and RL: () for a study of many methods or of a reference of its own.
  """
  if study.named_reference or study.has_many_methods:
    return ()
  sft = study.reference_label
  inside, outside = study.labels.variant(study.id), study.labels.variant(study.ood)
  candidates = []
  for method in study.compared_methods:
    label = study.methods[method]
    candidates += [
        (f"{label} raises success on {outside}", 1, ("change", method, study.ood)),
        (f"{sft} lowers success on {outside}", -1, ("change", study.reference, study.ood)),
        (f"{label} ends ahead of {sft} on {outside} at equal FLOPs", 1, ("gap", method, study.ood)),
        (f"{label} is ahead of {sft} on {outside} at the same success on {inside}", 1, ("matched", method, study.ood)),
        (f"{label} raises success on {inside}", 1, ("change", method, study.id))]
  candidates.append((f"{sft} raises success on {inside}", 1, ("change", study.reference, study.id)))
  claims = []
  for text, sign, effect in dict.fromkeys(candidates):
    for temperature in study.temperatures:
      estimate = effects.find(*effect, temperature)
      if estimate is not None and estimate.bases:
        claims.append(Claim(text, temperature, sign, estimate, *judge(estimate, sign)))
  return tuple(claims)


def _in_words(estimate: Estimate) -> str:
  """+8.2 points (95%: +4.7 to +11.3)."""
  return f"{labels.points(estimate.value)} points (95%: {labels.points_range(*estimate.wider)})"


def _early_stopping(study: Study, effects: Effects, temperature: float) -> str:
  """What stopping SFT early does to its harm; "" if nothing was measured or there is no harm."""
  harm = effects.find("change", study.reference, study.ood, temperature)
  best = effects.find("early_best", study.reference, study.ood, temperature)
  if harm is None or best is None or harm.value >= 0:
    return ""
  inside = effects.find("early_best", study.reference, study.id, temperature)
  name, decoding = study.reference_label, labels.temperature_label(temperature)
  removes = "removes most of" if 1 - best.value / harm.value >= 0.5 else "leaves most of"
  text = (f"Early stopping {removes} {name}'s harm ({decoding}): at its best evaluation on "
          f"{study.labels.variant(study.ood)} the change from the start is {_in_words(best)} instead of "
          f"{_in_words(harm)}")
  if inside is not None:
    text += f", and {study.labels.variant(study.id)} has then changed by {_in_words(inside)}"
  text += (". That evaluation was picked by looking at the shifted variant itself, so this is the most early stopping "
           "could give.")
  unseen = effects.find("early_unseen", study.reference, study.ood, temperature)
  if unseen is not None:
    text += (" Stopping where held-out in-distribution success is best, which needs no look at the shift, gives "
             f"{_in_words(unseen)}.")
  return text


def _ahead_in_distribution(study: Study, effects: Effects, temperature: float) -> list[str]:
  """A sentence for each method that SFT beats in distribution at equal FLOPs."""
  sentences = []
  for method in study.compared_methods:
    gap = effects.find("gap", method, study.id, temperature)
    if gap is not None and gap.value < 0:
      doubt = "" if gap.wider[1] < 0 else ", although the interval touches zero"
      sentences.append(
          f"{study.reference_label} is ahead in distribution at equal FLOPs ({labels.temperature_label(temperature)}): "
          f"{study.methods[method]} minus {study.reference_label} on {study.labels.variant(study.id)} is "
          f"{_in_words(gap)}{doubt}. For the training distribution alone it is the better choice.")
  return sentences


def _retries(study: Study, effects: Effects, temperature: float) -> list[str]:
  """Whether a shifted gain is there at the first attempt, or comes from using the verifier's feedback."""
  sentences = []
  for method in study.compared_methods:
    within, first = (effects.find("change", method, study.ood, temperature, tries) for tries in (0, 1))
    if effects.attempts == 1 or within is None or first is None or within.value <= 0:
      continue
    shown = judge(first, 1)[0] == HOLDS
    sentences.append(
        f"{study.methods[method]}'s gain on {study.labels.variant(study.ood)} "
        f"({labels.temperature_label(temperature)}) is {_in_words(within)} within {effects.attempts} attempts and "
        f"{_in_words(first)} at the first attempt"
        + ("." if shown else ": the gain in single answers alone is not shown."))
  return sentences


def _learning_rates(study: Study) -> str:
  rates = {}
  for (_, method, _), run in study.runs.items():
    optimizer = run.config.get("optimizer")
    if isinstance(optimizer, dict) and "learning_rate" in optimizer:
      rates.setdefault(method, set()).add(str(optimizer["learning_rate"]))
  listed = "" if study.has_many_methods else ", ".join(
      f"{study.methods[method]} {' and '.join(sorted(values))}" for method, values in rates.items())
  return ("The size of every effect depends on the learning rate and the length of training"
          + (f" (here: {listed})" if listed else "")
          + ": one rate a method was run, so the sign and the matched comparison are the result, not the size.")


def mixed_base(study: Study) -> str:
  """The assumption behind any shifted gain: what the starts were trained on, careless answers or unknown."""
  shares = {value for run in study.starts.values() for value in _careless_shares(run.config)}
  if shares:
    return ("The starts were pre-trained on mixed-quality answers (share of careless ones: "
            f"{', '.join(sorted(map(str, shares)))}), which is an assumption: a gain outside the distribution is "
            "headroom in that start that reinforcement brings out. A start without such headroom can give none, or a "
            "loss.")
  return ("What a start can already do is an assumption of the study: a gain outside the distribution is ability of "
          "the start that reinforcement brings out, so a start without headroom shared by both distributions may show "
          "none.")


def _careless_shares(config: dict, depth: int = 0) -> Iterator[float]:
  for key, value in config.items():
    if isinstance(value, dict) and depth < 8:
      yield from _careless_shares(value, depth + 1)
    elif "careless" in str(key) and isinstance(value, (int, float)) and value:
      yield value


def limits(study: Study, effects: Effects, claims: Sequence[Claim]) -> tuple[str, ...]:
  """The sentences of "What does not hold", most damaging first."""
  lowest = min(study.temperatures, default=0.0)
  bases = effects.comparison.bases
  sentences = []
  if bases < 2:
    sentences.append("THERE IS ONE BASE MODEL. Every interval below is over episodes only: it covers other episodes of "
                     "this one base, not other bases. No claim about methods can rest on it.")
  for claim in claims:
    if claim.verdict != HOLDS:
      sentences.append(f"{claim.text} ({labels.temperature_label(claim.temperature)}): {claim.verdict}. "
                       f"{_in_words(claim.estimate)}; {claim.reason}.")
  if study.has_many_methods:
    sentences.append(
        f"{len(study.methods)} methods are ordered by their results, so the first of them is partly the luckiest: "
        "methods whose intervals overlap are not distinguished, and no interval is corrected for the number of "
        "methods.")
  else:
    sentences += _ahead_in_distribution(study, effects, lowest)
    sentences += filter(None, (_early_stopping(study, effects, temperature) for temperature in study.temperatures))
    for temperature in study.temperatures:
      sentences += _retries(study, effects, temperature)
  sentences += [_learning_rates(study), mixed_base(study)]
  for method in study.compared_methods:
    width = effects.brackets.get((method, lowest), math.nan)
    if math.isfinite(width):
      sentences.append(f"The matched comparison reads {study.reference_label} between two evaluations that are "
                       f"{100 * width:.0f} points of {study.labels.variant(study.id)} apart on average; its curve "
                       "between them is assumed straight.")
  if 2 <= bases:
    sentences.append(
        f"With {bases} bases a percentile interval is too narrow: bases are drawn from {bases} bases. The t interval "
        "over bases knows nothing of episodes, and is too narrow where an effect depends on them. That is why the "
        "wider of the two is shown and a claim has to pass both. "
        + (f"No interval is corrected for the number of claims ({len(claims)})." if claims else ""))
  return tuple(sentences + list(study.disclosure))


def checks(study: Study) -> tuple[tuple[str, bool, str], ...]:
  """Sanity of the comparison: [(check, passed, detail)]; equal starts mean equal greedy outcomes at step 0."""
  rows, compared, differing = [], 0, []
  for base in study.bases:
    for variant in study.variants:
      outcomes = {}
      for key, run in study.runs.items():
        curve = run.curve(variant, 0.0)
        if key[0] == base and curve and curve[0].step == 0 and curve[0].outcomes.size:
          outcomes[run.name] = curve[0].outcomes.tobytes()
      compared += len(outcomes) > 1
      if len(set(outcomes.values())) > 1:
        differing.append(f"base-{base} on {variant}")
  if compared:
    detail = "differ on " + "; ".join(differing) if differing else f"{compared} groups of runs agree episode by episode"
    rows.append(("All runs of a base start from the same model (greedy outcomes at step 0)", not differing, detail))
  counts = [(run.name, alarms.skipped(run)) for run in study.runs.values()]
  skipping = [f"{name}: {count:g}" for name, count in counts if count]
  rows.append(("No step was skipped for a non-finite loss or gradient", not skipping,
               "; ".join(skipping) or "none in any run"))
  for run in study.runs.values():
    for alarm in alarms.raised(run):
      rows.append((f"{run.name}: no alarm {alarm.name}", False, alarm.summary))
  return tuple(rows)
