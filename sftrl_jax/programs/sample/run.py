"""`sftrl sample FROM`: samples responses of a model, in a conversation, to one prompt, or to every row of a file."""

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sftrl_jax.models import Model, build
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config.errors import ConfigError, as_local_path, read_json, refuse_file
from sftrl_jax.programs.config.values import LARGEST
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.network.parts import reading_pictures
from sftrl_jax.programs.runtime import interrupt
from sftrl_jax.programs.sample import batch, chat_loop
from sftrl_jax.programs.sample.batch import PromptRow
from sftrl_jax.programs.sample.generate import (
  PIECE,
  ChatSettings,
  Generator,
  alone,
  start_conversation,
  with_room,
)
from sftrl_jax.programs.sample.stopping import StopConditions
from sftrl_jax.programs.start import checkpoint_ref
from sftrl_jax.programs.start.open_model import open_model
from sftrl_jax.rollout.decoding import placement
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text.render import pictures, render, renderings

TEMPERATURE = 0.7   # if the model recommends none: between the likeliest text and the model's own distribution


@dataclasses.dataclass(frozen=True)
class SampleOptions:
  """The options of the command line. Negative numbers leave the choice to the model's generation_config.json.

  prompt: one prompt ("": read from stdin, or a conversation in a terminal)
  system: the system text ("": the chat template's own)
  image: files of pictures before the prompt, or before the first message of a conversation
  rows_in, rows_out: JSONL files
  rows: rows answered together
  raw: take the prompt as it is, without the chat template
  skip: leave out rows that cannot be answered
  dtype: of parameters and activations ("": as the run's config says; else f32 on CPUs, bf16 on accelerators)
  """

  prompt: str = ""
  system: str = ""
  image: tuple[str, ...] = ()
  rows_in: str = ""
  rows_out: str = ""
  temperature: float = -1.0
  top_k: int = -1
  top_p: float = -1.0
  stop: tuple[str, ...] = ()
  seed: int = 0
  max_new_tokens: int = 512
  rows: int = 16
  raw: bool = False
  skip: bool = False
  dtype: str = ""

  def __post_init__(self):
    if bool(self.rows_in) != bool(self.rows_out):
      raise ConfigError("--in and --out belong together: the rows to answer, and the file for the answers.")
    if self.rows_in and self.prompt:
      raise ConfigError("--prompt is one prompt and --in a file of them; give one.")
    if self.raw and self.system:
      raise ConfigError("--raw uses no chat template, so --system has no place: write it into the prompt.")
    if self.image and (self.raw or self.rows_in):
      raise ConfigError("--image is before a prompt of a chat, so --raw and --in have no place for it: leave one out.")
    if self.rows < 1 or self.seed < 0:
      raise ConfigError(f"--rows is {self.rows} and --seed {self.seed}: rows must be at least 1, the seed 0 or more.")
    if not (self.top_p < 0 or 0 < self.top_p <= 1):
      raise ConfigError(f"--top-p is {self.top_p:g}; it must lie in (0, 1].")
    if self.max_new_tokens < 1:
      raise ConfigError(f"--max-new-tokens is {self.max_new_tokens}; it must be at least 1.")
    if not all(self.stop):
      raise ConfigError("--stop is empty; it must be a text that a response can hold.")
    for name in ("top_k", "seed", "max_new_tokens", "rows"):
      if getattr(self, name) > LARGEST:
        raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at most {LARGEST}.")
    if self.temperature > 100:
      raise ConfigError(f"--temperature is {self.temperature:g}; it must lie between 0 (greedy) and 100.")
    if self.dtype not in ("", "float32", "bfloat16"):
      raise ConfigError(f"--dtype is {self.dtype!r}; it must be float32 or bfloat16.")


def read_options(flags: Mapping[str, Any], switches: Set[str] = frozenset()) -> SampleOptions:
  """Reads the flags of a command line, {flag: text} (--stop: a list). Raises ConfigError for a value that is wrong."""
  kinds = {field.name: field.type for field in dataclasses.fields(SampleOptions)}
  names = {"--in": "rows_in", "--out": "rows_out"}
  fields = {}
  for flag, text in flags.items():
    name = names.get(flag, flag.removeprefix("--").replace("-", "_"))
    if kinds.get(name) in (int, float):
      try:
        fields[name] = kinds[name](text)
      except ValueError:
        raise ConfigError(f"{flag}={text} is no {'whole ' if kinds[name] is int else ''}number.") from None
      if not 0 <= fields[name] < math.inf:
        raise ConfigError(f"{flag} is {text}; it must be finite and not negative.")
    elif flag == "--on-bad-row":
      if text not in ("error", "skip"):
        raise ConfigError(f"--on-bad-row is {text!r}; it must be error or skip.")
      fields["skip"] = text == "skip"
    else:
      fields[name] = tuple(text) if flag in ("--stop", "--image") else text
  return SampleOptions(**fields, raw="--raw" in switches)


def run(source: str, options: SampleOptions, overrides: Sequence[tuple[str, str]] = ()) -> None:
  """Samples responses as `options` says.

  source: WORKDIR[@STEP|@best:VARIANT], a Hugging Face directory or hub id, a .gguf file, or smollm2
  overrides: (dotted key, text) of the config of a run
  """
  stop_conditions, images = StopConditions(options.max_new_tokens, options.stop), _read_images(options)
  rows, skipped = [], []
  interactive = not options.rows_in and not options.prompt and sys.stdin.isatty()
  if options.rows_in:
    refuse_file("--out", as_local_path(options.rows_out, "--out").parent)
    rows, skipped = batch.read(as_local_path(options.rows_in, "--in"), options.system, options.raw, options.skip)
  elif not interactive and not options.prompt:
    options = dataclasses.replace(options, prompt=sys.stdin.read().rstrip("\n"))
    if not options.prompt:
      raise ConfigError("No prompt: give --prompt=TEXT, pipe one in, or begin a conversation in a terminal.")
  if interactive and options.raw:
    raise ConfigError("--raw answers one prompt: give --prompt=TEXT or pipe one in.")
  start_time = time.perf_counter()
  with contextlib.ExitStack() as stack:
    generator, temperature, note = load_generator(source, options, overrides, stack)
    _note(f"{note} in {time.perf_counter() - start_time:.1f} s ({generator.model.config.dtype}, temperature "
          f"{temperature:g}). The first tokens wait for compiling.")
    generator = with_room(generator, max([len(images), *(len(row.shown) for row in rows)]))
    settings = ChatSettings(generator, stop_conditions, temperature, jax.random.key(options.seed), images)
    _refuse_images(settings, source)
    if rows:
      _answer_rows(settings, options, source, rows, skipped)
    elif interactive:
      _note(f"{chat_loop.HELP}\n")
      _edit_lines()
      with interrupt.for_conversation():
        chat_loop.converse(settings, options.system, lambda: input("> "), _show)
    else:
      _answer_prompt(settings, options)


def _read_images(options: SampleOptions) -> tuple[np.ndarray, ...]:
  """The pictures of --image; ConfigError for one that cannot be read."""
  if not options.image:
    return ()
  from sftrl_jax.pictures.read import read  # which loads Pillow
  try:
    return tuple(read(as_local_path(file, "--image"), f"--image={file}") for file in options.image)
  except ValueError as error:
    raise ConfigError(str(error)) from error


def _refuse_images(settings: ChatSettings, source: str) -> None:
  """ConfigError for pictures that the model does not read, before anything is compiled."""
  tokenizer = settings.generator.tokenizer
  if settings.images and tokenizer.reader is None:
    raise ConfigError(f"--image is given, but {source} reads text only: give a vision-language model, or leave it out.")
  try:
    _ = [tokenizer.reader.ids(image) for image in settings.images]
  except ValueError as error:
    raise ConfigError(f"--image: {error}") from error


def load_generator(source: str, options: SampleOptions, overrides: Sequence[tuple[str, str]],
                   stack: contextlib.ExitStack) -> tuple[Generator, float, str]:
  """Loads the model that `source` names. Returns it with the temperature and a sentence about what was loaded.

  stack: keeps the generator's mesh and its sharding rules in force until it is closed
  """
  if checkpoint_ref.is_workdir(checkpoint_ref.home_of(source)):
    return _load_run(source, options, overrides, stack)
  if overrides:
    raise ConfigError(f"--config.{overrides[0][0]} changes the config of a run, but {source} is no workdir.")
  mesh = meshes.make(alone(MeshConfig()))
  enter_mesh(mesh, stack)
  opened = open_model(source, options.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16"), mesh)
  if opened.tokenizer is None:
    raise ConfigError(f"{opened.path} has no tokenizer: put the files of one (tokenizer.json) beside the weights.")
  model = build(opened.config, opened.tokenizer.size)
  tokenizer = reading_pictures(opened.tokenizer, model)
  defaults = recommended(opened.path) if opened.kind == "hf" else {}
  return *make_generator(model, tokenizer, opened.params, mesh, options, defaults), f"Loaded {opened.path}"


def _load_run(source: str, options: SampleOptions, overrides: Sequence[tuple[str, str]],
              stack: contextlib.ExitStack) -> tuple[Generator, float, str]:
  """Loads a checkpoint of a run on a mesh that does not split rows."""
  ref = saved_run.parse(source)
  if ref.note:
    _note(ref.note)
  unsplit = [(f"mesh.{name}", str(getattr(alone(MeshConfig()), name))) for name in meshes.AXES]
  changes = [*unsplit, *overrides, *([("model.dtype", options.dtype)] if options.dtype else [])]
  experiment = build_experiment(saved_run.config_of(ref.home, changes), saved_run.verb_of(ref.home), scored=False)
  enter_mesh(experiment.mesh, stack)
  params, step = saved_run.parameters(experiment, ref)
  generator, temperature = make_generator(experiment.model, experiment.tokenizer, params, experiment.mesh, options, {})
  return generator, temperature, f"Loaded {ref.home} at step {step}"


def enter_mesh(mesh: Mesh, stack: contextlib.ExitStack) -> None:
  stack.enter_context(jax.set_mesh(mesh))
  stack.enter_context(rules.applied())


def make_generator(model: Model, tokenizer: Any, params: dict, mesh: Mesh, options: SampleOptions,
                    defaults: dict) -> tuple[Generator, float]:
  """Returns the generator and the temperature. defaults: what the model recommends, used where `options` leaves it."""
  fallbacks = {"temperature": TEMPERATURE, "top_k": 0, "top_p": 1.0, **defaults}
  given = {name: getattr(options, name) for name in fallbacks if getattr(options, name) >= 0}
  chosen = {**fallbacks, **given}
  used = [f"{name} {value:g}" for name, value in defaults.items() if name not in given]
  if used:
    _note(f"From generation_config.json: {', '.join(used)}.")
  sampling = Sampling(PIECE, int(chosen["top_k"]), float(chosen["top_p"]))
  decoding_params = placement.to_decoding_fn(model, mesh)(params)
  return Generator(model, tokenizer, decoding_params, mesh, sampling), float(chosen["temperature"])


def recommended(directory: Path) -> dict:
  """Reads temperature, top_k and top_p from generation_config.json, as far as it gives them; {} if there is none."""
  path = directory / "generation_config.json"
  if not path.is_file():
    return {}
  config = read_json(path, "mend it, or remove it to sample with the defaults")
  if config.get("do_sample") is False:
    return {"temperature": 0.0}
  return {name: config[name] for name in ("temperature", "top_k", "top_p")
          if isinstance(config.get(name), (int, float))}


def contexts(tokenizer: Any, rows: Iterable[PromptRow],
             raw: bool) -> tuple[list[PromptRow], list[list[int]], list[str]]:
  """Renders the prompts of rows. Returns the rendered rows, their ids, and a sentence for each row that has none.

  A closed vocabulary does not have every word, so rendering can fail; and a model may not read a row's pictures.
  """
  rendered, ids, broken = [], [], []
  for row in rows:
    try:
      ids.append(unrendered(tokenizer, row.text) if raw else prompt_ids(tokenizer, row))
      rendered.append(row)
    except ValueError as error:
      broken.append(f"line {row.line}: {error}")
  return rendered, ids, broken


def prompt_ids(tokenizer: Any, row: PromptRow) -> list[int]:
  """Returns the ids of a row's chat; ValueError for one that cannot be rendered, or that has what nothing reads."""
  rendering, = renderings(tokenizer, [row.chat], [row.args])
  if isinstance(rendering, ValueError):
    raise rendering
  lost = [name for name in rendering.unread if name.removeprefix("messages[].") in ("tool_calls", "tools")]
  if lost:
    raise ValueError(f"{lost[0]}: the chat template does not read it")
  if tokenizer.reader is not None and rendering.ids[-1:] == [tokenizer.reader.image_id]:
    raise ValueError("it ends in a picture, but the token before a response must be one of text: write some behind it")
  return rendering.ids


def unrendered(tokenizer: Any, text: str) -> list[int]:
  """Returns the ids of a text without a chat template: those with which a text begins for this tokenizer, and its own.
  """
  return tokenizer.plain(text) if tokenizer.kind == "pretrained" else [tokenizer.bos, *tokenizer.encode(text)]


def _answer_rows(settings: ChatSettings, options: SampleOptions, source: str, rows: list[PromptRow],
                 skipped: list[str]) -> None:
  rows, ids, unknown = contexts(settings.generator.tokenizer, rows, options.raw)
  skipped = [*skipped, *unknown]
  batch.refuse(Path(options.rows_in), skipped, len(rows), options.skip)
  for reason in skipped[: batch.MOST_NAMED]:
    _note(f"left out: {reason}")
  if len(skipped) > batch.MOST_NAMED:
    _note(f"left out: {len(skipped) - batch.MOST_NAMED} more")
  _warn_of_context(settings, max(map(len, ids)))
  recorded = {"from": source, "temperature": settings.temperature, "top_k": settings.generator.sampling.top_k,
              "top_p": settings.generator.sampling.top_p, "stop": list(options.stop), "seed": options.seed,
              "max_new_tokens": options.max_new_tokens, "system": options.system, "raw": options.raw}
  if digest := batch.digest_of_pictures(rows):
    recorded["pictures"] = digest
  count = batch.answer_all(settings, rows, ids, Path(options.rows_out), options.rows, recorded, _note)
  left_out = f", {len(skipped)} left out" if skipped else ""
  print(f"{options.rows_out}: {len(rows)} rows, {count} of them new{left_out}.")


def _answer_prompt(settings: ChatSettings, options: SampleOptions) -> None:
  generator = settings.generator
  chat = (*chat_loop.opening(options.system), chat_loop.asked(options.prompt, settings.images))
  shown = pictures(generator.tokenizer, chat)
  ids = unrendered(generator.tokenizer, options.prompt) if options.raw else render(generator.tokenizer, chat)[0]
  _warn_of_context(settings, len(ids))
  conversation = start_conversation(generator, [ids], settings.stop_conditions.max_new_tokens, pictures=[shown])
  _, generation, rate = chat_loop.stream(settings, conversation, 0, _show)
  _show("\n")
  _note(chat_loop.summary(generation, rate))


def _warn_of_context(settings: ChatSettings, tokens: int) -> None:
  if warning := chat_loop.context_warning(settings, tokens + settings.stop_conditions.max_new_tokens):
    _note(warning)


def _edit_lines() -> None:
  with contextlib.suppress(ImportError):   # not on every platform; lines are only less pleasant to edit
    import readline
    readline.set_auto_history(True)


def _show(text: str) -> None:
  sys.stdout.write(text)
  sys.stdout.flush()


def _note(text: str) -> None:
  print(text, file=sys.stderr, flush=True)
