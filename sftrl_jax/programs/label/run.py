"""`sftrl label FROM`: shows two responses to a prompt, and writes which one a person prefers as pairs to train on."""

import contextlib
import dataclasses
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from sftrl_jax.chat import Chat
from sftrl_jax.data.read import SUFFIXES
from sftrl_jax.envs import nothing
from sftrl_jax.envs.env import Env
from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.parallel.mesh import MeshConfig
from sftrl_jax.programs.config import nested
from sftrl_jax.programs.config.errors import ConfigError, as_local_path
from sftrl_jax.programs.config.values import LARGEST
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.experiment.build import build_experiment
from sftrl_jax.programs.experiment.environment import make_env
from sftrl_jax.programs.experiment.run_config import resolve_run, verb_of
from sftrl_jax.programs.label import items, questions
from sftrl_jax.programs.label.items import Items
from sftrl_jax.programs.label.label_file import LabelFile
from sftrl_jax.programs.runtime.lock import only_output
from sftrl_jax.programs.sample import batch
from sftrl_jax.programs.sample.generate import ChatSettings, Generator, alone
from sftrl_jax.programs.sample.run import SampleOptions, enter_mesh, load_generator, make_generator, prompt_ids
from sftrl_jax.programs.sample.stopping import StopConditions
from sftrl_jax.programs.start import checkpoint_ref, initial_params, pretrained
from sftrl_jax.text.render import render

COUNT = 20   # of questions about a model's responses


@dataclasses.dataclass(frozen=True)
class LabelOptions:
  """The options of the command line.

  out: the file of pairs
  config: FILE.py[:choice], the task for a model without a run ("": none)
  prompts: a JSONL file of prompts ("": those of the environment)
  count: questions (-1: all rows of a file; of a model COUNT)
  max_new_tokens: of a response (0: config.rollout.max_new_tokens where there is a task, else 256)
  """

  out: str
  config: str = ""
  prompts: str = ""
  seed: int = 0
  count: int = -1
  temperature: float = 1.0
  max_new_tokens: int = 0

  def __post_init__(self):
    if not 0 < self.temperature <= 100:
      raise ConfigError(f"--temperature is {self.temperature:g}; it must be above 0, at which both responses are one, "
                        "and at most 100.")


def read_options(flags: Mapping[str, str]) -> LabelOptions:
  """Reads the flags of a command line, {flag: text}. Raises ConfigError for a value that is wrong."""
  kinds = {field.name: field.type for field in dataclasses.fields(LabelOptions)}
  fields = {}
  for flag, text in flags.items():
    name = flag.removeprefix("--").replace("-", "_")
    if kinds[name] in (int, float):
      try:
        fields[name] = kinds[name](text)
      except ValueError:
        raise ConfigError(f"{flag}={text} is no {'whole ' if kinds[name] is int else ''}number.") from None
      if not 0 <= fields[name] < math.inf or fields[name] > LARGEST:
        raise ConfigError(f"{flag} is {text}; it must be from 0 to {LARGEST}.")
    else:
      fields[name] = text
  return LabelOptions(**fields)


def run(source: str, options: LabelOptions, overrides: Sequence[tuple[str, str]] = ()) -> None:
  """Asks a person, in a terminal or by the lines of stdin, and writes pairs to options.out.

  source: a file of rows with two responses; or WORKDIR[@...], a Hugging Face directory or hub id, a .gguf file, or
    smollm2, which answers each prompt twice; with options.config anything that config.start takes
  overrides: (dotted key, text) of the config of the run, or of options.config
  """
  out = as_local_path(options.out, "--out")
  settings = {"from": source, "seed": options.seed, "prompts": options.prompts, "config": options.config}
  with contextlib.ExitStack() as stack:
    if Path(source).suffix in SUFFIXES:
      _refuse_model_flags(source, options, overrides)
      rows = items.of_file(as_local_path(source, "FROM"))
      source_items, count = (lambda number: rows[number] if number < len(rows) else None), options.count
      count = len(rows) if count < 0 else count
    else:
      source_items, more = _items_of_model(source, options, overrides, stack)
      settings, count = settings | more, COUNT if options.count < 0 else options.count
    stack.enter_context(only_output(out, "--out"))
    labels = LabelFile(out, settings)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    questions.ask_all(source_items, labels, count, options.seed, _ask, _show, width)
  print(questions.summary(labels))
  if any(answer.row for answer in labels.answers):
    print(f"To train on them: sftrl preference --config=configs/preference/dpo.py --config.data.path={out} "
          "--workdir=...")


def _ask(text: str) -> str:
  """A line of the terminal, or the next one of stdin, which is shown so that a log of a script can be read."""
  if sys.stdin.isatty():
    return input(text)
  line = sys.stdin.readline()
  if not line:
    raise EOFError
  _show(f"{text}{line.strip()[:40]}\n")
  return line


def _show(text: str) -> None:
  print(text, flush=True, end="" if text.endswith("\n") else "\n")


def _refuse_model_flags(source: str, options: LabelOptions, overrides: Sequence[tuple[str, str]]) -> None:
  flags = [f"--{name}" for name in ("config", "prompts") if getattr(options, name)]
  flags += [f"--config.{path}" for path, _ in overrides]
  if flags:
    raise ConfigError(f"{source} is a file that has the responses, so {flags[0]} has no place: leave it out.")


def _items_of_model(source: str, options: LabelOptions, overrides: Sequence[tuple[str, str]],
                    stack: contextlib.ExitStack) -> tuple[Items, dict]:
  """(items, settings that their responses depend on) of a model."""
  sampling = SampleOptions(temperature=options.temperature, seed=options.seed, top_k=0, top_p=1.0)
  if options.config:
    generator, config, name = _of_config(source, options.config, overrides, sampling, stack)
  else:
    home = checkpoint_ref.home_of(source)
    config = saved_run.config_of(home, overrides).to_dict() if checkpoint_ref.is_workdir(home) else {}
    generator, _, name = load_generator(source, sampling, overrides, stack)
  env = _env_of(config)
  most = options.max_new_tokens or (config["rollout"]["max_new_tokens"] if env else 256)
  chats = ChatSettings(generator, StopConditions(most), options.temperature, jax.random.key(options.seed))
  prompts = _prompts_of_file(options.prompts, generator) if options.prompts else _prompts_of_env(
      source, env, generator, options.seed)
  _show(f"{name}.")
  return items.of_model(chats, prompts), {
      "temperature": options.temperature, "max_new_tokens": most, "overrides": [list(pair) for pair in overrides],
      "model": name}


def _of_config(source: str, spec: str, overrides: Sequence[tuple[str, str]], sampling: SampleOptions,
               stack: contextlib.ExitStack) -> tuple[Generator, dict, str]:
  """What a run of this config would begin with, if it began with `source`."""
  own = () if source == "scratch" or source.startswith("base:") or checkpoint_ref.is_workdir(
      checkpoint_ref.home_of(source)) else (("model.name", pretrained.NAME), ("tokenizer.name", pretrained.NAME))
  unsplit = [(f"mesh.{name}", str(getattr(alone(MeshConfig()), name))) for name in meshes.AXES]
  config, _ = resolve_run(spec, (*own, *unsplit, *overrides, ("start", source)))
  experiment = build_experiment(config, verb_of(config))
  initial_params.check_start(source, experiment.model)
  enter_mesh(experiment.mesh, stack)
  params = initial_params.load_start(source, experiment.model, experiment.seed, experiment.mesh)
  generator, _ = make_generator(experiment.model, experiment.tokenizer, params, experiment.mesh, sampling, {})
  return generator, nested.plain(config), f"Loaded {source}"


def _env_of(config: dict) -> Env | None:
  env = config.get("env", {})
  return make_env(env, config["reward"]) if env and env["name"] != nothing.NAME else None


def _prompts_of_env(source: str, env: Env | None, generator: Generator, seed: int
                    ) -> Callable[[int], tuple[Chat, Sequence[int]]]:
  if env is None:
    raise ConfigError(f"{source} has no task whose prompts could be shown: give --prompts=FILE.jsonl, with `prompt` or "
                      "`messages` in every row, or --config=FILE.py of a task.")

  def prompt(number: int) -> tuple[Chat, Sequence[int]]:
    chat = env.reset(f"{seed} {number}")[1]
    if any(message.images for message in chat):
      raise ConfigError("This task shows pictures, which a terminal cannot show: give --prompts=FILE.jsonl of texts.")
    return chat, render(generator.tokenizer, chat)[0]

  return prompt


def _prompts_of_file(path: str, generator: Generator) -> Callable[[int], tuple[Chat, Sequence[int]] | None]:
  rows, _ = batch.read(as_local_path(path, "--prompts"))
  ids = []
  for row in rows:
    if row.shown:
      raise ConfigError(f"--prompts={path} line {row.line}: it has pictures, which a terminal cannot show: leave it "
                        "out.")
    try:
      ids.append(prompt_ids(generator.tokenizer, row))
    except ValueError as error:
      raise ConfigError(f"--prompts={path} line {row.line}: {error}") from error
  return lambda number: (rows[number].chat, ids[number]) if number < len(rows) else None
