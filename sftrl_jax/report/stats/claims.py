"""What a study shows and what it does not: verdicts on claims and the sentences of "What does not hold"."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from sftrl_jax.report import labels
from sftrl_jax.report.records import Study
from sftrl_jax.report.registered_claim import START, RegisteredClaim
from sftrl_jax.report.stats import alarms
from sftrl_jax.report.stats.bootstrap import MIN_BASES, Estimate
from sftrl_jax.report.stats.effects import Effects

HOLDS, FAILS, FEW = "holds", "does not hold", "too few bases"
HELD, NOT_HELD, CONTRARY, UNMEASURED = "held", "not held", "contrary", "not measured"   # of registered claims


@dataclasses.dataclass(frozen=True)
class Claim:
  """A directed statement about one estimate.

  `sign` +1 claims it is above `bound`, -1 below. `verdict` is one of HOLDS, FAILS, FEW, and of a claim that was
  recorded before the runs started HELD, NOT_HELD, CONTRARY, FEW, UNMEASURED; then `prediction` is what it says, in
  words. `is_level`: the estimate is a rate and no difference.
  """

  text: str
  temperature: float
  sign: int
  estimate: Estimate
  verdict: str
  reason: str
  prediction: str = ""
  is_level: bool = False


def judge(estimate: Estimate, sign: int, bound: float = 0.0) -> tuple[str, str]:
  """(verdict, reason): a claim holds if both intervals are on its side of `bound` and at least three bases back it."""
  distances = [sign * (limit - bound) for limit in (estimate.low, estimate.high, estimate.t_low, estimate.t_high)]
  limit = f"{100 * bound:g}%" if bound else "zero"
  if estimate.bases < MIN_BASES:
    side = "on the claimed side" if sign * (estimate.value - bound) > 0 else "not on the claimed side"
    return FEW, f"{estimate.bases} of at least {MIN_BASES} bases; the estimate is {side}"
  if min(distances) > 0:
    return HOLDS, f"both intervals exclude {limit}"
  if max(distances) < 0:
    return FAILS, f"both intervals exclude {limit} on the other side: the opposite was measured"
  if min(distances[:2]) > 0:
    return FAILS, f"not shown: the t interval over bases touches {limit}"
  return FAILS, f"not shown: the interval touches {limit}"


def judge_registered(study: Study, effects: Effects) -> tuple[Claim, ...]:
  """Every claim that was recorded before the runs started, in their order."""
  claims = []
  for claim in study.claims:
    quantity = {START: "change", "": "end"}.get(claim.comparison, "gap")
    other_method = claim.comparison if quantity == "gap" and claim.comparison != study.reference else ""
    estimate = effects.matched_claims.get(claim) if claim.matched else effects.find(
        quantity, claim.method, claim.variant, claim.temperature, measure=claim.measure, comparison=other_method)
    if estimate is None or not estimate.bases:
      estimate = Estimate(*[math.nan] * 5, bases=0, runs=0, episodes=0, kept=0.0, per_base=())
      verdict, reason = UNMEASURED, (
          f"no finished run rises through {100 * claim.matched:g}% in distribution" if claim.matched
          else "no finished run has been evaluated so")
    else:
      verdict, reason = judge(estimate, claim.sign, claim.bound)
      opposite = "the opposite was measured" in reason
      verdict = {HOLDS: HELD, FAILS: CONTRARY if opposite else NOT_HELD}.get(verdict, verdict)
    claims.append(Claim(claim.text or registered_text(study, claim), claim.temperature, claim.sign, estimate, verdict,
                        reason, _prediction(claim), not claim.comparison))
  return tuple(claims)


def registered_text(study: Study, claim: RegisteredClaim) -> str:
  """A recorded claim in words, where it has none of its own."""
  rate = f"{study.measure_label(claim.measure)} on {study.labels.variant(claim.variant)}"
  method, side = study.methods[claim.method], "at least" if claim.sign > 0 else "at most"
  if claim.matched:
    return _matched_text(study, claim, rate, side)
  if not claim.comparison:
    return f"{method} ends with {side} {100 * claim.bound:g}% {rate}"
  compared = "its start" if claim.comparison == START else f"{study.methods[claim.comparison]} at equal FLOPs"
  if not claim.bound:
    return f"{method} ends {'above' if claim.sign > 0 else 'below'} {compared} in {rate}"
  return f"{method} minus {compared} is {side} {100 * claim.bound:g} points in {rate}"


def _matched_text(study: Study, claim: RegisteredClaim, rate: str, side: str) -> str:
  """As `registered_text`, of a claim that reads where a success in distribution is first reached."""
  method, place = study.methods[claim.method], f"{100 * claim.matched:g}% in distribution"
  if not claim.comparison:
    return f"At {place} {method} has {side} {100 * claim.bound:g}% {rate}"
  if claim.comparison == claim.method:
    subject, compared = f"{method} at its end", f"itself at {place}"
  else:
    subject = f"At {place} {method}"
    compared = "its start" if claim.comparison == START else f"{study.methods[claim.comparison]} at the same"
  if not claim.bound:
    return f"{subject} is {'above' if claim.sign > 0 else 'below'} {compared} in {rate}"
  return f"{subject} minus {compared} is {side} {100 * claim.bound:g} points in {rate}"


def _prediction(claim: RegisteredClaim) -> str:
  """`> 0`, `> +60 points` or `> 95%`."""
  relation = ">" if claim.sign > 0 else "<"
  if not claim.bound:
    return f"{relation} 0"
  return f"{relation} {100 * claim.bound:g}{'%' if not claim.comparison else ' points'}"


def judge_claims(study: Study, effects: Effects) -> tuple[Claim, ...]:
  """Every claim of the comparison at every temperature for which there is an estimate.

  Claims that were recorded before the runs started stand in place of ours, which are about SFT and RL: () for a study
  without any that has many methods or a reference of its own.
  """
  if study.claims:
    return judge_registered(study, effects)
  if study.named_reference or study.has_many_methods:
    return ()
  sft = study.reference_label
  inside, outside = study.labels.variant(study.id), study.labels.variant(study.ood)
  candidates, rate = [], study.measure_label(study.measure)
  for method in study.compared_methods:
    label = study.methods[method]
    candidates += [
        (f"{label} raises {rate} on {outside}", 1, ("change", method, study.ood)),
        (f"{sft} lowers {rate} on {outside}", -1, ("change", study.reference, study.ood)),
        (f"{label} ends ahead of {sft} on {outside} at equal FLOPs", 1, ("gap", method, study.ood)),
        (f"{label} is ahead of {sft} on {outside} at the same {rate} on {inside}", 1, ("matched", method, study.ood)),
        (f"{label} raises {rate} on {inside}", 1, ("change", method, study.id))]
  candidates.append((f"{sft} raises {rate} on {inside}", 1, ("change", study.reference, study.id)))
  claims = []
  for text, sign, effect in dict.fromkeys(candidates):
    for temperature in study.temperatures:
      estimate = effects.find(*effect, temperature)
      if estimate is not None and estimate.bases:
        claims.append(Claim(text, temperature, sign, estimate, *judge(estimate, sign)))
  return tuple(claims)


def _in_words(estimate: Estimate) -> str:
  """+8.2 points (95%: +4.7 to +11.3)."""
  unit = " over episodes" if estimate.unit == "episodes" else ""
  return f"{labels.points(estimate.value)} points (95%{unit}: {labels.points_range(*estimate.wider)})"


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
    within, first = (effects.find("change", method, study.ood, temperature, tries, "success") for tries in (0, 1))
    if effects.attempts == 1 or within is None or first is None or within.value <= 0:
      continue
    shown = judge(first, 1)[0] == HOLDS
    sentences.append(
        f"{study.methods[method]}'s gain on {study.labels.variant(study.ood)} "
        f"({labels.temperature_label(temperature)}) is {_in_words(within)} within {effects.attempts} attempts and "
        f"{_in_words(first)} at the first attempt"
        + ("." if shown else ": the gain in single answers alone is not shown.")
        + (" An attempt is a try at a point, and the first one was right at every point." if study.of_points else ""))
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
  elif bases < MIN_BASES:
    sentences.append(f"THERE ARE {bases} BASE MODELS, WHICH SUPPORT NO INTERVAL OVER BASES. Every interval below is "
                     "over episodes only: it covers other episodes of these bases, not other bases. No claim about "
                     "methods can rest on it.")
  for claim in claims:
    if claim.verdict not in (HOLDS, HELD):
      amount = "no estimate" if not claim.estimate.bases else (
          f"{labels.percent(claim.estimate.value)}" if claim.is_level else _in_words(claim.estimate))
      sentences.append(f"{claim.text} ({labels.temperature_label(claim.temperature)}): {claim.verdict}. "
                       f"{amount}; {claim.reason}.")
  if study.has_many_methods and not study.is_registered:
    sentences.append(
        f"{len(study.methods)} methods are ordered by their results, so the first of them is partly the luckiest: "
        "methods whose intervals overlap are not distinguished, and no interval is corrected for the number of "
        "methods.")
  elif not study.has_many_methods:
    sentences += _ahead_in_distribution(study, effects, lowest)
    sentences += filter(None, (_early_stopping(study, effects, temperature) for temperature in study.temperatures))
    for temperature in study.temperatures:
      sentences += _retries(study, effects, temperature)
  sentences += [_learning_rates(study), mixed_base(study)]
  widths = [effects.bracket(method, lowest) for method in study.compared_methods]
  widths = [f"{100 * width:.0f}" for width in sorted(widths) if math.isfinite(width)]
  if widths:
    apart = " to ".join(dict.fromkeys((widths[0], widths[-1])))
    sentences.append(f"The matched comparison reads {study.reference_label} between two evaluations that are {apart} "
                     f"points of {study.labels.variant(study.id)} apart on average; its curve between them is assumed "
                     "straight.")
  if MIN_BASES <= bases:
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
          outcomes.setdefault(study.bases_of.get(key[1], ""), []).append(curve[0].outcomes.tobytes())
      for group, of_runs in outcomes.items():   # of methods that start from the same models
        compared += len(of_runs) > 1
        if len(set(of_runs)) > 1:
          differing.append(f"base-{base}{'-' if group else ''}{group} on {variant}")
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
