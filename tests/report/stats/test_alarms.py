from sftrl_jax.report import read_workdir
from sftrl_jax.report.stats import alarms


def test_alarms_are_found_with_their_first_step_and_number(log_lines, make_run, tmp_path):
  run = make_run(tmp_path / "run", "ppo", episodes=20)
  logged = len(read_workdir.read_run(run).metrics)
  run = log_lines(run, '{"step": 401, "alarm/sampler_gap": 1, "nonfinite_steps": 1}',
            '{"step": 402, "alarm/sampler_gap": 1, "alarm/kl": 0, "nonfinite_steps": 3}')
  assert alarms.raised(run) == (alarms.RaisedAlarm("sampler_gap", 2, logged + 2, 401),)
  assert alarms.skipped(run) == 4
