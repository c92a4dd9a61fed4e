"""Rows of files: each with file and number, and every broken one told where it is."""

import json
import socket

import pytest

from sftrl_jax.data import lines as json_lines
from sftrl_jax.data.read import files, located, read

CHAT = {"messages": [{"role": "user", "content": "ä"}, {"role": "assistant", "content": "b"}], "id": 7}
CHATS = {"messages": CHAT["messages"]}


def lines(path, *written):
  path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode()
                              for line in written))
  return path


def test_lines_have_the_number_of_their_line_and_blank_ones_are_no_rows(tmp_path):
  path = lines(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + json.dumps(CHAT).encode(), b"", b"  \r", {"text": "x"})
  rows = list(read(str(path)))
  assert [(row.file, row.number, row.value, row.columns) for row in rows] == [
      (str(path), 1, CHAT, ("messages", "id")), (str(path), 4, {"text": "x"}, ("text",))]


def test_an_array_and_lines_and_parquet_give_the_same_rows(tmp_path):
  pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  rows = [CHAT, {**CHAT, "id": 8}, {**CHAT, "id": 9}]
  (tmp_path / "a.json").write_text(" \n" + json.dumps(rows, indent=1))
  (tmp_path / "b.json").write_text("\n".join(map(json.dumps, rows)))
  parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
  rows = [[(row.number, row.value, row.columns) for row in read(str(tmp_path / name))]
          for name in ("a.json", "b.json", "c.parquet")]
  assert rows[0] == rows[1]
  assert rows[0] == [(number, {**CHAT, "id": 6 + number}, ("messages", "id")) for number in (1, 2, 3)]
  assert rows[2] == [(number, CHATS, ("messages", "id")) for number in (1, 2, 3)]   # no other column is fetched


def test_the_files_of_a_directory_are_read_by_name(tmp_path):
  (tmp_path / "deep").mkdir()
  for name in ("b.jsonl", "a.jsonl", "deep/c.ndjson", ".hidden.jsonl"):
    lines(tmp_path / name, {"text": name})
  (tmp_path / "README.md").write_text("#")
  assert [row.value["text"] for row in read(str(tmp_path))] == ["a.jsonl", "b.jsonl", "deep/c.ndjson"]
  lines(tmp_path / "test-0.jsonl", {"text": "secret"})
  lines(tmp_path / "train-0.jsonl", {"text": "x"})
  with pytest.raises(ValueError, match=r"files of several splits \(test, train\)"):
    files(tmp_path)


FAULTS = {
    "bad UTF-8": (b'{"text": "\xff"}', "no UTF-8", "byte 11 of the line (0xff) is no UTF-8"),
    "NUL": (b'{"text": "a\0b"}', "no text", "byte 12 of the line is NUL"),
    "half an object": (b'{"text": "a"', "no JSON", "the line is no JSON: Expecting ',' delimiter at character 13"),
    "a text": (b'"text"', "no object", "is a text, but a row is an object"),
    "a list": (b"[1]", "no object", "is an array"),
    "a tower": (b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "no JSON", "nested too deeply"),
    "a number without end": (b'{"text": ' + b"1" * 5000 + b"}", "no JSON", "4300 digits"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_broken_line_is_a_fault_and_the_next_is_read(case, tmp_path):
  line, reason, message = FAULTS[case]
  path = lines(tmp_path / "a.jsonl", {"text": "one"}, line, {"text": "three"})
  first, broken, third = read(str(path))
  assert (first.fault, third.fault, third.number) == (None, None, 3)
  assert broken.number == 2 and broken.fault.reason == reason and message in broken.fault.message


def test_a_line_without_end_is_never_held(tmp_path, monkeypatch):
  monkeypatch.setattr(json_lines, "MOST", 100)
  path = lines(tmp_path / "a.jsonl", {"text": "x" * 950}, {"text": "y" * 80}, {"text": "z" * 100})
  first, second, third = read(str(path))
  assert first.fault.reason == third.fault.reason == "too long"
  assert first.fault.message.startswith("the line has 963 bytes, but a row has at most 100")
  assert second.value == {"text": "y" * 80} and (second.number, third.number) == (2, 3)


def unreadable(tmp_path):
  """{name: what is told of a path}"""
  (tmp_path / "sub").mkdir()
  (tmp_path / "sub" / "README.md").write_text("#")
  lines(tmp_path / "array.jsonl", b"[", CHAT, b"]")
  (tmp_path / "torn.json").write_text('[{"text": "a"},\n {"text": ')
  (tmp_path / "two.json").write_text('[{"text": "a"}] [{"text": "b"}]')
  (tmp_path / "comma.json").write_text('[{"text": "a"}\n{"text": "b"}]')
  (tmp_path / "latin.json").write_bytes(b'[{"text": "a"},\n {"text": "\xe4"}]')
  (tmp_path / "table.csv").write_text("a,b")
  (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
  return {
      "array.jsonl": "row 1: begins with '[', but a line is one row", "nowhere.jsonl": "no such file or directory",
      "torn.json": "row 2 (line 2): the array is no JSON: Expecting value", "two.json": "text follows the end of the",
      "comma.json": "row 1 (line 2): the array is no JSON: a comma", "table.csv": "rows are read from .jsonl, .ndjson",
      "latin.json": "line 2: byte 28 of the file (0xe4) is no UTF-8", "sub": "a directory without any .jsonl",
      "torn.parquet": "cannot be read as Parquet", "not here/at all": "no such file or directory"}


def test_what_cannot_be_read_at_all_is_told(tmp_path):
  for name, message in unreadable(tmp_path).items():
    if name.endswith(".parquet"):
      pytest.importorskip("pyarrow")
    with pytest.raises(ValueError) as error:
      list(read(str(tmp_path / name)))
    assert message in str(error.value) and name.split("/")[0] in str(error.value), error.value


def test_columns_of_parquet_are_chosen_before_anything_is_read(tmp_path):
  pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  parquet.write_table(pyarrow.Table.from_pylist([{"question": "a", "answer": "b"}]), tmp_path / "a.parquet")
  with pytest.raises(ValueError, match="has the columns question, answer; a row needs `messages`"):
    list(read(str(tmp_path / "a.parquet")))
  column = pyarrow.array([b"fine", b"\xff"]).view(pyarrow.string())
  parquet.write_table(pyarrow.table({"text": column}), tmp_path / "b.parquet")
  fine, broken = read(str(tmp_path / "b.parquet"))
  assert fine.value == {"text": "fine"} and (broken.number, broken.fault.reason) == (2, "no UTF-8")


def test_a_data_set_saved_to_disk_is_read_by_its_split(tmp_path):
  datasets = pytest.importorskip("datasets")
  rows = datasets.Dataset.from_list([{"text": "a", "n": 1}, {"text": "b", "n": 2}])
  datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(str(tmp_path / "saved"))
  assert [row.value for row in read(str(tmp_path / "saved"))] == [{"text": "a"}, {"text": "b"}]
  assert [row.columns for row in read(str(tmp_path / "saved"), split="test")] == [("text", "n")]
  with pytest.raises(ValueError, match="config.data.split is 'dev', but .* has train, test"):
    list(read(str(tmp_path / "saved"), split="dev"))


def test_the_hub_out_of_reach_is_one_clear_error(monkeypatch):
  datasets = pytest.importorskip("datasets")
  monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)   # what is set by the reader is put back

  def unknown(*where):
    raise socket.gaierror("Name or service not known")
  monkeypatch.setattr(socket, "getaddrinfo", unknown)
  with pytest.raises(ValueError, match="path is 'nobody/nothing-at-all': .*hub could not be had.*Without net"):
    list(read("nobody/nothing-at-all"))


def test_a_path_is_the_same_from_everywhere_and_a_name_on_the_hub_stays(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "here").mkdir()
  lines(tmp_path / "a.jsonl", {"text": "x"})
  assert located("a.jsonl") == str(tmp_path / "a.jsonl")
  assert located("here/missing") == str(tmp_path / "here" / "missing")   # `here` is a directory, no owner
  assert located("owner/b.jsonl") == str(tmp_path / "owner" / "b.jsonl")
  assert located("HuggingFaceTB/smoltalk") == "HuggingFaceTB/smoltalk"
  assert located("~/x.jsonl").endswith("/x.jsonl") and "~" not in located("~/x.jsonl")


def test_tables_are_read_with_the_types_of_json(tmp_path):
  """Bytes, as Spark and DuckDB write texts, but of pictures; maps; and keys that other rows have, which are null."""
  pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  tools = [{"n": "f", "more": {"a": 1, "b": None}}, {"n": "g", "more": {"a": None, "b": 2}}]
  message = pyarrow.struct([("role", pyarrow.binary()), ("content", pyarrow.large_string()),
                            ("name", pyarrow.string())])
  table = pyarrow.table({
      "messages": pyarrow.array([[{"role": b"user", "content": "a", "name": None}], None, []], pyarrow.list_(message)),
      "text": pyarrow.array([None, "\ufeffä".encode(), b"\xff\xfe"], pyarrow.binary()),
      "tools": pyarrow.array([tools, None, None]), "image": pyarrow.array([b"\xff"] * 3),
      "chat_template_kwargs": pyarrow.array([[("a", 1)]] * 3, pyarrow.map_(pyarrow.string(), pyarrow.int32()))})
  parquet.write_table(table, tmp_path / "a.parquet")
  first, second, third = read(str(tmp_path / "a.parquet"))
  assert first.value == {"messages": [{"role": "user", "content": "a"}], "text": None, "chat_template_kwargs": {"a": 1},
                         "image": b"\xff", "tools": [{"n": "f", "more": {"a": 1}}, {"n": "g", "more": {"b": 2}}]}
  assert first.columns == ("messages", "tools", "image", "chat_template_kwargs") and second.value["text"] == "ä"
  assert third.fault.column == "text" and "is binary, but should be text: byte 1 (0xff)" in str(third.fault)
  parquet.write_table(pyarrow.table({"text": pyarrow.nulls(2)}), tmp_path / "b.parquet")
  assert [row.columns for row in read(str(tmp_path / "b.parquet"))] == [(), ()]
