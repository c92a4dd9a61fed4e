"""The numbers of a study with their intervals: changes, gaps between methods, early stopping and matched success.

Every quantity is computed inside each resample of bases, seeds and hands (bootstrap.py), so an interpolation or a
difference carries the noise of all that went into it. Which evaluation counts as "early stopping" is chosen once, on
the data as they are.
"""

import dataclasses

import numpy as np

from sftrl_jax.report.stats import bootstrap, flops_axis


@dataclasses.dataclass(frozen=True)
class Effect:
  """One estimate and what it is of.

  `quantity`: start, end, change, gap (method minus SFT at equal FLOPs), matched (the same at matched success in
  distribution), early_best (SFT at its best shifted evaluation, minus its start), early_unseen (SFT where held-out
  success peaks, minus start), memory (change on the pairs seen in training minus change on those held out).
  `attempts`: right within so many attempts.
  """
  quantity: str
  method: str
  variant: str
  temperature: float
  attempts: int
  estimate: bootstrap.Estimate


@dataclasses.dataclass(frozen=True)
class Effects:
  """All effects of a study.

  `notes` say what was interpolated or left out; `brackets`, by (method, temperature), how far apart in success the two
  evaluations of SFT were between which a matched point was read.
  """
  rows: tuple
  notes: tuple
  brackets: dict
  comparison: flops_axis.Comparison
  attempts: int

  def find(self, quantity, method, variant, temperature, attempts=0):
    """The estimate, or None if the study does not hold it; attempts 0 means all of them."""
    wanted = (quantity, method, variant, temperature, attempts or self.attempts)
    for row in self.rows:
      if (row.quantity, row.method, row.variant, row.temperature, row.attempts) == wanted:
        return row.estimate
    return None


@dataclasses.dataclass(frozen=True)
class Curve:
  """A run's resampled success on one variant and temperature: flops [K], means [R+1, K] by number of attempts."""
  flops: np.ndarray
  means: dict
  hands: int


def resampled_curves(study, keys, resamples):
  """{(run key, variant, temperature): Curve} of the runs compared, and the largest number of attempts.

  Runs pair by hand, so all of them must have played the same hands of a variant; ValueError otherwise.
  """
  curves, most = {}, 1
  for variant in study.variants:
    slots, vectors, played = [], [], {}
    for key in keys:
      for temperature in study.temperatures:
        evaluations = study.runs[key].curve(variant, temperature)
        for evaluation in evaluations:
          if not evaluation.outcomes.size:
            raise ValueError(
              f"{study.runs[key].directory}/evals.jsonl: step {evaluation.step}, {variant} has no outcomes, one "
              "digit an episode, without which runs cannot be paired. Evaluate its checkpoints again."
            )
          played[(evaluation.seed, evaluation.episodes, evaluation.attempts)] = study.runs[key].directory
        tries = sorted({1, evaluations[0].attempts}) if evaluations else []
        slots += [(key, temperature, attempts, np.array([e.flops for e in evaluations])) for attempts in tries]
        vectors += [e.within(attempts) for attempts in tries for e in evaluations]
    if len(played) > 1:
      places = "; ".join(f"{run}: seed {s}, {n} episodes, {a} attempts" for (s, n, a), run in played.items())
      raise ValueError(
        f"Runs of a study pair by episode, but {variant} was evaluated differently ({places}). Give every run the "
        "same evals section."
      )
    if not vectors:
      continue
    means, start = bootstrap.hand_means(np.stack(vectors), variant, resamples), 0
    for key, temperature, attempts, flops in slots:
      known = curves.setdefault((key, variant, temperature), Curve(flops, {}, len(vectors[0])))
      known.means[attempts] = means[:, start:start + len(flops)]
      start, most = start + len(flops), max(most, attempts)
  return curves, most


def measure(study, resamples=bootstrap.RESAMPLES):
  """Every effect of the study's finished runs as Effects (empty where nothing has been trained yet)."""
  chosen = flops_axis.comparison(study)
  curves, most = resampled_curves(study, list(chosen.at), resamples)
  rows, notes, brackets = [], list(chosen.notes), {}
  for temperature in study.temperatures:
    rows += plain_effects(study, chosen, curves, temperature)
    rows += early_effects(study, chosen, curves, temperature)
    rows += memory_effects(study, chosen, curves, temperature)
    for method in () if study.crowd else study.others:
      found, said, width = matched_effect(study, chosen, curves, temperature, method)
      rows, notes = rows + found, notes + said
      brackets[method, temperature] = width
  return Effects(tuple(rows), tuple(notes), brackets, chosen, most)


def columns(values):
  return np.stack(values, axis=1)


def plain_effects(study, chosen, curves, temperature):
  """start, end and change of every method, and the gap to SFT over the (base, seed) pairs that both have."""
  rows = []
  for variant in study.variants:
    spans = {key: curve for (key, v, t), curve in curves.items() if (v, t) == (variant, temperature)}
    for attempts in sorted({a for curve in spans.values() for a in curve.means}):
      start, end = {}, {}
      for key, curve in spans.items():
        if attempts in curve.means:
          start[key] = curve.means[attempts][:, 0]
          end[key] = flops_axis.read_at(curve.flops, curve.means[attempts], chosen.at[key])
      hands = next(iter(spans.values())).hands

      def effect(quantity, method, values, variant=variant, attempts=attempts, hands=hands):
        if values:
          found = bootstrap.estimate(columns(list(values.values())), [key[0] for key in values], hands)
          rows.append(Effect(quantity, method, variant, temperature, attempts, found))

      for method in study.methods:
        mine = [key for key in start if key[1] == method]
        effect("start", method, {key: start[key] for key in mine})
        effect("end", method, {key: end[key] for key in mine})
        effect("change", method, {key: end[key] - start[key] for key in mine})
        if method != study.reference:
          pairs = {key: (key[0], study.reference, key[2]) for key in mine if (key[0], study.reference, key[2]) in end}
          effect("gap", method, {key: end[key] - end[other] for key, other in pairs.items()})
  return rows


def early_effects(study, chosen, curves, temperature):
  """SFT stopped early, two ways: where shifted success was best (an oracle) and where held-out success was best."""
  rows = []
  for quantity, selector in (("early_best", study.ood), ("early_unseen", study.held_out)):
    changes = {study.id: {}, study.ood: {}}
    for key in chosen.at:
      by = curves.get((key, selector, temperature))
      if key[1] != study.reference or by is None or len(by.flops) < 2:
        continue
      means = by.means[max(by.means)][0]
      best = 1 + int(np.argmax(means[1:]))
      for variant, kept in changes.items():
        curve = curves.get((key, variant, temperature))
        if curve is not None and len(curve.flops) == len(by.flops):
          values = curve.means[max(curve.means)]
          kept[key] = values[:, best] - values[:, 0]
    for variant, kept in changes.items():
      if kept:
        curve = curves[next(iter(kept)), variant, temperature]
        found = bootstrap.estimate(columns(list(kept.values())), [key[0] for key in kept], curve.hands)
        rows.append(Effect(quantity, study.reference, variant, temperature, max(curve.means), found))
  return rows


def memory_effects(study, chosen, curves, temperature):
  """How much more each method gains on seen than on held-out pairs."""
  rows = []
  for method in study.methods:
    values, hands, most = {}, 0, 1
    for key in chosen.at:
      pair = [curves.get((key, variant, temperature)) for variant in (study.id, study.held_out)]
      if key[1] == method and None not in pair:
        tables = [curve.means[max(curve.means)] for curve in pair]
        seen, unseen = (flops_axis.read_at(curve.flops, table, chosen.at[key]) - table[:, 0]
                        for curve, table in zip(pair, tables, strict=True))
        values[key], hands, most = seen - unseen, pair[0].hands, max(pair[0].means)
    if values:
      found = bootstrap.estimate(columns(list(values.values())), [key[0] for key in values], hands)
      rows.append(Effect("memory", method, study.id, temperature, most, found))
  return rows


def matched_effect(study, chosen, curves, temperature, method):
  """Shifted success of `method` minus SFT's where SFT first had the same success in distribution: (rows, notes, mean
  bracket).
  """
  values, notes, widths, hands, most = {}, [], [], 0, 1
  for key in chosen.at:
    other = (key[0], study.reference, key[2])
    if key[1] != method or other not in chosen.at:
      continue
    quads = [curves.get((k, v, temperature)) for k in (key, other) for v in (study.id, study.ood)]
    if any(curve is None for curve in quads) or len(quads[2].flops) != len(quads[3].flops):
      continue
    most, hands = max(quads[1].means), quads[1].hands
    mine_id, mine_ood, sft_id, sft_ood = (curve.means[max(curve.means)] for curve in quads)
    target = flops_axis.read_at(quads[0].flops, mine_id, chosen.at[key])
    ends = flops_axis.read_at(quads[1].flops, mine_ood, chosen.at[key])
    values[key] = ends - flops_axis.first_crossing(sft_id, sft_ood, target)
    place = flops_axis.bracket(sft_id[0], target[0])
    if place:
      widths.append(float(sft_id[0, place[1]] - sft_id[0, place[0]]))
    else:
      why = "starts at or above" if sft_id[0, 0] >= target[0] else "never reaches"
      notes.append(f"Matched comparison, T={temperature:g}: {study.runs[other].name} {why} the {target[0]:.1%} of "
                   f"{study.runs[key].name} in distribution; this pair is left out.")
  if not values:
    return [], notes, float("nan")
  found = bootstrap.estimate(columns(list(values.values())), [key[0] for key in values], hands)
  rows = [Effect("matched", method, study.ood, temperature, most, found)] if found.bases else []
  return rows, notes, float(np.mean(widths)) if widths else float("nan")
