"""A report as blocks, written as Markdown and as one self-contained HTML page.

Text that a run wrote is hostile: every string passes through `escape` of its format on the way out, and there is no way
to put raw markup into a block.
"""

import base64
import dataclasses
import html as html_text
import pathlib
import re
from collections.abc import Iterable, Sequence

from sftrl_jax.report.labels import plain

Turn = tuple[str, str, str] | tuple[str, str, str, pathlib.PurePath]  # (role, text, note), and a PNG file
LARGEST_PNG = 2**20   # bytes; a larger file, or another, is left out


@dataclasses.dataclass(frozen=True)
class Heading:
  text: str
  level: int = 2


@dataclasses.dataclass(frozen=True)
class Text:
  text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
  items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Notice:
  """A box that a reader cannot miss."""

  title: str
  items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells are text; those that are keys of TONES are coloured good, bad or unsure."""

  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  caption: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
  """A .png beside the report; its .csv is linked."""

  path: pathlib.Path
  caption: str


@dataclasses.dataclass(frozen=True)
class Code:
  text: str


@dataclasses.dataclass(frozen=True)
class Transcripts:
  """Conversations side by side: `columns` of (title, turns)."""

  columns: tuple[tuple[str, tuple[Turn, ...]], ...]


Block = Heading | Text | Bullets | Notice | Table | Picture | Code | Transcripts

TONES = {"holds": "good", "does not hold": "bad", "too few bases": "unsure", "passed": "good", "FAILED": "bad",
         "complete": "good", "missing": "bad"}

STYLE = """
:root { color-scheme: light dark; --ink: #1f2329; --soft: #5b6470; --line: #e1e4e8; --back: #ffffff; --card: #f6f7f9;
  --accent: #2b6cb0; --warn: #fff4e5; --warn-line: #d98a2b; --good: #2f7d54; --bad: #b23b2e; --unsure: #92660f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4b1; --line: #343a43; --back: #16191e;
  --card: #1e2229; --accent: #7db3ea; --warn: #33291a; --warn-line: #d98a2b; --good: #6cc596; --bad: #f08c7e;
  --unsure: #e2b663; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 16px/1.58 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.95rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.015em; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .7rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.04rem; margin: 1.7rem 0 .4rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
li { margin: .35rem 0; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.4; font-variant-numeric: tabular-nums;
  width: 100%; }
caption, figcaption { text-align: left; color: var(--soft); font-size: .86rem; line-height: 1.45; padding: .45rem 0; }
caption { caption-side: bottom; }
th, td { text-align: left; padding: .42rem .8rem .42rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
td:first-child { font-weight: 550; overflow-wrap: break-word; min-width: 8rem; }
td.good { color: var(--good); font-weight: 650; } td.bad { color: var(--bad); font-weight: 650; }
td.unsure { color: var(--unsure); font-weight: 650; } td.number { white-space: nowrap; }
figure { margin: 1.4rem 0; }
figure img { width: 100%; display: block; background: #fff; border-radius: 6px; padding: .5rem;
  border: 1px solid var(--line); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem;
  overflow-x: auto; font-size: .84rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.notice { background: var(--warn); border-left: 4px solid var(--warn-line); border-radius: 4px; padding: .7rem 1rem;
  margin: 1.2rem 0; }
.notice ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.transcripts { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; margin: 1rem 0; }
.transcript { border: 1px solid var(--line); border-radius: 8px; padding: .8rem; background: var(--card);
  min-width: 0; }
.transcript h4 { margin: 0 0 .6rem; font-size: .95rem; }
.turn { margin: .6rem 0; font-size: .82rem; } .turn b { color: var(--soft); font-weight: 600; font-size: .76rem; }
.turn pre { margin: .15rem 0 0; background: var(--back); padding: .5rem .6rem; font-size: .78rem; max-height: 20rem;
  overflow: auto; }
.turn img { width: 100%; max-width: 24rem; display: block; margin: .25rem 0; border-radius: 4px;
  image-rendering: pixelated; }
.assistant pre { border-left: 3px solid var(--accent); }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def escape(text: str) -> str:
  return html_text.escape(plain(text), quote=True)


def escape_markdown(text: str) -> str:
  """Text that Markdown prints as it is: markup and HTML lose their meaning, a line break becomes a space."""
  text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
  text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", text)
  return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def fenced(text: str) -> str:
  """A code block whose fence is longer than any run of backticks inside."""
  text = plain(text)
  fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
  return f"{fence}\n{text}\n{fence}"


def markdown_of(block: Block) -> str:
  """A block as Markdown; ValueError for anything else."""
  e = escape_markdown
  match block:
    case Heading(text, level):
      return f"{'#' * level} {e(text)}"
    case Text(text):
      return re.sub(r"^([#+-]|\d+\.)", r"\\\1", e(text))
    case Bullets(items):
      return "\n".join(f"- {e(item)}" for item in items)
    case Notice(title, items):
      return "\n".join([f"> **{e(title)}**", ">", *(f"> - {e(item)}" for item in items)])
    case Table(header, rows, caption):
      lines = [map(e, header), ("---" for _ in header), *(map(e, row) for row in rows)]
      return "\n".join(f"| {' | '.join(line)} |" for line in lines) + (f"\n\n*{e(caption)}*" if caption else "")
    case Picture(path, caption):
      name = path.stem
      return f"![{e(name)}]({name}.png)\n\n*{e(caption)}* ([data]({name}.csv))"
    case Code(text):
      return fenced(text)
    case Transcripts(columns):
      parts = []
      for title, turns in columns:
        parts.append(f"**{e(title)}**")
        parts += [f"{e(role)}{': ' + e(note) if note else ''}\n\n{_markdown_seen(seen)}{fenced(text)}"
                  for role, text, note, *seen in turns]
      return "\n\n".join(parts)
  raise _not_a_block(block)


def html_of(block: Block) -> str:
  """A block as HTML; ValueError for anything else."""
  match block:
    case Heading(text, level):
      return f"<h{level}>{escape(text)}</h{level}>"
    case Text(text):
      return f"<p>{escape(text)}</p>"
    case Bullets(items):
      return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
    case Notice(title, items):
      inner = "".join(f"<li>{escape(item)}</li>" for item in items)
      return f'<div class="notice" role="alert"><strong>{escape(title)}</strong><ul>{inner}</ul></div>'
    case Table():
      return _html_table(block)
    case Picture(path, caption):
      data = base64.b64encode(path.read_bytes()).decode("ascii")
      return (f'<figure><img alt="{escape(path.stem)}" src="data:image/png;base64,{data}">'
              f"<figcaption>{escape(caption)} (data: {escape(path.stem)}.csv)</figcaption></figure>")
    case Code(text):
      return f"<pre>{escape(text)}</pre>"
    case Transcripts(columns):
      return '<div class="transcripts">' + "".join(_html_transcript(*column) for column in columns) + "</div>"
  raise _not_a_block(block)


def _not_a_block(value: object) -> ValueError:
  return ValueError(f"A report consists of the blocks of report/pages/blocks.py; got {type(value).__name__}.")


def _html_table(table: Table) -> str:
  head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
  body = "".join("<tr>" + "".join(map(_html_cell, row)) + "</tr>" for row in table.rows)
  caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
  return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _html_cell(text: str) -> str:
  tone = TONES.get(text) or ("number" if re.fullmatch(r"[-+−–\d.,%()→† to]{1,34}", text) else "")
  return f'<td class="{tone}">{escape(text)}</td>' if tone else f"<td>{escape(text)}</td>"


def _html_transcript(title: str, turns: Iterable[Turn]) -> str:
  parts = [f'<div class="transcript"><h4>{escape(title)}</h4>']
  for role, text, note, *seen in turns:
    side = "assistant" if role == "assistant" else "other"
    suffix = f" · {escape(note)}" if note else ""
    parts.append(f'<div class="turn {side}"><b>{escape(role)}{suffix}</b>{_html_seen(seen)}'
                 f"<pre>{escape(text)}</pre></div>")
  return "".join(parts) + "</div>"


def _png(path: pathlib.PurePath) -> bytes:
  """The bytes of a PNG file that a run wrote, b"" for anything else."""
  try:
    content = path.read_bytes() if path.stat().st_size <= LARGEST_PNG else b""
  except OSError:
    return b""
  return content if content.startswith(b"\x89PNG\r\n\x1a\n") else b""


def _html_seen(seen: Sequence[pathlib.PurePath]) -> str:
  return "".join(f'<img alt="what was seen" src="data:image/png;base64,{base64.b64encode(content).decode("ascii")}">'
                 for path in seen if (content := _png(path)))


def _markdown_seen(seen: Sequence[pathlib.PurePath]) -> str:
  return "".join(f"![what was seen]({_beside(path)})\n\n" for path in seen if _png(path))


def _beside(path: pathlib.PurePath) -> str:
  """The name of a picture of an episode beside the report."""
  return f"seen_{re.sub('[^0-9a-zA-Z]', '_', path.stem)}.png"


def _write_seen(blocks: Iterable[Block], out: pathlib.Path) -> None:
  """The pictures of all conversations, as files that report.md links."""
  for block in blocks:
    turns = [turn for _, turns in block.columns for turn in turns] if isinstance(block, Transcripts) else []
    for path in dict.fromkeys(path for _, _, _, *seen in turns for path in seen):
      if content := _png(path):
        (out / _beside(path)).write_bytes(content)


def write(title: str, blocks: Iterable[Block], out: pathlib.Path) -> pathlib.Path:
  """Writes report.md and report.html into `out`; returns the path of the latter."""
  out.mkdir(parents=True, exist_ok=True)
  blocks = [Heading(title, 1), *blocks]
  _write_seen(blocks, out)
  (out / "report.md").write_text("\n\n".join(map(markdown_of, blocks)) + "\n", encoding="utf-8")
  body = "\n".join(map(html_of, blocks))
  page = ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
          '<meta name="viewport" content="width=device-width, initial-scale=1">'
          f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
          f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n")
  (out / "report.html").write_text(page, encoding="utf-8")
  return out / "report.html"
