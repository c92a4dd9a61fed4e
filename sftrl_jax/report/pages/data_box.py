"""The rows that a run on the user's own data read, and its accuracy on held-out pairs, as blocks."""

from sftrl_jax.report.labels import percent, plain
from sftrl_jax.report.pages.blocks import Block, Heading, Table, Text
from sftrl_jax.report.read_workdir import read_json, read_lines
from sftrl_jax.report.records import Run, number

ACCURACY = "rewards/accuracies"


def data_blocks(run: Run) -> list[Block]:
  """The account of every row; [] for a run whose data follow from its config."""
  path = run.directory / "data.json"
  if not path.is_file():
    return _heldout_pairs(run)
  content = read_json(path)
  replay = content.get("mix") if isinstance(content.get("mix"), dict) else {}
  parts = [(content, run.name)] if content.keys() - {"mix"} else []   # demonstrations have no account, replay may
  parts += [(replay, f"{run.name}, replay")] if replay else []
  blocks = [block for part, name in parts for block in _source_blocks(part, name)]
  return [*_heldout_pairs(run), *([Heading("Data")] if blocks else []), *blocks]


def _source_blocks(content: dict, name: str) -> list[Block]:
  """The account of one source of rows."""
  read, kept, truncated, tokens, learned = (
      f"{number(content.get(key)):,.0f}" for key in ("read", "kept", "truncated", "tokens", "label_tokens"))
  packed = content.get("packed") if isinstance(content.get("packed"), dict) else {}
  rows = [
      ("file", str(content.get("path", ""))),
      ("format", str(content.get("format", ""))),
      ("rows", f"{read} read, {kept} kept, {truncated} truncated"),
      ("tokens", f"{tokens}, of which {learned} are learned"),
      ("packed", f"{number(packed.get('rows')):,.0f} rows a pass, {percent(number(packed.get('filled')))} full"),
      ("held out", f"{number(packed.get('held')):,.0f} examples"),
      ("sha256", str(content.get("sha256", "")))]
  if (overlap := number(packed.get("overlap"))) > 0:
    rows.append(("held out and trained on", f"{overlap:,.0f} examples"))
  ignored = content.get("ignored") if isinstance(content.get("ignored"), list) else []
  pairs = [pair for pair in ignored if isinstance(pair, list) and len(pair) == 2]
  rows += [("not read", ", ".join(f"{name} ({number(count):,.0f})" for name, count in pairs))] if pairs else []
  notes = [note for note in content.get("notes", []) if isinstance(note, dict)]
  rows += [("warning", f"{number(note.get('count')):,.0f} {note.get('what', '')}: {note.get('example', '')}")
           for note in notes]
  dropped = [group for group in content.get("dropped", []) if isinstance(group, dict)]
  rows += [("dropped", f"{number(group.get('count')):,.0f} {group.get('reason', '')} "
                       f"({', '.join(map(str, group.get('first', [])))})") for group in dropped]
  table = Table(("data", name), tuple((key, plain(value, 200)) for key, value in rows))
  return [table, Text("The first example; in double brackets what is learned: "
                      f"{plain(content.get('example', ''), 600)}")]


def _heldout_pairs(run: Run) -> list[Block]:
  """Accuracy on held-out pairs of each variant, from the start to the last evaluation; [] where none was measured."""
  lines = [line for _, line in read_lines(run.directory / "evals.jsonl") if "pairs" in line]
  rows = []
  for variant in dict.fromkeys(str(line.get("variant", "")) for line in lines):
    first, *_, last = 2 * [line for line in lines if str(line.get("variant", "")) == variant]
    low, high = last["ci95"] if isinstance(last.get("ci95"), list) and len(last["ci95"]) == 2 else (None, None)
    rates = [percent(number(rate)) for rate in (first.get(ACCURACY), last.get(ACCURACY), low, high)]
    rows.append((run.labels.variant(variant), rates[0], f"{rates[1]} ({rates[2]} to {rates[3]})",
                 f"{number(last.get('pairs')):,.0f}"))
  if not rows:
    return []
  return [Heading("Held-out pairs"),
          Table(("variant", "start", "in the right order, last (95%)", "pairs"), tuple(rows))]
