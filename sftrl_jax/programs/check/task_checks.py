"""Checks of a task without a model: is the expert right, is the verifier sound, are the variants disjoint, do all texts
fit? A failure names the file and line to mend."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sftrl_jax.chat import Chat, Message, continues
from sftrl_jax.data.demonstrations import DemonstrationsConfig, demonstration, refuse
from sftrl_jax.envs import nothing
from sftrl_jax.envs.env import Env, rewriting, verifies
from sftrl_jax.envs.referee import TaskError, location
from sftrl_jax.programs.check import adversarial, expert_episodes, verdict_checks
from sftrl_jax.programs.check.expert_episodes import CheckFailed, ExpertEpisodes, FatalCheckFailed, short
from sftrl_jax.programs.config.resolve import build
from sftrl_jax.text.render import continued, render, response
from sftrl_jax.text.tokenizer import Tokenizer, byte, words


@dataclasses.dataclass(frozen=True)
class CheckResult:
  """The result of one check.

  message: what was measured, or what is wrong
  way_out: what to do if it failed
  fatal: a model cannot play the task before this is mended
  """

  name: str
  ok: bool
  message: str
  way_out: str = ""
  fatal: bool = False


def run_check(name: str, check: Callable[[], str]) -> CheckResult:
  """Runs a check, which returns what it measured or raises CheckFailed or TaskError.

  All processes of a run call this together. If one of them fails, all return a failure, so that they go on or end
  together.
  """
  try:
    result = CheckResult(name, True, check())
  except CheckFailed as error:
    result = CheckResult(name, False, *error.args, fatal=isinstance(error, FatalCheckFailed))
  except TaskError as error:
    result = CheckResult(name, False, str(error), fatal=True)
  from sftrl_jax.parallel import hosts  # JAX, which `sftrl check` imports only once the config is known to be right
  if not hosts.several():
    return result
  results = [CheckResult(**fields) for fields in hosts.gathered(dataclasses.asdict(result))]
  fatal = any(each.fatal for each in results)
  failures = [dataclasses.replace(each, message=f"process {process}: {each.message}", fatal=fatal)
              for process, each in enumerate(results) if not each.ok]
  return failures[0] if failures else result


def check_task(config: dict, id_variant: str = "", training: bool = True) -> Iterator[CheckResult]:
  """Runs the checks of a task one by one: the caller prints each result before the next check begins.

  config: a resolved config as plain dicts
  id_variant: the variant that counts as in distribution; "" for the first of evals.variants
  training: whether the training task may share no episode with the shifted variants; False for a base that is meant to
    know them
  """
  if config["env"]["name"] == nothing.NAME:
    return   # run_checks tries rows of one's own
  played: list[ExpertEpisodes] = []

  def play() -> str:
    played.extend(expert_episodes.play_expert_episodes(config))
    return ", ".join(f"{variant.name} {len(variant.episodes)}" for variant in played)

  yield (first := run_check("episodes played by the expert", play))
  if first.fatal:
    return
  judges, batch_function = verifies(played[0].env), verdict_checks.batch_function(config)
  rewarded = all(step.verdict.reward is not None for variant in played for steps in variant.episodes for step in steps)
  disjoint_training = training and not config["evals"]["env"]
  if judges:
    yield run_check("the expert is right", lambda: _check_expert(played))
  yield run_check("a seed gives one episode", lambda: _check_seeds(played))
  yield run_check("in another process too", lambda: _check_other_process(config))
  yield run_check("hostile strings get verdicts", lambda: adversarial.check_hostile_strings(played))
  if judges and rewarded:   # else others than this environment say what is good
    yield run_check("no response beats the expert", lambda: adversarial.check_rewards(played))
  yield run_check("episodes end and stay ended", lambda: adversarial.check_episode_ends(played))
  yield run_check("seconds of verdicts", lambda: verdict_checks.check_seconds(played, config))
  if batch_function is not None:
    yield run_check("the reward function scores a batch", lambda: verdict_checks.check_batch(
        played[0], batch_function, config, _make_tokenizer(played, config)))
  yield run_check("variants share no episode", lambda: _check_disjoint(played, id_variant, disjoint_training))
  yield run_check("texts fit", lambda: _check_lengths(played, config))
  if "attempts" in config.get("data", {}):   # else there are rows, or pairs, in their place
    yield run_check("demonstrations are as asked for", lambda: _check_demonstrations(played, config))


def _check_expert(variants: Sequence[ExpertEpisodes]) -> str:
  for variant in variants:
    wrong = [index for index, steps in enumerate(variant.episodes) if not steps[-1].verdict.success]
    if wrong:
      last = variant.episodes[wrong[0]][-1]
      raise FatalCheckFailed(
          f"{location(variant.env, 'expert')}: no success in {len(wrong)} of {len(variant.episodes)} episodes of "
          f"{variant.name}; seed {variant.seeds[wrong[0]]!r}: to {short(last.chat[-1].text)} the expert answers "
          f"{short(last.response)}, which is judged {last.verdict.code!r}",
          f"let expert give what step accepts, or step accept it ({location(variant.env, 'step')})")
    unknown = {step.verdict.code for steps in variant.episodes for step in steps} - set(variant.env.codes)
    if unknown:
      raise CheckFailed(f"{location(variant.env, 'step')}: the verdict's code is {min(unknown)!r}, but `codes` names "
                        f"{', '.join(variant.env.codes)}", "let `codes` name every code that step gives")
  rewards = [[step.verdict.reward for step in steps] for variant in variants for steps in variant.episodes]
  sums = [sum(steps) for steps in rewards if None not in steps]
  return f"success in {len(rewards)} of {len(rewards)} episodes" + (
      f", reward {expert_episodes.span(sums)}" if sums else "; others give the rewards")


def _check_seeds(variants: Sequence[ExpertEpisodes]) -> str:
  """Plays episodes a second time: a seed gives the same one, and `step` leaves the old state as it was."""
  count = 0
  for variant in variants:
    for seed, steps in list(zip(variant.seeds, variant.episodes, strict=True))[:100]:
      _compare_steps(variant, seed, steps, expert_episodes.play_episode(variant.env, seed))
      if variant.env.step(steps[0].state, steps[0].response)[1] != steps[0].verdict:
        raise CheckFailed(
            f"{location(variant.env, 'step')}: the second step from one state gives another verdict (seed {seed!r} of "
            f"{variant.name})", "return a new state from step, and leave the old one as it was")
      count += 1
  return f"{count} episodes repeated, states left as they are"


def _compare_steps(variant: ExpertEpisodes, seed: int | str, first: Sequence, second: Sequence) -> None:
  for steps in zip(first, second, strict=False):
    for field, method in (("chat", "reset"), ("response", "expert"), ("verdict", "step")):
      before, after = (getattr(step, field) for step in steps)
      if before != after:
        raise CheckFailed(f"{location(variant.env, method)}: seed {seed!r} of {variant.name} gives another {field} the "
                          f"second time: {short(before)}, then {short(after)}",
                          "draw from random.Random(f'{seed}'), never from a global state or a clock")


def digest(config: dict) -> str:
  """Returns a hash of the first episodes of every variant, the same in every process."""
  shown = [[(step.chat, step.response, step.verdict) for steps in variant.episodes for step in steps]
           for variant in expert_episodes.play_expert_episodes(config, count=10)]
  return hashlib.sha256(repr(shown).encode("utf-8", "surrogatepass")).hexdigest()


def _check_other_process(config: dict) -> str:
  """Plays in a process that hashes strings with another seed, and so orders sets otherwise."""
  code = f"import json, sys; from {__name__} import digest; print(digest(json.load(sys.stdin)))"
  paths = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
  child = subprocess.run([sys.executable, "-c", code], input=json.dumps(config), text=True, capture_output=True,
                         check=False, env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "1234"})
  if child.returncode:
    raise CheckFailed(f"a second process could not play the task: {child.stderr.strip()[-300:]}",
                      "let the file need nothing that only this process has")
  if child.stdout.split()[-1:] != [digest(config)]:
    raise CheckFailed("a second process plays other episodes with the same seeds, so no run could be resumed",
                      "use neither hash() of a str nor the order of a set: random.Random(f'{seed}') is the same "
                      "everywhere")
  return "10 episodes of each variant are the same there"


def _check_disjoint(variants: Sequence[ExpertEpisodes], id_variant: str, training: bool) -> str:
  """Compares the initial chats and answers of the in-distribution variant, and of training, with all the others'."""
  openings = {variant.name: {(steps[0].chat, steps[0].response) for steps in variant.episodes} for variant in variants}
  names = [variant.name for variant in variants[1:]]
  id_variant = id_variant if id_variant in names else "".join(names[:1])
  compared = []
  for variant in variants[1:]:
    if variant.name == id_variant:
      continue
    for known in (id_variant, "training") if training else (id_variant,):
      shared = openings[known] & openings[variant.name]
      if shared:
        chat, _ = min(shared, key=repr)
        raise CheckFailed(
            f"{location(variant.env, 'reset')}: {known} and {variant.name} share {len(shared)} of "
            f"{len(openings[variant.name])} initial chats, for example {short(chat[-1].text)}: {variant.name} does not "
            "measure what was never seen",
            "let every variant draw from its own part of the task; a base that is meant to know both makes no claim: "
            "evals.variants=()")
      compared.append(f"{known} ({len(openings[known])}) and {variant.name} ({len(openings[variant.name])})")
  return f"initial chats compared, none in both: {', '.join(compared)}" if compared else "there is nothing to compare"


def _make_tokenizer(variants: Sequence[ExpertEpisodes], config: dict) -> Tokenizer:
  name = config["tokenizer"]["name"]
  if name == "pretrained":
    from sftrl_jax.programs.start import pretrained  # it imports models, and with them JAX
    return pretrained.tokenizer(config["start"])
  if any(message.image is not None for message in variants[0].episodes[0][0].chat):
    # It imports models, and with them JAX.
    from sftrl_jax.programs.experiment.network.parts import own_tokenizer_with_pictures
    return own_tokenizer_with_pictures(name, variants[0].env, config["model"])
  return words(variants[0].env.words) if name == "words" else byte()


# Key of config.rollout: the method that gives the last text of a chat, and the ids of that text.
LIMITS = {
    "prompt_tokens": ("reset", lambda tokenizer, chat: render(tokenizer, chat)[0]),
    "feedback_tokens": ("step", continued),
    "max_new_tokens": ("expert", response),
}


def _check_lengths(variants: Sequence[ExpertEpisodes], config: dict) -> str:
  """Holds the longest prompt, feedback and answer against config.rollout; the tokenizer must know all their words."""
  tokenizer, rollout = _make_tokenizer(variants, config), config["rollout"]
  longest = dict.fromkeys(LIMITS, (0, ""))

  def measure(key: str, variant: ExpertEpisodes, chat: Chat) -> None:
    method, tokenize = LIMITS[key]
    try:
      longest[key] = max(longest[key], (len(tokenize(tokenizer, chat)), chat[-1].text))
    except ValueError as error:
      raise FatalCheckFailed(f"{location(variant.env, method)}: {error}",
                             "let `words` hold every word of every text, with single spaces between") from error

  for variant in variants:
    answers = [steps[0].response for steps in variant.episodes[:20]]
    for steps in variant.episodes:
      for step, before in zip(steps, (None, *steps), strict=False):
        if before is None or _begins_anew(variant.env, before.chat, before.response, step.chat):
          measure("prompt_tokens", variant, step.chat)
        if verifies(variant.env):   # else nobody waits for this response
          measure("max_new_tokens", variant, (*step.chat, Message("assistant", step.response)))
    for steps in variant.episodes[:20]:
      for answer in (*answers, "", *variant.env.words):
        verdict, chat = variant.env.step(steps[0].state, answer)[1], steps[0].chat
        if verdict.chat is None or not _begins_anew(variant.env, chat, answer, verdict.chat):
          measure("feedback_tokens", variant, (*chat, Message("assistant", answer), Message("user", verdict.feedback)))
  for key, (length, text) in longest.items():
    if length > rollout[key] and (key != "feedback_tokens" or variants[0].env.attempts > 1):
      raise FatalCheckFailed(f"config.rollout.{key} is {rollout[key]}, but {short(text)} has {length} tokens",
                             f"--config.rollout.{key}={length} or more")
  return ", ".join(f"{key} {length} of {rollout[key]}" for key, (length, _) in longest.items())


def _begins_anew(env: Env, before: Chat, response: str, chat: Chat) -> bool:
  """Whether `chat` is another one than that answered before, and so is read as a prompt."""
  return bool(rewriting(env)) and not continues(before, response, chat)


def _check_demonstrations(variants: Sequence[ExpertEpisodes], config: dict) -> str:
  """Makes the stream that SFT will read: its rows fit, and `misread` is always wrong."""
  fields = {key: value for key, value in config["data"].items() if key != "path"}
  data, training = build(DemonstrationsConfig, fields, "config.data"), variants[0]
  tokenizer = _make_tokenizer(variants, config)
  try:
    refuse(training.env, data)
    examples = [demonstration(training.env, data, config["seed"], index) for index in range(len(training.episodes))]
  except TaskError:
    raise
  except ValueError as error:
    raise FatalCheckFailed(str(error), "change config.data, or give the environment what it lacks") from error
  longest = max(len(render(tokenizer, shown.chat)[0]) for shown in examples) - 1
  if longest > data.length:
    raise FatalCheckFailed(f"config.data.length is {data.length}, but an example has {longest} tokens",
                           f"--config.data.length={longest} or more")
  for steps in training.episodes[:100] if sum(data.attempts[1:]) > 0 and data.misread else ():
    misread = training.env.misread(steps[0].state, "check")
    if training.env.step(steps[0].state, misread)[1].correct:
      raise CheckFailed(
          f"{location(training.env, 'misread')}: {short(misread)} is right, to {short(steps[0].chat[-1].text)}",
          "let misread always be wrong")
  return f"{len(examples)} examples, the longest of {longest} tokens in rows of {data.length}"
