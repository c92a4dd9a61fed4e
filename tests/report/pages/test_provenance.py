import json

from sftrl_jax.report import read_workdir
from sftrl_jax.report.pages import blocks, provenance


def test_a_difference_outside_the_method_is_a_warning(make_study, tmp_path):
  make_study(tmp_path, bases=1, episodes=20)
  differences = provenance.config_differences(read_workdir.read_study(tmp_path))
  assert not any(isinstance(block, blocks.Notice) for block in differences)
  path = tmp_path / "runs" / "base-0-ppo-0" / "config.json"
  config = json.loads(path.read_text())
  config["env"]["cards"] = 4
  path.write_text(json.dumps(config))
  notice = provenance.config_differences(read_workdir.read_study(tmp_path))[0]
  assert isinstance(notice, blocks.Notice) and notice.items == ("config.env.cards",)


def test_every_run_is_in_the_table(make_study, tmp_path):
  study = read_workdir.read_study(make_study(tmp_path, bases=2, episodes=20, skip=("base-1-sft-0",)))
  table = provenance.appendix(study)[1]
  assert [row[0] for row in table.rows] == ["base-0-sft-0", "base-0-ppo-0", "base-1-ppo-0", "base-1-sft-0"]
  assert table.rows[-1][-1] == "missing"
