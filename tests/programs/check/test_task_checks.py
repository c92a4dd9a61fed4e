"""A stranger's task without a model: a right one passes, and each mistake is told with the file and line to mend."""

import json
import re

import pytest

from sftrl_jax.programs.check import task_checks
from sftrl_jax.programs.config import nested, resolve
from sftrl_jax.programs.experiment import run_config

STEP, EXPERT, RESET = (r"sort_numbers\.py, line \d+, in " + name for name in ("step", "expert", "reset"))
RIGHT = "right = response == self.expert(state)"


@pytest.fixture
def findings(stranger, tmp_path, monkeypatch):
  """findings(*(old, new), choice=..., elsewhere=...) -> {name of the check: its Finding} of the changed task."""
  def examine(*changes, choice="sft", elsewhere=False, **overrides):
    if not elsewhere:
      monkeypatch.setattr(task_checks, "_elsewhere", lambda config: "")
    path = stranger(tmp_path, *changes)
    config = run_config.resolve_for("rl" if choice == "rl" else "sft", resolve.load(f"{path}:{choice}"),
                                  [(key.replace("__", "."), value) for key, value in overrides.items()], lambda _: None)
    return {finding.name: finding for finding in task_checks.examine(json.loads(json.dumps(nested.plain(config))))}
  return examine


def test_the_task_of_the_readme_passes(findings):
  found = findings(elsewhere=True)
  assert all(finding.ok for finding in found.values()) and len(found) == 10
  assert found["the expert is right"].message == "success in 900 of 900 episodes, reward 1"
  assert found["texts fit"].message == "prompt_tokens 6 of 6, feedback_tokens 1 of 1, max_new_tokens 5 of 5"
  assert "three" in found["variants share no episode"].message and "four" in found["variants share no episode"].message
  assert "longest of 8 tokens in rows of 64" in found["demonstrations are as asked for"].message
  assert all(finding.ok for finding in findings(choice="base").values())


@pytest.mark.parametrize("changes, check, told", [
    ([("key=int", "key=str")], "the expert is right", None),
    ([(RIGHT, "right = response == ' '.join(sorted(state[0]))")], "the expert is right",
     EXPERT + ": no success in .* the expert answers "),
    ([(RIGHT, "right = sorted(map(int, response.split())) == sorted(map(int, numbers))")],
     "hostile strings get verdicts", STEP + ": ValueError: invalid literal.*\n.*Every str gets a verdict"),
    ([(RIGHT, "right = response == self.expert(state) or not response")], "hostile strings get verdicts",
     STEP + ": '' is judged a success"),
    ([("reward=float(right)", "reward=None")], "episodes played by the expert", STEP + ": the reward is None"),
    ([("reward=float(right)", "reward=float('nan')")], "episodes played by the expert", STEP + ": the reward is nan"),
    ([("reward=float(right)", "reward='1'")], "episodes played by the expert", STEP + ": the reward is '1'"),
    ([("reward=float(right)", "reward=-float(right)")], "no response beats the expert", STEP + ": .*gets the reward"),
    ([("return (numbers, True), Verdict(", "return Verdict(")], "episodes played by the expert",
     STEP + r": it returned Verdict\(.*must return \(state, verdict\)"),
    ([("truncated=False", "truncated=True")], "episodes played by the expert",
     STEP + ": terminated and truncated are both"),
    ([("terminated=True", "terminated=False")], "episodes played by the expert", STEP + ": chat is None, but neither"),
    ([("raise ValueError(\"the episode has ended: reset(seed) begins another\")", "pass")],
     "episodes end and stay ended", STEP + ": a state whose episode has ended gets another verdict"),
    ([("random.Random(f\"{self.variant} {seed}\")", "random.Random()")], "a seed gives one episode",
     RESET + ": seed .* gives another chat the second time"),
    ([("\"four\": 4", "\"four\": 3"), ("f\"{self.variant} {seed}\"", "f\"{str(seed)[-1]}\"")],
     "variants share no episode", RESET + r": three and four share \d+ of "),
    ([("\"RIGHT\" if right else \"WRONG\",", "\"RIGHT\" if right else \"FALSE\",")], "texts fit",
     STEP + ": 'FALSE' is no word"),
    ([("prompt_tokens=6", "prompt_tokens=5")], "texts fit", r"prompt_tokens is 5, but 'SORT .*' has 6 tokens"),
    ([("max_new_tokens=5", "max_new_tokens=4")], "texts fit", r"max_new_tokens is 4, but .* has 5 tokens"),
    ([("\"sft\": dict(steps=400)", "\"sft\": dict(steps=400, data=dict(length=6))")], "demonstrations are as asked for",
     r"data\.length is 6, but an example has 7 tokens|data\.length is 6, but an example has 8 tokens|length is 6"),
])
def test_a_mistake_is_told_with_the_line_to_mend(findings, changes, check, told):
  found = findings(*changes)
  failed = {name: finding for name, finding in found.items() if not finding.ok}
  if told is None:   # the expert's order is also what step accepts: consistent, though not what was meant
    assert not failed
    return
  assert check in failed, found
  assert re.search(told, failed[check].message), failed[check].message


def test_what_depends_on_the_process_is_told(findings):
  found = findings(("random.Random(f\"{self.variant} {seed}\")", "random.Random(hash(f\"{self.variant} {seed}\"))"),
                   elsewhere=True)
  assert not found["in another process too"].ok and found["a seed gives one episode"].ok
  assert "no run could be resumed" in found["in another process too"].message


def test_a_base_that_knows_both_makes_no_claim(findings):
  assert findings(choice="base")["variants share no episode"].message == "there is nothing to compare"
  both = {"env__counts": "(3, 4)"}
  found = findings(("randrange(20)", "randrange(3)"), **both)["variants share no episode"]
  assert not found.ok and "training and four share" in found.message


def test_a_reward_function_is_what_counts(findings, tmp_path):
  (tmp_path / "rewards.py").write_text("def brief(chat, response, verdict):\n  return -len(response)\n\n"
                                       "def nothing(chat, response, verdict):\n  return None\n")
  found = findings(reward=f"{tmp_path}/rewards.py:brief")
  assert "gets the reward" in found["no response beats the expert"].message
  found = findings(("reward=float(right)", "reward=None"), reward=f"{tmp_path}/rewards.py:nothing")
  assert re.search(r"rewards\.py, line 4, in nothing: the reward is None",
                   found["episodes played by the expert"].message)
