"""From config.env and config.reward to an environment."""

import pytest

from sftrl_jax.envs.env import Rewriting, rewriting
from sftrl_jax.envs.general_points.env import GeneralPoints
from sftrl_jax.envs.referee import CheckedEnv, RewardFnEnv
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.environment import env_section, make_env, variant_env

TASK = """
import dataclasses
from sftrl_jax.envs.general_points.env import GeneralPoints

@dataclasses.dataclass(frozen=True)
class Mine(GeneralPoints):
  extra: tuple[int, ...] = (1,)

def short(chat, response, verdict):
  return -len(response)
"""


@pytest.fixture
def file(tmp_path):
  (tmp_path / "task.py").write_text(TASK)
  return str(tmp_path / "task.py")


def test_an_environment_of_the_table_is_made_as_it_is():
  env = make_env({"name": "general_points", "style": "compact", "cards": 3})
  assert env == GeneralPoints(style="compact", cards=3)
  assert variant_env({"name": "general_points", "style": "compact"}, "rule_ood").variant == "rule_ood"


def test_ones_own_is_watched_and_gets_what_it_declares(file):
  env = make_env({"name": f"{file}:Mine", "style": "compact", "extra": [4, 5]})   # a list: the config has been JSON
  assert isinstance(env, CheckedEnv) and env.extra == (4, 5) and not env.scored
  assert variant_env({"name": f"{file}:Mine"}, "id_unseen").variant == "id_unseen"


def test_a_reward_function_goes_around_either(file):
  for name in ("general_points", f"{file}:Mine"):
    env = variant_env({"name": name, "style": "compact"}, "id_seen", f"{file}:short")
    assert isinstance(env, RewardFnEnv) and env.variant == "id_seen"
    _, verdict = env.step(env.reset(0)[0], "four")
    assert verdict.reward == -4.0 and not verdict.success


def test_a_wrong_name_is_told():
  with pytest.raises(ValueError, match=r"name is 'general_point'; did you mean 'general_points'.*or path/to/file\.py"):
    env_section({"name": "general_point"})
  with pytest.raises(ConfigError, match=r"config\.env\.name is 'nowhere\.py:X', but there is no file"):
    env_section({"name": "nowhere.py:X"})


def test_an_optional_member_of_ones_own_that_means_nothing_is_refused_before_anything_runs(tmp_path):
  text = TASK.replace("(1,)\n", "(1,)\n  attempts_of = 'points'\n", 1)
  (tmp_path / "odd.py").write_text(text)
  with pytest.raises(ConfigError, match=r"config\.env of '.*odd\.py:Mine': attempts_of is 'points', but it must be"):
    make_env({"name": f"{tmp_path / 'odd.py'}:Mine"})


def test_thread_safe_is_a_bool_of_the_class_and_of_the_function(tmp_path):
  file = tmp_path / "odd.py"
  file.write_text(TASK + "\nshort.thread_safe = 1\n")
  with pytest.raises(ConfigError, match=r"config\.reward of '.*odd\.py:short': thread_safe is 1, but it must be True"):
    make_env({"name": "general_points"}, f"{file}:short")
  file.write_text(TASK.replace("(1,)\n", "(1,)\n  thread_safe = 'no'\n", 1))
  with pytest.raises(ConfigError, match=r"config\.env of '.*odd\.py:Mine': thread_safe is 'no', but it must be True"):
    make_env({"name": f"{file}:Mine"})


def test_an_environment_that_begins_new_chats_keeps_its_bounds_in_every_wrapping(file, tmp_path):
  (tmp_path / "walk.py").write_text("import dataclasses\nfrom sftrl_jax.envs.virl.env import VIRL\n\n"
                                    "@dataclasses.dataclass(frozen=True)\nclass Mine(VIRL):\n  pass\n")
  for name in ("virl", f"{tmp_path}/walk.py:Mine"):
    for reward in ("", f"{file}:short"):
      assert rewriting(make_env({"name": name, "legs": 2}, reward)) == Rewriting(2, 11)
      assert rewriting(make_env({"name": name, "legs": 2, "style": "compact"}, reward)) is None
