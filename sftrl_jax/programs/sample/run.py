"""`sftrl sample FROM`: a model answers, in a conversation, once, or row by row of a file."""

import contextlib
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax

from sftrl_jax.chat import Message
from sftrl_jax.checkpoints import source as sources
from sftrl_jax.models import build
from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config.errors import ConfigError, as_local_path, refuse_file
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.sample import batch, chat_loop
from sftrl_jax.programs.sample.generate import PIECE, Generator, alone, start_conversation
from sftrl_jax.programs.sample.stopping import StopConditions
from sftrl_jax.programs.start import checkpoint_ref
from sftrl_jax.programs.start.open_model import open_model
from sftrl_jax.rollout import placement
from sftrl_jax.rollout.sample import Sampling
from sftrl_jax.text.render import render

TEMPERATURE = 0.7   # where the model recommends nothing: between the likeliest text and the model's own distribution


@dataclasses.dataclass(frozen=True)
class SampleOptions:
  """What the words of a command ask for. Numbers that are negative are left to the model's generation_config.json.

  prompt: one prompt ("": stdin, or a conversation in a terminal); system: the system text ("": the template's own)
  rows_in, rows_out: JSONL files
  rows: rows answered together
  raw: the prompt as it is, without the chat template
  skip: leave out rows that cannot be answered
  dtype: of parameters and activations ("": as the run's config says; else f32 on CPUs, bf16 on accelerators)
  """

  prompt: str = ""
  system: str = ""
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
    if self.rows < 1 or self.seed < 0:
      raise ConfigError(f"--rows is {self.rows} and --seed {self.seed}: rows must be at least 1, the seed 0 or more.")
    if self.temperature > 100:
      raise ConfigError(f"--temperature is {self.temperature:g}; it must lie between 0 (greedy) and 100.")
    if self.dtype not in ("", "float32", "bfloat16"):
      raise ConfigError(f"--dtype is {self.dtype!r}; it must be float32 or bfloat16.")


def read_options(flags: dict, switches=frozenset()) -> SampleOptions:
  """The words of a command line, {flag: text} (--stop: a list), as what they ask for."""
  kinds = {"--temperature": float, "--top-p": float, "--top-k": int, "--seed": int, "--max-new-tokens": int,
           "--rows": int}
  names = {"--in": "rows_in", "--out": "rows_out"}
  given = {}
  for flag, text in flags.items():
    name = names.get(flag, flag.removeprefix("--").replace("-", "_"))
    if flag in kinds:
      try:
        given[name] = kinds[flag](text)
      except ValueError:
        raise ConfigError(f"{flag}={text} is no {'whole ' if kinds[flag] is int else ''}number.") from None
      if not given[name] >= 0:
        raise ConfigError(f"{flag} is {text}; it must not be negative.")
    elif flag == "--on-bad-row":
      if text not in ("error", "skip"):
        raise ConfigError(f"--on-bad-row is {text!r}; it must be error or skip.")
      given["skip"] = text == "skip"
    else:
      given[name] = tuple(text) if flag == "--stop" else text
  return SampleOptions(**given, raw="--raw" in switches)


def run(source: str, wish: SampleOptions, overrides=()) -> None:
  """Answers as `wish` says, from WORKDIR[@STEP|@best:VARIANT], a Hugging Face directory or id, a GGUF, or smollm2."""
  until = StopConditions(wish.max_new_tokens, wish.stop)
  rows, skipped = [], []
  talks = not wish.rows_in and not wish.prompt and sys.stdin.isatty()
  if wish.rows_in:
    refuse_file("--out", as_local_path(wish.rows_out, "--out").parent)
    rows, skipped = batch.read(as_local_path(wish.rows_in, "--in"), wish.system, wish.raw, wish.skip)
  elif not talks and not wish.prompt:
    wish = dataclasses.replace(wish, prompt=sys.stdin.read().rstrip("\n"))
    if not wish.prompt:
      raise ConfigError("No prompt: give --prompt=TEXT, pipe one in, or begin a conversation in a terminal.")
  if talks and wish.raw:
    raise ConfigError("--raw answers one prompt: give --prompt=TEXT or pipe one in.")
  _keep_compiled()
  began = time.perf_counter()
  with contextlib.ExitStack() as within:
    speaker, temperature, note = load_generator(source, wish, overrides, within)
    told = f"{speaker.model.config.dtype}, temperature {temperature:g}"
    _note(f"{note} in {time.perf_counter() - began:.1f} s ({told}). The first tokens wait for compiling.")
    talk = chat_loop.ChatSettings(speaker, until, temperature, jax.random.key(wish.seed))
    if rows:
      _rows(talk, wish, source, rows, skipped)
    elif talks:
      _note(f"{chat_loop.HELP}\n")
      _edit_lines()
      chat_loop.converse(talk, wish.system, lambda: input("> "), _show)
    else:
      _once(talk, wish)


def load_generator(source: str, wish: SampleOptions, overrides, within: contextlib.ExitStack) -> tuple[Generator, float, str]:
  """(speaker, temperature, a line that says what was loaded). `within` is left under the speaker's mesh."""
  enter = lambda mesh: (within.enter_context(jax.set_mesh(mesh)),
                        within.enter_context(nn.logical_axis_rules(rules.activation_rules())))
  if checkpoint_ref.is_workdir(checkpoint_ref.home_of(source)):
    return _of_run(source, wish, overrides, enter)
  if overrides:
    raise ConfigError(f"--config.{overrides[0][0]} changes the config of a run, but {source} is no workdir.")
  mesh = meshes.make(alone(MeshConfig()))
  enter(mesh)
  dtype = wish.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
  opened = open_model(source, dtype, mesh)
  if opened.tokenizer is None:
    raise ConfigError(f"{opened.path} has no tokenizer: put the files of one (tokenizer.json) beside the weights.")
  model = build(opened.config, opened.tokenizer.size)
  settings = recommended(opened.path) if opened.kind == "hf" else {}
  return *_speaker(model, opened.tokenizer, opened.params, mesh, wish, settings), f"Loaded {opened.path}"


def _of_run(source: str, wish: SampleOptions, overrides, enter):
  """A checkpoint of a run, on a mesh that does not split rows."""
  origin = saved_run.parse(source)
  if origin.note:
    _note(origin.note)
  lone = [(f"mesh.{name}", str(getattr(alone(MeshConfig()), name))) for name in meshes.AXES]
  changes = [*lone, *overrides, *([("model.dtype", wish.dtype)] if wish.dtype else [])]
  experiment = build_experiment(saved_run.config_of(origin.home, changes), saved_run.verb_of(origin.home))
  enter(experiment.mesh)
  params, step = saved_run.parameters(experiment, origin.home, origin.step)
  speaker, temperature = _speaker(experiment.model, experiment.tokenizer, params, experiment.mesh, wish, {})
  return speaker, temperature, f"Loaded {origin.home} at step {step}"


def _speaker(model, tokenizer, params, mesh, wish: SampleOptions, settings: dict) -> tuple[Generator, float]:
  ours = {"temperature": TEMPERATURE, "top_k": 0, "top_p": 1.0, **settings}
  given = {name: getattr(wish, name) for name in ours if getattr(wish, name) >= 0}
  chosen = {**ours, **given}
  if settings and (told := {name: value for name, value in settings.items() if name not in given}):
    _note(f"From generation_config.json: {', '.join(f'{name} {value:g}' for name, value in told.items())}.")
  sampling = Sampling(PIECE, int(chosen["top_k"]), float(chosen["top_p"]))
  return Generator(model, tokenizer, placement.mover(model, mesh)(params), mesh, sampling), float(chosen["temperature"])


def recommended(directory: Path) -> dict:
  """temperature, top_k and top_p of generation_config.json, as far as it says them; {} for a model that has none."""
  path = directory / "generation_config.json"
  if not path.is_file():
    return {}
  try:
    there = json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise ConfigError(f"{path} is no JSON ({error}).") from error
  if there.get("do_sample") is False:
    return {"temperature": 0.0}
  return {name: there[name] for name in ("temperature", "top_k", "top_p") if isinstance(there.get(name), (int, float))}


def contexts(tokenizer, rows, raw: bool) -> tuple[list, list, list[str]]:
  """(rows, ids of each, what is wrong with the others): a closed vocabulary does not have every word."""
  right, ids, broken = [], [], []
  for row in rows:
    try:
      ids.append(unrendered(tokenizer, row.text) if raw else render(tokenizer, row.chat)[0])
      right.append(row)
    except ValueError as error:
      broken.append(f"line {row.line}: {error}")
  return right, ids, broken


def unrendered(tokenizer, text: str) -> list[int]:
  """The ids of a text that no template surrounds: what opens a text for this tokenizer, and the text itself."""
  return tokenizer.plain(text) if tokenizer.kind == "pretrained" else [tokenizer.bos, *tokenizer.encode(text)]


def _rows(talk: chat_loop.ChatSettings, wish: SampleOptions, source: str, rows, skipped) -> None:
  rows, ids, unknown = contexts(talk.speaker.tokenizer, rows, wish.raw)
  skipped = [*skipped, *unknown]
  batch.refuse(Path(wish.rows_in), skipped, len(rows), wish.skip)
  for told in skipped[: batch.TOLD]:
    _note(f"left out: {told}")
  if len(skipped) > batch.TOLD:
    _note(f"left out: {len(skipped) - batch.TOLD} more")
  _tell_if_long(talk, max(map(len, ids)))
  settings = {"from": source, "temperature": talk.temperature, "top_k": talk.speaker.sampling.top_k,
              "top_p": talk.speaker.sampling.top_p, "stop": list(wish.stop), "seed": wish.seed,
              "max_new_tokens": wish.max_new_tokens, "system": wish.system, "raw": wish.raw}
  made = batch.answer_all(talk.speaker, rows, ids, Path(wish.rows_out), wish.rows, talk.until, talk.temperature,
                            talk.key, settings, _note)
  left_out = f", {len(skipped)} left out" if skipped else ""
  print(f"{wish.rows_out}: {len(rows)} rows, {made} of them new{left_out}.")


def _once(talk: chat_loop.ChatSettings, wish: SampleOptions) -> None:
  tokenizer = talk.speaker.tokenizer
  opening = chat_loop.opening(wish.system)
  ids = unrendered(tokenizer, wish.prompt) if wish.raw else (
      render(tokenizer, (*opening, Message("user", wish.prompt)))[0])
  _tell_if_long(talk, len(ids))
  _, said, rate = chat_loop.stream(talk, start_conversation(talk.speaker, [ids], talk.until.max_new_tokens), 0, _show)
  _show("\n")
  _note(chat_loop.summary(said, rate))


def _tell_if_long(talk: chat_loop.ChatSettings, tokens: int) -> None:
  if told := chat_loop.beyond(talk, tokens + talk.until.max_new_tokens):
    _note(told)


def _keep_compiled() -> None:
  """Programs compiled once are read back the next time, unless the user's environment says where they are kept."""
  if not os.environ.get("JAX_COMPILATION_CACHE_DIR") and not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", str(sources.cache() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _edit_lines() -> None:
  with contextlib.suppress(ImportError):   # not on every platform; lines are only less pleasant to edit
    import readline
    readline.set_auto_history(True)


def _show(text: str) -> None:
  sys.stdout.write(text)
  sys.stdout.flush()


def _note(text: str) -> None:
  print(text, file=sys.stderr, flush=True)
