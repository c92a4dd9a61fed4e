"""Pictures of rows: read from wherever they are, decoded when they are needed, and a bad one told by its row."""

import dataclasses
import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sftrl_jax.data import packing
from sftrl_jax.data.pairs.batches import load_pairs
from sftrl_jax.data.pairs.rows import PairsConfig
from sftrl_jax.data.rows import RowsConfig, load
from sftrl_jax.pictures import read
from sftrl_jax.text.images import ImageReader
from sftrl_jax.text.tokenizer import byte

HEIGHT, WIDTH, TOKENS = 2, 3, 2
PIXELS = [np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8) for number in range(9)]
PICTURE, ANSWER = {"type": "image"}, {"role": "assistant", "content": "a"}


def reading(images=2):
  tokenizer = byte(image=True)
  return dataclasses.replace(tokenizer, reader=ImageReader(tokenizer.image, TOKENS, HEIGHT, WIDTH, images))


def user(*words):
  """A message of parts: None is a picture."""
  return {"role": "user", "content": [PICTURE if word is None else {"type": "text", "text": word} for word in words]}


def row(numbers, words="q"):
  """A row with these pictures of the files p0.png, p1.png, ..."""
  return {"messages": [user(*[None] * len(numbers), words), ANSWER], "images": [f"p{number}.png" for number in numbers]}


@pytest.fixture
def home(tmp_path):
  for number, pixels in enumerate(PIXELS):
    (tmp_path / f"p{number}.png").write_bytes(read.png(pixels))
  return tmp_path


def written(home, *rows):
  path = home / "rows.jsonl"
  path.write_text("".join(json.dumps(each) + "\n" for each in rows))
  return str(path)


def pictures_of(corpus, *examples):
  return [pixels.tolist() for pixels in corpus.pictures.pixels(examples)]


def test_a_picture_is_the_same_by_path_and_by_bytes_in_every_kind_of_file(home):
  chat, count = [user(None, "q"), {"role": "assistant", "content": [{"type": "text", "text": "a"}]}], 4
  path = [f"p{number}.png" for number in range(count)]
  files = {"relative": written(home, *({"messages": chat, "images": [name]} for name in path))}
  corpora = [load(RowsConfig(files["relative"]), reading())]
  for form in (lambda name: {"images": [str(home / name)]}, lambda name: {"image": name},
               lambda name: {"images": [{"bytes": None, "path": name}]}):
    corpora.append(load(RowsConfig(written(home, *({"messages": chat, **form(name)} for name in path))), reading()))
  own = [{"messages": [{"role": "user", "content": [{"type": "image", "image": name}, {"type": "text", "text": "q"}]},
                       ANSWER]} for name in path]
  corpora.append(load(RowsConfig(written(home, *own)), reading()))
  pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  datasets = pytest.importorskip("datasets")
  encoded = [{"bytes": (home / name).read_bytes(), "path": name} for name in path]
  table = pyarrow.Table.from_pylist([{"messages": chat, "images": [each["bytes"]]} for each in encoded])
  parquet.write_table(table, home / "bytes.parquet")
  features = datasets.Features({"messages": [{"role": datasets.Value("string"), "content": [
      {"type": datasets.Value("string"), "text": datasets.Value("string")}]}], "images": [datasets.Image()]})
  saved = datasets.Dataset.from_list([{"messages": chat, "images": [each]} for each in encoded], features)
  saved.save_to_disk(str(home / "saved"))
  saved.to_parquet(str(home / "image.parquet"))
  corpora += [load(RowsConfig(str(home / name)), reading()) for name in ("bytes.parquet", "saved", "image.parquet")]
  for corpus in corpora:
    assert corpus.tokens.tolist() == corpora[0].tokens.tolist() and corpus.report.pictures == (count, count)
    assert pictures_of(corpus, *range(count)) == [pixels.tolist() for pixels in PIXELS[:count]]
    assert corpus.report.sha256 == corpora[0].report.sha256


def test_pictures_are_decoded_by_the_batch_and_equal_ones_are_kept_once(home, monkeypatch):
  """40 rows of 2 pictures are checked once a picture; a batch decodes its own alone, and the corpus holds none."""
  decoded = []
  decode = read.read
  monkeypatch.setattr(read, "read", lambda source, name="": decoded.append(name) or decode(source, name))
  settings = RowsConfig(written(home, *(row([number % 2], f"q{number}") for number in range(40))), length=20)
  corpus = load(settings, reading(1))
  assert len(decoded) == 2 and corpus.report.pictures == (40, 2)
  batch, _ = packing.make_batches(corpus, settings, np.arange(40), 0, 3)(0)
  assert len(decoded) == 5 and batch.inputs.images_BIYXC.shape == (3, 1, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("pack", [True, False])
def test_every_row_of_a_batch_has_its_own_pictures_in_order(home, pack):
  """Rows with 2, 0 and 1 pictures, shuffled and packed: the pictures of a sequence are those of its row."""
  kinds = [[0, 1], [], [2], [3, 0], [4], [], [5]]
  settings = RowsConfig(written(home, *(row(kind, f"q{number}") for number, kind in enumerate(kinds))), length=40,
                        pack=pack)
  tokenizer = reading()
  corpus, cursor, seen = load(settings, tokenizer), 0, set()
  next_batch = packing.make_batches(corpus, settings, np.arange(len(kinds)), 3, 2)
  while cursor < len(kinds):
    batch, cursor = next_batch(cursor)
    for place in range(2):
      pictures = iter(batch.inputs.images_BIYXC[place])
      for segment in range(1, batch.inputs.segments_BT[place].max() + 1):
        ids = batch.inputs.tokens_BT[place][batch.inputs.segments_BT[place] == segment]
        number = int(tokenizer.decode([token for token in ids.tolist() if token != tokenizer.image]).split("q")[1][0])
        seen.add(number)
        assert (ids == tokenizer.image).sum() == TOKENS * len(kinds[number])
        for kind in kinds[number]:
          np.testing.assert_array_equal(next(pictures), PIXELS[kind])
      assert not np.any(list(pictures))   # what is unused is blank
  assert seen == set(range(len(kinds)))


def bomb():
  """A PNG of 60000 x 60000 pixels in a few bytes."""
  chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) + chunk(
      b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def wide():
  stream = io.BytesIO()
  Image.new("1", (30_000, 1)).save(stream, "PNG")
  return stream.getvalue()


BAD = {
    "cut off": (lambda: read.png(PIXELS[0])[:50], "bad.png is no picture that can be read"),
    "no picture": (lambda: b"hello", "bad.png is no picture that can be read"),
    "30,000 pixels": (wide, "bad.png has 30000 x 1 pixels, and at most 16384 a side"),
    "a bomb": (bomb, "bad.png has far more than 67108864 pixels"),
    "another size": (lambda: read.png(PIXELS[0][:1]), r"A picture is uint8 \(1, 3, 3\), but config.model reads"),
    "missing": (lambda: None, "bad.png cannot be read .no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_picture_is_told_by_its_row_or_dropped_and_counted(home, case):
  content, message = BAD[case]
  if content():
    (home / "bad.png").write_bytes(content())
  path = written(home, row([0]), {**row([0]), "images": ["bad.png"]}, row([1]))
  with pytest.raises(ValueError, match=rf"rows.jsonl, row 2, column images.0.: .*{message}.*on_bad_row=skip"):
    load(RowsConfig(path), reading())
  report = load(RowsConfig(path, on_bad_row="skip", max_dropped=0.5), reading()).report
  assert (report.kept, report.dropped[0].reason, report.dropped[0].first) == (
      2, "unreadable pictures", ("rows.jsonl:2",))


@pytest.mark.parametrize(("wrong", "message"), [
    ({**row([0]), "images": ["p0.png", "p1.png"]}, "images: has 2 pictures, but the messages have 1 part"),
    ({**row([0]), "images": []}, "images: has no pictures, but the messages have 1 part"),
    (row([0, 1, 2]), "images: has 3 pictures in a packed row .*--config.model.images=3 or more"),
    ({**row([0]), "images": [3]}, r"images\[0\]: is a number, but should be a path, or bytes"),
    ({**row([0]), "images": ["https://x/y.png"]}, r"images\[0\]: is the address 'https://x/y.png'"),
    ({**row([0]), "image": "p1.png"}, "pictures in both images and image"),
    ({"text": "a", "images": ["p0.png"]}, "images: has pictures, whose places are in messages"),
    ({"messages": [user("q"), {"role": "assistant", "content": [PICTURE, {"type": "text", "text": "a"}]}],
      "images": ["p0.png"]}, "a response is text")])
def test_a_row_whose_pictures_do_not_fit_is_told(home, wrong, message):
  with pytest.raises(ValueError, match=rf"row 2, column .*{message}"):
    load(RowsConfig(written(home, row([0]), wrong)), reading())


def test_a_model_of_text_refuses_pictures_before_a_step(home):
  texts = {"messages": [{"role": "user", "content": "q"}, ANSWER]}
  for wrong in (row([0]), {**texts, "images": ["p0.png"]}):
    with pytest.raises(ValueError, match=r"row 2, column .*(only parts of type 'text'|the model reads text only)"):
      load(RowsConfig(written(home, texts, wrong)), byte())
  assert load(RowsConfig(written(home, texts, {**texts, "images": []})), byte()).count == 2


def test_a_row_with_pictures_is_dropped_and_never_cut(home):
  """Of 4 ids and 2 placeholders, with limits inside the block, behind it, and at the end."""
  rows = [row([0], "q" * 9), {"messages": [{"role": "user", "content": "q" * 99}, ANSWER]}, row([1], "q")]
  sizes = [len(load(RowsConfig(written(home, each)), reading()).tokens) for each in rows]
  for length, kept in ((sizes[0] - 1, 2), (sizes[0] - 2, 1), (sizes[2] - 1, 1)):
    report = load(RowsConfig(written(home, *rows), length=length, max_dropped=1.0), reading()).report
    assert report.kept == kept and not report.truncated
    assert [each.reason for each in report.dropped if "rows.jsonl:1" in each.first] == ["longer than data.length"] * (
        kept == 1)
  with pytest.raises(ValueError, match="none of 3 rows can be trained on: .*longer than data.length"):
    load(RowsConfig(written(home, *rows), length=3, max_dropped=1.0), reading())


def test_labels_are_the_answer_alone_and_another_picture_is_another_example(home):
  corpus = load(RowsConfig(written(home, row([0]), row([1]), row([0]))), reading())
  (ids, learned), (other, labels), _ = (corpus.example(number) for number in range(3))
  assert ids.tolist() == other.tolist() and learned.tolist() == labels.tolist()
  assert learned.sum() == 2 and not learned[ids == reading().image].any()
  assert corpus.report.duplicates == 1   # the third alone
  swapped = load(RowsConfig(written(home, row([1]), row([0]), row([1]))), reading())
  assert swapped.tokens.tolist() == corpus.tokens.tolist() and swapped.report.sha256 != corpus.report.sha256


def test_a_file_that_has_changed_is_an_error_and_never_another_picture(home):
  corpus = load(RowsConfig(written(home, row([0]), row([1]))), reading())
  (home / "p1.png").write_bytes(read.png(PIXELS[5]))
  assert pictures_of(corpus, 0) == [PIXELS[0].tolist()]
  with pytest.raises(ValueError, match="p1.png has changed since the rows were read"):
    corpus.pictures.pixels([1])


def test_both_sides_of_a_pair_have_the_pictures_of_its_prompt(home):
  prompt = [user(None, "q")]
  pair = lambda number, chosen: {"prompt": prompt, "chosen": [{"role": "assistant", "content": chosen}],
                                 "rejected": [ANSWER], "images": [f"p{number}.png"]}
  whole = {"chosen": [*prompt, {"role": "assistant", "content": "d"}], "rejected": [*prompt, ANSWER],
           "images": ["p2.png"]}
  texts = {"prompt": "q", "chosen": "x", "rejected": "y"}
  path = written(home, pair(0, "b"), pair(1, "c"), whole, texts)
  corpus = load_pairs(PairsConfig(path, length=200), reading(4))
  assert corpus.pictured[0].tolist() == [2, 2, 2, 0]
  batch = corpus.laid([np.asarray([1, 3, 0]), np.asarray([2])], 2, 200)
  want = [[PIXELS[1]] * 2 + [PIXELS[0]] * 2, [PIXELS[2]] * 2 + [0 * PIXELS[0]] * 2]
  np.testing.assert_array_equal(batch.inputs.images_BIYXC, want)
  assert not batch.weights_BT[batch.targets_BT == reading().image].any()
  chosen = load(RowsConfig(path, format="chosen"), reading(1))
  assert pictures_of(chosen, 0, 1, 2, 3) == [PIXELS[number].tolist() for number in range(3)]
  with pytest.raises(ValueError, match="row 1, column images: has 2 pictures .*--config.model.images=2"):
    load_pairs(PairsConfig(path, length=200), reading(1))
