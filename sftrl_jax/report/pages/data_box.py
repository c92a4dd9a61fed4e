"""What a run on rows of one's own has read: its data.json as blocks of page.py."""

from sftrl_jax.report import labels, read_workdir
from sftrl_jax.report.pages.blocks import Heading, Table, Text


def data(run):
  """The account of every row; nothing for a run whose data follow from its config."""
  path = run.directory / "data.json"
  if not path.is_file():
    return []
  told = read_workdir.read_json(path)
  count = lambda key: read_workdir.number(told.get(key))
  packed = told.get("packed") if isinstance(told.get("packed"), dict) else {}
  rows = [
    ("file", str(told.get("path", ""))),
    ("format", str(told.get("format", ""))),
    ("rows", f"{count('read'):,.0f} read, {count('kept'):,.0f} kept, {count('truncated'):,.0f} truncated"),
    ("tokens", f"{count('tokens'):,.0f}, of which {count('label_tokens'):,.0f} are learned"),
    ("packed", f"{read_workdir.number(packed.get('rows')):,.0f} rows a pass, "
               f"{labels.percent(read_workdir.number(packed.get('filled')))} full"),
    ("held out", f"{read_workdir.number(packed.get('held')):,.0f} examples"),
    ("sha256", str(told.get("sha256", ""))),
  ]
  dropped = [each for each in told.get("dropped", []) if isinstance(each, dict)]
  rows += [("dropped", f"{read_workdir.number(each.get('count')):,.0f} {each.get('reason', '')} "
                       f"({', '.join(map(str, each.get('first', [])))})") for each in dropped]
  shown = Table(("data", run.name), tuple((key, labels.plain(value, 200)) for key, value in rows))
  return [Heading("Data"), shown, Text(f"The first example; in double brackets what is learned: "
                                       f"{labels.plain(told.get('example', ''), 600)}")]
