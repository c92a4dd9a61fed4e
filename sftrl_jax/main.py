"""The command line: `sftrl VERB ...`, the same as `python -m sftrl_jax VERB ...`.

It parses the arguments, runs the verb and turns errors into messages and exit codes; programs/cli/verbs.py has the
table of verbs. It checks the arguments before it imports anything heavy.
"""

import errno
import os
import shlex
import sys
import traceback

from sftrl_jax import __version__
from sftrl_jax.programs.cli import commands
from sftrl_jax.programs.cli.commands import Command
from sftrl_jax.programs.cli.verbs import VERBS, Verb
from sftrl_jax.programs.config.errors import ConfigError, as_path, nearest, refuse_file, refuse_unreachable
from sftrl_jax.programs.runtime import interrupt

COMPLETE, FAILED, MISUSED = 0, 1, 2
NO_ROOM = "Make room there, and give the same command again."
NO_RIGHT = "Let this user write there, or give another path."
WAYS_OUT = {errno.ENOSPC: NO_ROOM, errno.EDQUOT: NO_ROOM, errno.EACCES: NO_RIGHT, errno.EPERM: NO_RIGHT,
            errno.EROFS: NO_RIGHT, errno.EFBIG: "A file may not be that large here: see `ulimit -f`."}
SWITCHES = ("--help", "--debug")   # of every verb
# Keys of a config outside all sections, which are written like flags by mistake; the schema itself would import JAX.
OUTER_KEYS = ("seed", "steps", "batch", "flops", "max_nonfinite", "start", "algorithm", "reward")


class Misuse(Exception):
  """An argument that the command line does not take: exit code 2."""


def main(arguments: list[str] | None = None) -> int:
  """Runs one command and returns its exit code; a run that SIGTERM stopped raises SystemExit(75).

  arguments: the words after `sftrl`; those of this process if left out
  """
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  try:
    status = _run(arguments)
    sys.stdout.flush()
    return status
  except Misuse as error:
    print(f"error: {error}", file=sys.stderr)
    return MISUSED
  except KeyboardInterrupt:
    return _interrupted()
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())   # so that the flush at exit raises no second error
    return FAILED
  except Exception as error:
    if interrupt.received:   # libraries make errors of their own of an exception in a callback or an import
      return _interrupted()
    if "--debug" in arguments:
      traceback.print_exc()
    print(f"error: {_message(error)}", file=sys.stderr)
    return FAILED


def _interrupted() -> int:
  print(f"Interrupted. {interrupt.NEWS}", file=sys.stderr)
  return interrupt.CODES[interrupt.received[0]] if interrupt.received else interrupt.INTERRUPTED


def _run(arguments: list[str]) -> int:
  if not arguments or arguments[0] in ("--help", "-h", "help"):
    print(_overview(), file=sys.stdout if arguments else sys.stderr)
    return COMPLETE if arguments else MISUSED
  if arguments[0] == "--version":
    print(f"sftrl_jax {__version__}")
    return COMPLETE
  command = scan(arguments)
  if "--config" in command.flags and ("optimizer.name", "help") in command.overrides:
    print(commands.optimizers_page(command))
    return COMPLETE
  if "--help" in command.switches:
    print(_help(command))
    return COMPLETE
  _refuse_incomplete(command)
  if "--workdir" in command.flags:
    workdir = as_path(command.flags["--workdir"], "--workdir")
    refuse_unreachable("--workdir", workdir)
    refuse_file("--workdir", workdir)
  VERBS[command.verb].run(command)
  return COMPLETE


def scan(arguments: list[str]) -> Command:
  """Parses the words after `sftrl`. Misuse for an unknown verb or flag, with the nearest known one.

  argparse would have to be extended for --config.KEY=VALUE with any KEY, for errors about repeated flags and for near
  names, by more code than this loop.
  """
  name, *words = arguments
  if name not in VERBS:
    raise Misuse(f"{name!r} is no verb{nearest(name, VERBS, list_title='Verbs', cutoff=0.5)}")
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


def _take(verb: Verb, flag: str, value: str, flags: dict, overrides: list) -> None:
  """Adds a flag and its value to `flags` or `overrides`. Misuse for an empty value and a second one."""
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


def _unknown_flag(name: str, verb: Verb, flag: str) -> str:
  known = [*verb.flags, *verb.switches, *SWITCHES, *(["--config.KEY"] if verb.overrides else [])]
  if "--config" in verb.flags and flag.lstrip("-").replace("-", "_") in OUTER_KEYS:
    return f"{flag} is no flag of {name}: did you mean --config.{flag.lstrip('-').replace('-', '_')}?"
  if verb.overrides and flag.count(".") and not flag.startswith("--config."):
    return f"{flag} is no flag of {name}: a key of the config is written --config.{flag.lstrip('-')}=VALUE."
  return f"{flag} is no flag of {name}{nearest(flag, known, list_title='Flags', cutoff=0.5)}"


def _refuse_incomplete(command: Command) -> None:
  """Misuse for a missing flag, and for too few or too many positionals."""
  verb = VERBS[command.verb]
  usage = f"\n  sftrl {command.verb} {verb.usage}"
  for flag in () if command.switches & set(verb.alone) else verb.required:
    if flag not in command.flags:
      raise Misuse(f"{command.verb} needs {flag}:{usage}")
  least, most = verb.positionals
  if len(command.positionals) < least:
    raise Misuse(f"{command.verb} needs {verb.usage.split()[0]}:{usage}")
  if len(command.positionals) > most:
    raise Misuse(f"{command.positionals[most]!r} is one word too many for {command.verb}:{usage}")


def _message(error: Exception) -> str:
  """The text of an error. Those without a way out get a hint at --debug, and errors that are not ours their type."""
  if isinstance(error, ConfigError):
    return str(error)
  if isinstance(error, OSError) and error.errno in WAYS_OUT:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}. {WAYS_OUT[error.errno]}"
  is_ours = isinstance(error, (ValueError, OSError, RuntimeError)) and str(error)
  text = str(error) if is_ours else f"{type(error).__name__}: {error or _place(error)}"
  return f"{text}\n  (--debug prints where)"


def _place(error: Exception) -> str:
  """Where an error without a text was raised, as of an `assert`."""
  frame = traceback.extract_tb(error.__traceback__)[-1]
  return f"{frame.line or frame.name} ({frame.filename}, line {frame.lineno})"


def _overview() -> str:
  lines = [f"  {name:<10}{verb.meaning}" for name, verb in VERBS.items()]
  return "\n".join([
      "sftrl VERB ...   SFT and RL post-training compared, in JAX", "", "Verbs:", *lines, "",
      "sftrl VERB --help                   the arguments of a verb",
      "sftrl VERB --config=FILE.py --help  every key of a config: value, type, choices, meaning",
      "--config=FILE.py:smoke              any config on a toy scale, on one CPU in under a minute",
      "--debug                             prints the traceback of an error",
      "SFTRL_COMPILE_CACHE=DIR|off         where compiled programs stay (~/.cache/sftrl_jax/compiled)",
      "",
      "Exit codes: 0 complete; 1 config, data or run failed; 2 wrong arguments; 75 stopped by SIGTERM or SIGHUP and",
      "130 by Ctrl-C, a run after a checkpoint: the same command goes on.",
  ])


def _help(command: Command) -> str:
  verb = VERBS[command.verb]
  page = f"sftrl {command.verb} {verb.usage}\n\n{verb.meaning[0].upper()}{verb.meaning[1:]}."
  if "--config" not in command.flags:
    keys = "\n\nWith --config=FILE.py, --help prints every key of the config." if "--config" in verb.flags else ""
    return page + keys
  from sftrl_jax.programs.cli import config_help
  config, schema = commands.resolve_config(command)
  return f"{page}\n\n{config_help.page(config, schema)}"
