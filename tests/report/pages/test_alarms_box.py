from sftrl_jax.alarms import ALARMS
from sftrl_jax.report import read_workdir, write
from sftrl_jax.report.pages import alarms_box, blocks as page, run_page, study_page
from sftrl_jax.report.stats import effects


def test_an_alarm_is_a_notice_with_its_cause_and_way_out(log_lines, make_run, tmp_path):
  run = make_run(tmp_path / "run", "ppo", episodes=20)
  logged = len(read_workdir.read_run(run).metrics)
  run = log_lines(run, '{"step": 401, "alarm/sampler_gap": 1}', '{"step": 402, "alarm/sampler_gap": 1, "alarm/kl": 0}')
  notice, = alarms_box.notices([("run", run)])
  assert notice.items == (f"sampler_gap (2 of {logged + 2} logged steps, first at step 401). "
                          f"{ALARMS['sampler_gap'].cause} {ALARMS['sampler_gap'].knob}",)


def test_a_run_without_alarms_has_no_notice(make_run, tmp_path):
  run = read_workdir.read_run(make_run(tmp_path / "run", "sft", episodes=20))
  assert alarms_box.notices([("run", run)]) == [] and alarms_box.console_line([("run", run)]) == ""


def test_runs_are_named_and_an_unknown_alarm_is_not_hidden(log_lines, make_run, tmp_path):
  runs = []
  for number in range(10):
    where = make_run(tmp_path / str(number), "sft", episodes=20, points=2)
    runs.append((f"run {number}", log_lines(where, '{"step": 200, "alarm/of_tomorrow": 1.0}')))
  notice, = alarms_box.notices(runs)
  assert "run 0: 1 of" in notice.items[0] and "run 9" not in notice.items[0] and "2 more runs" in notice.items[0]
  assert "of_tomorrow" in notice.items[0]


def test_a_study_and_a_run_say_it_before_any_table_and_the_console_names_the_run(log_lines, make_study, tmp_path,
                                                                                 monkeypatch):
  path = make_study(tmp_path, bases=1, episodes=20)
  log_lines(path / "runs" / "base-0-ppo-0", '{"step": 401, "alarm/entropy_collapse": 1.0}')
  study, measure = read_workdir.read_study(path), effects.measure
  opening = study_page.opening(study, measure(study, resamples=20), ())
  for blocks in (opening, run_page.state(study.runs[0, "ppo", 0])):
    assert "ppo.entropy_coef" in next(block for block in blocks if not isinstance(block, page.Text)).items[0]
  monkeypatch.setattr(effects, "measure", lambda study: measure(study, resamples=20))
  assert "Alarms: entropy_collapse in base-0-ppo-0" in write.summary(path)
