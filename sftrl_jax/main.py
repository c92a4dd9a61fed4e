"""The command line: `sftrl VERB ...`, the same as `python -m sftrl_jax VERB ...`.

Words are checked before anything heavy is imported, and JAX is imported only once its threads are decided: XLA reads
them at import, and a run repeats bit for bit only with the same number.
"""

import dataclasses
import difflib
import os
import shlex
import sys
import traceback

from sftrl_jax import __version__

COMPLETE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


@dataclasses.dataclass(frozen=True)
class Verb:
  """What one verb is for and which words it takes."""

  meaning: str
  usage: str
  flags: tuple[str, ...]            # the flags that take a value
  required: tuple[str, ...] = ()
  positionals: tuple[int, int] = (0, 0)   # how many at least, how many at most
  overrides: bool = True            # whether --config.key=value is taken
  repeated: tuple[str, ...] = ()    # flags that may be given several times; their value is the list
  switches: tuple[str, ...] = ()    # flags without a value, besides those of every verb


RUN_FLAGS = ("--config", "--workdir")
SEAT_FLAGS = ("--coordinator", "--processes", "--process")
RUN_USAGE = "--config=FILE.py[:choice][:smoke] --workdir=DIR [--config.some.key=value ...]"
STUDY_USAGE = f"""{RUN_USAGE}
  --list   prints the commands of its runs, one a line, and trains nothing: run them on several machines that see DIR,
           and then  sftrl report DIR"""
SEAT_USAGE = """
  --coordinator=HOST:PORT --processes=N --process=I   one of N processes that train together, of which the first is
  found there; the same as SFTRL_COORDINATOR, SFTRL_PROCESSES, SFTRL_PROCESS. A TPU pod or GKE needs none of them"""
SAMPLE_USAGE = """FROM [--prompt=TEXT] [--in=ROWS.jsonl --out=ANSWERS.jsonl] [FLAGS] [--config.some.key=value ...]
  FROM is a workdir[@step|@best:VARIANT], a Hugging Face directory or id, a .gguf file, or smollm2
  without --prompt and --in: a prompt that is piped in, or a conversation in a terminal
  rows of --in have `prompt` (a text) or `messages`; those of --out repeat them and add response, finish (stop,
  stop_string or length), tokens (how many) and logprob (their sum); the same command goes on with the missing ones
  --on-bad-row=skip     leaves out rows that cannot be answered (default: error)
  --rows=16             rows that are answered together
  --temperature=0.7     0 is greedy; with top-k and top-p, the model's generation_config.json has the default
  --top-k=0 --top-p=1   0 and 1: all tokens
  --stop=TEXT           ends a response, and is left out of it; may be given several times
  --max-new-tokens=512  tokens of a response at most
  --seed=0              with the same seed and rows, the same answers
  --system=TEXT         the system message
  --dtype=float32       or bfloat16 (default: a run's own; else float32 on CPUs, bfloat16 on accelerators)
  --raw                 the prompt as it is, without the chat template"""
DATA_USAGE = """--config=FILE.py[:choice] --out=FILE.jsonl|.parquet [--variant=V --count=N] [--config.KEY=VALUE ...]
  --variant=V    of the task, instead of what it trains on
  --count=1000   rows"""
PLAN_USAGE = """--config=FILE.py[:choice] [--topology=v5e-16] [FLAGS] [--config.some.key=value ...]
  --topology=v5e-16     a slice of v4, v5e (v5litepod), v5p or v6e by its name, 2xv5e-16 for two of them: compiled by
                        the TPU's own compiler, nothing runs. local (the default): compiled and run on what is here
  --optimizer=a,b       the train step with each of these, a line each
  --only=train,score    only functions whose names begin so: a rollout's take the compiler longest
  --show=sharding       how every parameter is split
  --json=FILE           writes the plan there
  --price=1.2           of a chip-hour, for what the run costs
  --tries=6             knobs that are compiled when it does not fit"""
CHECK_USAGE = f"""--config=FILE.py[:choice][:smoke] [FLAGS] [--config.some.key=value ...]
  --plan=FILE    of `sftrl plan --json=FILE`, here or at gs://: steps are held against it, seconds and memory
  --within=2     times what was planned above which they are refused; of a slice, seconds are planned as a bound
  --workdir=DIR  where the steps write meanwhile, into a directory that is removed (default: a temporary one here);
                 several hosts need one that they share, or gs://...{SEAT_USAGE}"""
VERBS = {
    "study": Verb("train bases and compare methods on them, then report", STUDY_USAGE, RUN_FLAGS, RUN_FLAGS,
                  switches=("--list",)),
    "sft": Verb("supervised fine-tuning, pre-training included", RUN_USAGE + SEAT_USAGE, RUN_FLAGS + SEAT_FLAGS,
                RUN_FLAGS),
    "rl": Verb("reinforcement learning by config.algorithm", RUN_USAGE + SEAT_USAGE, RUN_FLAGS + SEAT_FLAGS, RUN_FLAGS),
    "check": Verb("whether a task and a run's parts agree, before hours are spent; writes nothing",
                  CHECK_USAGE, ("--config", "--plan", "--within", "--workdir", *SEAT_FLAGS), ("--config",)),
    "data": Verb("write demonstrations of a task as rows that TRL reads", DATA_USAGE,
                 ("--config", "--out", "--variant", "--count"), ("--config", "--out")),
    "evaluate": Verb("success of a checkpoint on every variant", "FROM [--workdir=DIR] [--config.some.key=value ...]\n"
                     "  FROM is the workdir of a run, workdir@step, or workdir@best:VARIANT" + SEAT_USAGE,
                     ("--workdir", *SEAT_FLAGS), (), (1, 1)),
    "sample": Verb("a model answers: in a conversation, once, or row by row of a file", SAMPLE_USAGE,
                   ("--prompt", "--in", "--out", "--on-bad-row", "--rows", "--temperature", "--top-k", "--top-p",
                    "--stop", "--max-new-tokens", "--seed", "--system", "--dtype"), (), (1, 1),
                   repeated=("--stop",), switches=("--raw",)),
    "bench": Verb("speed of training and decoding against the machine's peak, and against torch", "--config=FILE.py"
                  "[:choice][:smoke] [--against=hf] [--out=DIR] [--config.some.key=value ...]\n"
                  "  --against=hf  transformers and torch on the same shapes and weights, in turns with ours\n"
                  "  --only=KINDS  some of prefill,decode,sft,rl     --pairs=5  repetitions of each\n"
                  "  --out=DIR     writes bench.json there", ("--config", "--against", "--out", "--only", "--pairs"),
                  ("--config",)),
    "plan": Verb("whether a run fits a slice, how fast it can be there, what to turn: before renting it", PLAN_USAGE,
                 ("--config", "--topology", "--optimizer", "--only", "--show", "--json", "--price", "--tries"),
                 ("--config",)),
    "convert": Verb("a model from anywhere as a directory that transformers opens", """FROM TO [--dtype=DTYPE]
  FROM is a workdir[@step|@best:VARIANT], a Hugging Face directory or id, a .gguf file, or smollm2
  TO is a new directory, or an earlier one of these, which is replaced
  --dtype=float32    or bfloat16 (default: as the weights are)""", ("--dtype",), (), (2, 2), overrides=False),
    "report": Verb("tables and figures of runs or of a study", "DIR [DIR ...] [--out=DIR]\n"
                   "  several directories are drawn over one another", ("--out",), (), (1, 1000), overrides=False),
    "configs": Verb("every experiment there is: claim, hardware, minutes, command", "[DIR]\n  DIR holds config files; "
                    "configs if left out", (), (), (0, 1), overrides=False),
}
SWITCHES = ("--help", "--debug")


class Misuse(Exception):
  """A verb, flag or positional that the command line does not take: exit code 2."""


@dataclasses.dataclass(frozen=True)
class Command:
  """A command line, taken apart: {flag: value}, positionals, [(dotted key, text)], switches."""

  verb: str
  flags: dict
  positionals: tuple[str, ...]
  overrides: tuple[tuple[str, str], ...]
  switches: frozenset
  text: str                         # the command as a shell takes it


def main(arguments=None) -> int:
  """Runs one command and returns its exit code; 75 (stopped by SIGTERM) is raised as SystemExit by the program."""
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  try:
    status = _run(arguments)
    sys.stdout.flush()
    return status
  except Misuse as error:
    print(f"error: {error}", file=sys.stderr)
    return MISUSED
  except KeyboardInterrupt:
    print("Interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
    return INTERRUPTED
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())   # `sftrl ... | head` is no failure to tell of
    return FAILED
  except Exception as error:
    if "--debug" in arguments:
      traceback.print_exc()
    print(f"error: {_message(error)}", file=sys.stderr)
    return FAILED


def _run(arguments) -> int:
  if not arguments or arguments[0] in ("--help", "-h", "help"):
    print(_overview(), file=sys.stdout if arguments else sys.stderr)
    return COMPLETE if arguments else MISUSED
  if arguments[0] == "--version":
    print(f"sftrl_jax {__version__}")
    return COMPLETE
  command = scan(arguments)
  if "--config" in command.flags and ("optimizer.name", "help") in command.overrides:
    from sftrl_jax.programs.cli import commands
    print(commands.optimizers_page(command))
    return COMPLETE
  if "--help" in command.switches:
    print(_help(command))
    return COMPLETE
  _require(command)
  from sftrl_jax.programs.cli import commands
  from sftrl_jax.programs.config import errors
  if "--workdir" in command.flags:
    workdir = errors.as_path(command.flags["--workdir"], "--workdir")
    errors.refuse_unreachable("--workdir", workdir)
    errors.refuse_file("--workdir", workdir)
  commands.PROGRAMS[command.verb](command)
  return COMPLETE


def scan(arguments) -> Command:
  """Takes the words of a command line apart; Misuse names the nearest verb or flag for one it does not know."""
  name, *words = arguments
  if name not in VERBS:
    raise Misuse(f"{name!r} is no verb{_nearest(name, VERBS)} Verbs: {', '.join(VERBS)}.")
  verb, flags, positionals, overrides, switches = VERBS[name], {}, [], [], set()
  while words:
    word = words.pop(0)
    flag, equals, value = word.partition("=")
    if word in ("-h", *SWITCHES, *verb.switches):
      switches.add("--help" if word == "-h" else word)
    elif not word.startswith("-"):
      positionals.append(word)
    elif flag in verb.flags or (verb.overrides and flag.startswith("--config.")):
      if not equals:
        if not words or words[0].startswith("--"):
          raise Misuse(f"{flag} needs a value: write {flag}=VALUE.")
        value = words.pop(0)
      _take(verb, flag, value, flags, overrides)
    else:
      raise Misuse(_unknown_flag(name, verb, flag))
  return Command(name, flags, tuple(positionals), tuple(overrides), frozenset(switches),
                 shlex.join(["sftrl", *arguments]))


def _take(verb, flag, value, flags, overrides) -> None:
  if flag.startswith("--config."):
    path = flag.removeprefix("--config.")
    if not all(path.split(".")):
      raise Misuse(f"{flag} names no key: write --config.section.key=value.")
    overrides.append((path, value))
  elif flag in flags and flag not in verb.repeated:
    raise Misuse(f"{flag} is given twice: {flags[flag]!r} and {value!r}; give one.")
  elif not value:
    raise Misuse(f"{flag} is empty: write {flag}=VALUE.")
  elif flag in verb.repeated:
    flags[flag] = [*flags.get(flag, ()), value]
  else:
    flags[flag] = value


def _unknown_flag(name, verb, flag) -> str:
  known = [*verb.flags, *verb.switches, *SWITCHES, *(["--config.KEY"] if verb.overrides else [])]
  if verb.overrides and flag.count(".") and not flag.startswith("--config."):
    return f"{flag} is no flag of {name}: a key of the config is written --config.{flag.lstrip('-')}=VALUE."
  return f"{flag} is no flag of {name}{_nearest(flag, known)} Flags: {', '.join(known)}."


def _require(command) -> None:
  """Misuse for a missing flag, and for too few or too many positionals."""
  verb = VERBS[command.verb]
  usage = f"\n  sftrl {command.verb} {verb.usage}"
  for flag in verb.required:
    if flag not in command.flags:
      raise Misuse(f"{command.verb} needs {flag}:{usage}")
  least, most = verb.positionals
  if len(command.positionals) < least:
    raise Misuse(f"{command.verb} needs {verb.usage.split()[0]}:{usage}")
  if len(command.positionals) > most:
    raise Misuse(f"{command.positionals[most]!r} is one word too many for {command.verb}:{usage}")


def _nearest(word, names) -> str:
  close = difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)
  return f": did you mean {close[0]}?" if close else "."


def _message(error) -> str:
  """One message for a person: ours as they are, others with their type, and where to look."""
  from sftrl_jax.programs.config.errors import ConfigError
  if isinstance(error, ConfigError):
    return str(error)
  ours = isinstance(error, (ValueError, OSError, RuntimeError)) and str(error)
  text = str(error) if ours else f"{type(error).__name__}: {error}"
  return f"{text}\n  (--debug prints where)"


def _overview() -> str:
  lines = [f"  {name:<10}{verb.meaning}" for name, verb in VERBS.items()]
  return "\n".join([
      "sftrl VERB ...   SFT and RL post-training compared, in JAX", "", "Verbs:", *lines, "",
      "sftrl VERB --help                   the words a verb takes",
      "sftrl VERB --config=FILE.py --help  every key of a config: value, type, choices, meaning",
      "--config=FILE.py:smoke              any config on a toy scale, on one CPU in under a minute",
      "--debug                             a traceback with an error",
      "",
      "Exit codes: 0 complete; 1 config, data or run failed; 2 wrong words; 75 stopped by SIGTERM and 130 by Ctrl-C,",
      "both after a checkpoint: the same command goes on.",
  ])


def _help(command) -> str:
  verb = VERBS[command.verb]
  page = f"sftrl {command.verb} {verb.usage}\n\n{verb.meaning[0].upper()}{verb.meaning[1:]}."
  if "--config" not in command.flags:
    keys = "\n\nWith --config=FILE.py, --help prints every key of the config." if "--config" in verb.flags else ""
    return page + keys
  from sftrl_jax.programs.cli import commands, config_help
  config, schema = commands.configured(command)
  return f"{page}\n\n{config_help.page(config, schema)}"
