"""`sftrl data`: writes an environment's demonstrations into a file that TRL, and `sftrl sft` with data.path, read.

A row is `prompt` and `completion`, both lists of messages. TRL trains on the completion of such rows alone, as our own
SFT does on a demonstration. Row i is demonstration i of the config's seed. Pictures are PNG files in a folder beside
the rows: a column `images` has their paths, in order, and each {"type": "image"} of a message's parts stands for one.
"""

import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from sftrl_jax.chat import Message
from sftrl_jax.data.demonstrations import Demonstration, DemonstrationsConfig, demonstration, refuse
from sftrl_jax.data.read import needed
from sftrl_jax.envs import nothing
from sftrl_jax.paths import named_errors
from sftrl_jax.pictures.read import png
from sftrl_jax.programs.config.errors import ConfigError, refuse_file
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.programs.experiment.environment import make_env, variant_env
from sftrl_jax.programs.runtime.lock import only_output

COUNT = 1000
CHUNK = 1024   # rows of Parquet in memory at once


def run(config: dict, out: Path, variant: str = "", count: int = COUNT) -> None:
  """Writes `count` demonstrations of the training task, or of one of its variants, to `out`; prints a summary.

  config: a resolved config of sft or rl as plain dicts

  Raises ConfigError before anything is written; an error later leaves no file.
  """
  refuse_out(out)
  shown = stream(config, variant)
  whole = config.get("data", {}).get("points") == "all"   # one form of row in a file
  hashes = set()
  rows = _recorded((row(shown(index), whole) for index in range(count)), hashes)
  with only_output(out, "--out"):
    refuse_out(out)   # again: another process may have written it meanwhile
    part, pictures = out.with_name(f".{out.name}.part"), out.with_name(f".{pictures_of(out).name}.part")
    try:
      with named_errors(out):
        WRITERS[out.suffix](_drawn(rows, pictures, pictures_of(out).name), part)
        if pictures.exists():
          pictures.replace(pictures_of(out))
      part.replace(out)
    finally:
      part.unlink(missing_ok=True)
      shutil.rmtree(pictures, ignore_errors=True)
  example = "FILE.py (whose model reads pictures)" if pictures_of(out).exists() else "configs/sft/chat.py"
  print(f"Written: {out}, {count:,} demonstrations of {variant or 'the training task'}, {len(hashes):,} of them "
        f"different.\nTo train on it: sftrl sft --config={example} --config.data.path={out} --workdir=...")


def refuse_out(out: Path) -> None:
  """Raises ConfigError for a file that cannot be, or must not be, written."""
  if out.suffix not in WRITERS:
    raise ConfigError(f"--out={out}: rows are written as {' or '.join(WRITERS)}: give such a file.")
  if out.exists():
    raise ConfigError(f"--out={out} is there already: remove it, or give another file.")
  if pictures_of(out).exists():
    raise ConfigError(f"--out={out} has its pictures in {pictures_of(out)}, which is there already: remove it, or give "
                      "another file.")
  refuse_file("--out", out.parent)


def pictures_of(out: Path) -> Path:
  """The folder of the pictures of a file of rows."""
  return out.with_name(f"{out.stem}_images")


def parse_count(text: str) -> int:
  """Reads --count; ConfigError for anything but a number of rows."""
  if not text.isdecimal() or not 0 < int(text) < 10**9:
    raise ConfigError(f"--count is {text!r}, but should be a number of rows from 1 to 999999999.")
  return int(text)


def stream(config: dict, variant: str) -> Callable[[int], Demonstration]:
  """Returns the function index -> demonstration of a config's task; ConfigError if it has no such demonstrations."""
  if config["env"]["name"] == nothing.NAME:
    raise ConfigError(f"config.env.name is {nothing.NAME!r}, which has no demonstrations to write: give the config of "
                      "a task, such as configs/general_points/sft.py.")
  env = make_env(config["env"], config["reward"], config.get("own_reward"))
  if variant:
    if variant not in env.variants:
      raise ConfigError(f"--variant is {variant!r}, but {config['env']['name']} has {', '.join(env.variants)}.")
    env = variant_env({**config["env"], **config["evals"]["env"]}, variant, config["reward"], config.get("own_reward"))
  section = config.get("data", {})
  # A config of rl has no section `data`, and that of rows or pairs has other keys: all of these get the defaults.
  fields = {key: value for key, value in section.items() if key != "path"} if "attempts" in section else {}
  demonstrations = build(DemonstrationsConfig, fields, "config.data")
  try:
    refuse(env, demonstrations)
  except ValueError as error:
    raise ConfigError(str(error)) from error
  return functools.partial(demonstration, env, demonstrations, config["seed"])


def row(shown: Demonstration, whole: bool) -> dict:
  """Returns a demonstration as a row: its last message, which alone is learned, is the completion; or, of a whole walk,
  messages with a flag on every response. `images` are its pictures, as arrays; a row without any has no such key."""
  images = [message.image for message in shown.chat if message.image is not None]
  messages = [{"role": message.role, "content": _content(message, bool(images))} for message in shown.chat]
  responses = [message for message in messages if message["role"] == "assistant"]
  seen = {"images": images} if images else {}
  if not whole:
    return {"prompt": messages[:-1], "completion": messages[-1:], **seen}
  for number, message in enumerate(responses):
    message["train"] = number in shown.learned
  return {"messages": messages, **seen}


def _content(message: Message, in_parts: bool) -> str | list[dict]:
  """The text of a message; in_parts: as TRL's rows with pictures have it, one form for every message of a file."""
  if not in_parts:
    return message.text
  return [{"type": "image"}] * (message.image is not None) + [{"type": "text", "text": message.text}]


def _recorded(rows: Iterator[dict], hashes: set[int]) -> Iterator[dict]:
  """Passes rows on and puts their hashes into `hashes`, so that the caller can count distinct rows afterwards."""
  for each in rows:
    texts = {key: value for key, value in each.items() if key != "images"}
    hashes.add(hash((json.dumps(texts), *(image.tobytes() for image in each.get("images", ())))))
    yield each


def _drawn(rows: Iterator[dict], folder: Path, name: str) -> Iterator[dict]:
  """Writes the pictures of each row into `folder`, and passes the row on with their paths from where the rows lie.

  name: of the folder once it is whole
  """
  for number, each in enumerate(rows):
    if "images" in each:
      folder.mkdir(exist_ok=True)
      files = [f"{number:06d}_{place}.png" for place in range(len(each["images"]))]
      for file, image in zip(files, each["images"], strict=True):
        (folder / file).write_bytes(png(image))
      each = {**each, "images": [f"{name}/{file}" for file in files]}
    yield each


def _write_jsonl(rows: Iterator[dict], path: Path) -> None:
  with path.open("w", encoding="utf-8") as file:
    for each in rows:
      file.write(json.dumps(each, ensure_ascii=False) + "\n")


def _write_parquet(rows: Iterator[dict], path: Path) -> None:
  pyarrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
  first = next(rows)
  part = pyarrow.struct([("type", pyarrow.string()), ("text", pyarrow.string())])
  fields = [("role", pyarrow.string()), ("content", pyarrow.list_(part) if "images" in first else pyarrow.string())]
  fields += [("train", pyarrow.bool_())] if "messages" in first else []
  schema = pyarrow.schema([(name, pyarrow.list_(pyarrow.string() if name == "images" else pyarrow.struct(fields)))
                           for name in first])
  rows = itertools.chain([first], rows)
  with parquet.ParquetWriter(path, schema) as file:
    while chunk := list(itertools.islice(rows, CHUNK)):
      file.write_table(pyarrow.Table.from_pylist(chunk, schema))


WRITERS = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
