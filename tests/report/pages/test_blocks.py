import re

import pytest
from PIL import Image

from sftrl_jax.report.pages import blocks

HOSTILE = (
  "<script>alert(1)</script> ![x](http://evil/p.png) [y](javascript:z) `a` | b ``` \x1b[31m\x00 \u202e \ud800 & _u_"
)


def everything(path):
  return [
    blocks.Heading(HOSTILE), blocks.Text(HOSTILE), blocks.Bullets((HOSTILE,)), blocks.Notice(HOSTILE, (HOSTILE,)),
    blocks.Table((HOSTILE,), ((HOSTILE,),), HOSTILE), blocks.Picture(path, HOSTILE),
    blocks.Code(HOSTILE + "\n```\n# x"), blocks.Transcripts(((HOSTILE, ((HOSTILE, HOSTILE, HOSTILE),)),)),
  ]


def test_hostile_text_is_text_in_both_formats(tmp_path):
  (tmp_path / "p.png").write_bytes(b"x")
  report = blocks.write(HOSTILE, everything(tmp_path / "p.png"), tmp_path)
  html, markdown = report.read_text(), (tmp_path / "report.md").read_text()
  assert "<script" not in html and "<img" in html and html.count("<img") == 1
  assert "default-src 'none'" in html
  outside = "".join(part for i, part in enumerate(markdown.split("````")) if i % 2 == 0)
  assert "<script" not in outside and set(re.findall(r"(?<!\\)\]\((.*?)\)", outside)) == {"p.png", "p.csv"}
  for text in (html, markdown):
    assert not set("\x00\x1b\u202e\ud800") & set(text)


def test_a_conversation_shows_what_was_seen(tmp_path):
  """A PNG is in the page and beside the report; what is no PNG, or is not there, is left out."""
  seen, hostile, missing = (tmp_path / f"{name}.png" for name in ("0f", "x](y", "none"))
  Image.new("RGB", (3, 2), "red").save(seen)
  hostile.write_text("<svg onload=alert(1)>")
  turns = tuple(("user", "q", "", path) for path in (seen, hostile, missing))
  out = tmp_path / "report"
  html = blocks.write("run", [blocks.Transcripts((("start", (*turns, ("assistant", "r", ""))),))], out).read_text()
  assert html.count("<img") == 1 and "svg" not in html and len(re.findall("<pre>", html)) == 4
  assert [path.name for path in out.glob("*.png")] == ["seen_0f.png"]
  assert (out / "seen_0f.png").read_bytes() == seen.read_bytes()
  assert re.findall(r"!\[.*?\]\((.*?)\)", (out / "report.md").read_text()) == ["seen_0f.png"]


def test_a_table_row_stays_one_row():
  text = blocks.markdown_of(blocks.Table(("a", "b"), (("x|y\nz", "1"),)))
  assert len(text.split("\n")) == 3 and r"x\|y z" in text


def test_code_cannot_close_its_fence():
  lines = blocks.fenced("a\n`````\nb").split("\n")
  assert lines[0] == lines[-1] == "``````"


def test_verdicts_are_coloured():
  text = blocks.html_of(blocks.Table(("a",), (("holds",), ("does not hold",), ("other",))))
  assert '<td class="good">holds' in text and '<td class="bad">does not hold' in text and "<td>other" in text


def test_only_blocks_make_a_report():
  with pytest.raises(ValueError, match=r"blocks of report/pages/blocks.py"):
    blocks.html_of("<b>")
  with pytest.raises(ValueError, match=r"blocks of report/pages/blocks.py"):
    blocks.markdown_of("x")
