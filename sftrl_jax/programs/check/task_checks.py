"""A task examined without a model, before hours are spent on it: is the expert right, is the verifier sound, are the
variants apart, does every text fit? A failure names the file and line to mend."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sftrl_jax.chat import Message
from sftrl_jax.data.demonstrations import DemonstrationsConfig, demonstration, refuse
from sftrl_jax.envs import nothing
from sftrl_jax.envs.referee import TaskError
from sftrl_jax.programs.check import adversarial
from sftrl_jax.programs.check.expert_episodes import (
  CheckFailed,
  ExpertEpisodes,
  FatalCheckFailed,
  episode,
  line,
  play_expert_episodes as play_all,
  short,
  span,
)
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.text import tokenizer as tokenizers
from sftrl_jax.text.render import continued, render, response


@dataclasses.dataclass(frozen=True)
class CheckResult:
  """The result of one check.

  message: what was measured, or what is wrong
  way_out: what to do if it failed
  fatal: whether it must be mended before a model plays the task
  """

  name: str
  ok: bool
  message: str
  way_out: str = ""
  fatal: bool = False


def run_check(name: str, check: Callable[[], str]) -> CheckResult:
  """The result of check(), which returns what it measured, or raises CheckFailed or TaskError.

  Of several processes, a check that fails in one fails in all, so that they go on or end together.
  """
  try:
    mine = CheckResult(name, True, check())
  except CheckFailed as failure:
    mine = CheckResult(name, False, *failure.args, fatal=isinstance(failure, FatalCheckFailed))
  except TaskError as error:
    mine = CheckResult(name, False, str(error), fatal=True)
  from sftrl_jax.parallel import hosts  # JAX, which `sftrl check` imports only once the config is known to be right
  if not hosts.several():
    return mine
  results = [CheckResult(**fields) for fields in hosts.gathered(dataclasses.asdict(mine))]
  fatal = any(result.fatal for result in results)
  failures = [dataclasses.replace(result, message=f"process {process}: {result.message}", fatal=fatal)
              for process, result in enumerate(results) if not result.ok]
  return failures[0] if failures else mine


def examine(config: dict, inside: str = "", training: bool = True) -> Iterator[CheckResult]:
  """Yields the result of each check of a task.

  config: resolved, as plain dicts
  inside: the variant that counts as in distribution; "" for the first of evals.variants.
  training: compare the training task with the shifted variants too; off for a base that is meant to know them.
  """
  if config["env"]["name"] == nothing.NAME:
    return   # run_checks.py tries rows of one's own
  played: list[ExpertEpisodes] = []

  def play() -> str:
    played.extend(play_all(config))
    return ", ".join(f"{course.name} {len(course.episodes)}" for course in played)

  yield (first := run_check("episodes played by the expert", play))
  if first.fatal:
    return
  yield run_check("the expert is right", lambda: _right(played))
  yield run_check("a seed gives one episode", lambda: _repeated(played))
  yield run_check("in another process too", lambda: _elsewhere(config))
  yield run_check("hostile strings get verdicts", lambda: adversarial.strings_get_verdicts(played))
  yield run_check("no response beats the expert", lambda: adversarial.nothing_beats_the_expert(played))
  yield run_check("episodes end and stay ended", lambda: adversarial.episodes_end(played))
  yield run_check("variants share no episode", lambda: _apart(played, inside, training and not config["evals"]["env"]))
  yield run_check("texts fit", lambda: _fit(played, config))
  if "data" in config and not config["data"].get("path"):
    yield run_check("demonstrations are as asked for", lambda: _shown(played, config))


def _right(courses: list[ExpertEpisodes]) -> str:
  for course in courses:
    wrong = [index for index, steps in enumerate(course.episodes) if not steps[-1].verdict.success]
    if wrong:
      last = course.episodes[wrong[0]][-1]
      raise FatalCheckFailed(
          f"{line(course.env, 'expert')}: no success in {len(wrong)} of {len(course.episodes)} episodes of "
          f"{course.name}; seed {course.seeds[wrong[0]]!r}: to {short(last.chat[-1].text)} the expert answers "
          f"{short(last.response)}, which is judged {last.verdict.code!r}",
          f"let expert give what step accepts, or step accept it ({line(course.env, 'step')})")
    strange = {step.verdict.code for steps in course.episodes for step in steps} - set(course.env.codes)
    if strange:
      raise CheckFailed(f"{line(course.env, 'step')}: the verdict's code is {min(strange)!r}, but `codes` names "
                  f"{', '.join(course.env.codes)}", "let `codes` name every code that step gives")
  total = [sum(step.verdict.reward for step in steps) for course in courses for steps in course.episodes]
  return f"success in {len(total)} of {len(total)} episodes, reward {span(total)}"


def _repeated(courses: list[ExpertEpisodes]) -> str:
  count = 0
  for course in courses:
    for seed, steps in list(zip(course.seeds, course.episodes, strict=True))[:100]:
      _refuse_another(course, seed, steps, episode(course.env, seed))
      if course.env.step(steps[0].state, steps[0].response)[1] != steps[0].verdict:
        raise CheckFailed(f"{line(course.env, 'step')}: the second step from one state gives another verdict (seed "
                          f"{seed!r} of {course.name})",
                          "return a new state from step, and leave the old one as it was")
      count += 1
  return f"{count} episodes repeated, states left as they are"


def _refuse_another(course: ExpertEpisodes, seed, steps, again) -> None:
  for step, repeated in zip(steps, again, strict=False):
    for part, method in (("chat", "reset"), ("response", "expert"), ("verdict", "step")):
      before, after = getattr(step, part), getattr(repeated, part)
      if before != after:
        raise CheckFailed(f"{line(course.env, method)}: seed {seed!r} of {course.name} gives another {part} the second "
                          f"time: {short(before)}, then {short(after)}",
                          "draw from random.Random(f'{seed}'), never from a global state or a clock")


def digest(config: dict) -> str:
  """A fingerprint of the first episodes of every variant, the same in every process."""
  shown = [[(step.chat, step.response, step.verdict) for steps in course.episodes for step in steps]
           for course in play_all(config, count=10)]
  return hashlib.sha256(repr(shown).encode("utf-8", "surrogatepass")).hexdigest()


def _elsewhere(config: dict) -> str:
  """Another process hashes strings otherwise and orders sets otherwise."""
  code = ("import json, sys; from sftrl_jax.programs.check.task_checks import digest; "
          "print(digest(json.load(sys.stdin)))")
  paths = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
  done = subprocess.run([sys.executable, "-c", code], input=json.dumps(config), text=True, capture_output=True,
                        check=False, env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "1234"})
  if done.returncode:
    raise CheckFailed(f"a second process could not play the task: {done.stderr.strip()[-300:]}",
                "let the file need nothing that only this process has")
  if done.stdout.split()[-1:] != [digest(config)]:
    raise CheckFailed("a second process plays other episodes with the same seeds, so no run could be resumed",
                "use neither hash() of a str nor the order of a set: random.Random(f'{seed}') is the same everywhere")
  return "10 episodes of each variant are the same there"


def _apart(courses: list[ExpertEpisodes], inside: str, training: bool) -> str:
  """Initial chats with their right answers: those in distribution, and of training, against every other variant's."""
  shown = {course.name: {(steps[0].chat, steps[0].response) for steps in course.episodes} for course in courses}
  variants = [course.name for course in courses[1:]]
  inside = inside if inside in variants else "".join(variants[:1])
  compared = []
  for course in courses[1:]:
    for known in (inside, "training") if training else (inside,):
      if course.name == inside:
        continue
      shared = shown[known] & shown[course.name]
      if shared:
        chat, _ = min(shared, key=repr)
        raise CheckFailed(f"{line(course.env, 'reset')}: {known} and {course.name} share {len(shared)} of "
                    f"{len(shown[course.name])} initial chats, for example {short(chat[-1].text)}: {course.name} does "
                    "not measure what was never seen",
                    "let every variant draw from its own part of the task; a base that is meant to know both makes no "
                    "claim: evals.variants=()")
      compared.append(f"{known} ({len(shown[known])}) and {course.name} ({len(shown[course.name])})")
  return f"initial chats compared, none in both: {', '.join(compared)}" if compared else "there is nothing to compare"


def _tokenizer(courses: list[ExpertEpisodes], config: dict):
  name = config["tokenizer"]["name"]
  if name == "pretrained":
    from sftrl_jax.programs.start import pretrained  # it knows models, and with them JAX
    return pretrained.tokenizer(config["start"])
  return tokenizers.words(courses[0].env.words) if name == "words" else tokenizers.byte()


def _fit(courses: list[ExpertEpisodes], config: dict) -> str:
  """The longest prompt, answer and feedback against config.rollout; every word of them is known."""
  tokenizer, rollout = _tokenizer(courses, config), config["rollout"]
  longest = {"prompt_tokens": (0, ""), "feedback_tokens": (0, ""), "max_new_tokens": (0, "")}

  def measure(key: str, course: ExpertEpisodes, method: str, text: str, ids_of: Callable[[], list[int]]) -> None:
    try:
      longest[key] = max(longest[key], (len(ids_of()), text))
    except ValueError as error:
      raise FatalCheckFailed(f"{line(course.env, method)}: {error}",
                             "let `words` hold every word of every text, with single "
                       "spaces between") from error

  for course in courses:
    answers = [steps[0].response for steps in course.episodes[:20]]
    for steps in course.episodes:
      chat = steps[0].chat
      measure("prompt_tokens", course, "reset", chat[-1].text, lambda chat=chat: render(tokenizer, chat)[0])
      for step in steps:
        answered = (*step.chat, Message("assistant", step.response))
        measure("max_new_tokens", course, "expert", step.response,
                lambda answered=answered: response(tokenizer, answered))
    for steps in course.episodes[:20]:
      for answer in (*answers, "", *course.env.words):
        feedback = course.env.step(steps[0].state, answer)[1].feedback
        longer = (*steps[0].chat, Message("assistant", answer), Message("user", feedback))
        measure("feedback_tokens", course, "step", feedback, lambda longer=longer: continued(tokenizer, longer))
  for key, (length, text) in longest.items():
    if length > rollout[key] and (key != "feedback_tokens" or courses[0].env.attempts > 1):
      raise FatalCheckFailed(f"config.rollout.{key} is {rollout[key]}, but {short(text)} has {length} tokens",
                       f"--config.rollout.{key}={length} or more")
  return ", ".join(f"{key} {length} of {rollout[key]}" for key, (length, _) in longest.items())


def _shown(courses: list[ExpertEpisodes], config: dict) -> str:
  """The stream that SFT will read: it can be made, its rows fit, and what misreads is wrong."""
  fields = {key: value for key, value in config["data"].items() if key != "path"}
  shown, env = build(DemonstrationsConfig, fields, "config.data"), courses[0].env
  tokenizer = _tokenizer(courses, config)
  try:
    refuse(env, shown)
    chats = [demonstration(env, shown, config["seed"], index) for index in range(len(courses[0].episodes))]
  except TaskError:
    raise
  except ValueError as error:
    raise FatalCheckFailed(str(error), "change config.data, or give the environment what it lacks") from error
  longest = max(len(render(tokenizer, chat)[0]) for chat in chats) - 1
  if longest > shown.length:
    raise FatalCheckFailed(f"config.data.length is {shown.length}, but an example has {longest} tokens",
                     f"--config.data.length={longest} or more")
  for steps in courses[0].episodes[:100] if sum(shown.attempts[1:]) > 0 and shown.misread else ():
    response = env.misread(steps[0].state, "check")
    if env.step(steps[0].state, response)[1].correct:
      raise CheckFailed(f"{line(env, 'misread')}: {short(response)} is right, to {short(steps[0].chat[-1].text)}",
                  "let misread always be wrong")
  return f"{len(chats)} examples, the longest of {longest} tokens in rows of {shown.length}"
