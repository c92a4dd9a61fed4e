"""`sftrl data`: writes an environment's demonstrations into a file that TRL, and `sftrl sft` with data.path, read.

A row is `prompt` and `completion`, both lists of messages. TRL trains on the completion of such rows alone, as our own
SFT does on a demonstration. Row i is demonstration i of the config's seed.
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from sftrl_jax.data.demonstrations import Demonstration, DemonstrationsConfig, demonstration, refuse
from sftrl_jax.data.read import needed
from sftrl_jax.envs import nothing
from sftrl_jax.paths import named_errors
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
    part = out.with_name(f".{out.name}.part")
    try:
      with named_errors(out):
        WRITERS[out.suffix](rows, part)
      part.replace(out)
    finally:
      part.unlink(missing_ok=True)
  print(f"Written: {out}, {count:,} demonstrations of {variant or 'the training task'}, {len(hashes):,} of them "
        f"different.\nTo train on it: sftrl sft --config=configs/sft/chat.py --config.data.path={out} --workdir=...")


def refuse_out(out: Path) -> None:
  """Raises ConfigError for a file that cannot be, or must not be, written."""
  if out.suffix not in WRITERS:
    raise ConfigError(f"--out={out}: rows are written as {' or '.join(WRITERS)}: give such a file.")
  if out.exists():
    raise ConfigError(f"--out={out} is there already: remove it, or give another file.")
  refuse_file("--out", out.parent)


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
  messages with a flag on every response."""
  chat = shown.chat
  if any(message.image is not None for message in chat):
    raise ConfigError("This environment shows pictures, which rows of text cannot hold: choose a variant without.")
  messages = [{"role": message.role, "content": message.text} for message in chat]
  responses = [message for message in messages if message["role"] == "assistant"]
  if not whole:
    return {"prompt": messages[:-1], "completion": messages[-1:]}
  for number, message in enumerate(responses):
    message["train"] = number in shown.learned
  return {"messages": messages}


def _recorded(rows: Iterator[dict], hashes: set[int]) -> Iterator[dict]:
  """Passes rows on and puts their hashes into `hashes`, so that the caller can count distinct rows afterwards."""
  for each in rows:
    hashes.add(hash(json.dumps(each)))
    yield each


def _write_jsonl(rows: Iterator[dict], path: Path) -> None:
  with path.open("w", encoding="utf-8") as file:
    for each in rows:
      file.write(json.dumps(each, ensure_ascii=False) + "\n")


def _write_parquet(rows: Iterator[dict], path: Path) -> None:
  pyarrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
  fields = [("role", pyarrow.string()), ("content", pyarrow.string())]
  first = next(rows)
  fields += [("train", pyarrow.bool_())] if "messages" in first else []
  schema = pyarrow.schema([(name, pyarrow.list_(pyarrow.struct(fields))) for name in first])
  rows = itertools.chain([first], rows)
  with parquet.ParquetWriter(path, schema) as file:
    while chunk := list(itertools.islice(rows, CHUNK)):
      file.write_table(pyarrow.Table.from_pylist(chunk, schema))


WRITERS = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
