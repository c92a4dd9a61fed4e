"""A finished run read back: the same parameters give the same answers, and what is no run is told apart."""

import json

import jax
import pytest

from sftrl_jax.checkpoints import hf
from sftrl_jax.main import main
from sftrl_jax.models import DecoderConfig, build
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.evaluate import run as evaluate
from sftrl_jax.programs.experiment import saved_run
from sftrl_jax.programs.runtime.lock import only_output


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_evaluating_a_checkpoint_repeats_what_the_run_measured_at_its_end(finished, lines_of, tmp_path, verb, capsys):
  home = finished(verb)
  lines = evaluate.run(str(home), [], str(tmp_path / "out"))
  last = [line for line in lines_of(home, "evals.jsonl") if line["step"] == 2]
  same = ("step", "variant", "temperature", "outcomes", "codes", "success", "seed")
  assert [[line[key] for key in same] for line in lines] == [[line[key] for key in same] for line in last]
  assert lines_of(tmp_path / "out", "evals.jsonl") == lines
  assert "rule_ood" in capsys.readouterr().out


def test_overrides_change_what_is_evaluated_and_nothing_in_the_run(finished, tmp_path, capsys):
  home = finished("sft")
  before = (home / "config.json").read_text(), (home / "evals.jsonl").read_text()
  lines = evaluate.run(f"{home}@best:rule_ood", [("evals.episodes", "5"),
                                                               ("evals.temperatures", "(0.0,)")], str(tmp_path))
  assert [line["episodes"] for line in lines] == [5, 5] and {line["step"] for line in lines} == {2}
  assert f"{home}@best:rule_ood is step 2" in capsys.readouterr().out
  assert before == ((home / "config.json").read_text(), (home / "evals.jsonl").read_text())


def test_a_run_in_a_bucket_is_evaluated_and_reported_there(afar, lines_of, capsys):
  home, _ = afar
  lines = evaluate.run(f"{home}@best:rule_ood", [], "")
  assert lines_of(home / "evaluate" / str(lines[0]["step"]), "evals.jsonl") == lines
  again = evaluate.run(f"{home}@{lines[0]['step']}", [], "")
  assert lines_of(home / "evaluate" / str(lines[0]["step"]), "evals.jsonl") == again
  assert main(["report", str(home)]) == 0
  assert f"Report: {home}/report/report.html" in capsys.readouterr().out
  assert b"rule_ood" in (home / "report" / "report.html").read_bytes() and (home / "report" / "success.png").is_file()


@pytest.mark.parametrize("source", ["nowhere", "nowhere@x", "nowhere@best:id_seen"])
def test_what_is_no_workdir_is_refused(source, tmp_path):
  with pytest.raises(ConfigError, match="nowhere is no workdir of a run: it holds no config.json"):
    saved_run.parse(str(tmp_path / source))


def test_a_second_evaluation_into_one_directory_is_refused(finished, tmp_path):
  with only_output(tmp_path, "--workdir", inside=True):
    with pytest.raises(ConfigError, match="is being written by process .* give another --workdir"):
      evaluate.run(str(finished("sft")), [], str(tmp_path))


def test_an_evaluation_never_replaces_the_measurements_of_a_run(finished):
  home = finished("sft")
  before = (home / "evals.jsonl").read_text()
  with pytest.raises(ConfigError, match="is the workdir of a run"):
    evaluate.run(str(home), [], str(home))
  assert (home / "evals.jsonl").read_text() == before


def test_a_missing_step_names_the_steps_there_are(finished, tmp_path):
  with pytest.raises(ValueError, match="no checkpoint 7; steps there: .*2"):
    evaluate.run(f"{finished('sft')}@7", [], str(tmp_path))


def test_a_study_and_a_torn_config_are_refused(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"verb": "study"}))
  with pytest.raises(ConfigError, match="one of its runs"):
    saved_run.verb_of(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(ConfigError, match="no JSON"):
    saved_run.verb_of(tmp_path)


TASK = "configs/general_points/ppo.py"
LITTLE = [("evals.episodes", "6"), ("evals.variants", "('id_seen',)"), ("rollout.rows", "6"), ("mesh.cpu_threads", "0"),
          ("rollout.shrink", "()"), ("batch", "6"), ("ppo.minibatches", "1"), ("compute.microbatches", "1"),
          ("log.writers", "()")]


def test_a_model_without_a_run_is_evaluated_on_the_task_of_a_config(one_device, lines_of, tmp_path, monkeypatch):
  """A Hugging Face directory and a shipped base: by the start of a run, at step 0, with no distance from it."""
  monkeypatch.setenv("NPROC", "1")
  model = DecoderConfig(vocab=300, width=16, layers=1, heads=2, kv_heads=1, mlp_dim=24)
  hf.save(tmp_path / "model", model, jax.device_get(jax.jit(build(model).init)(jax.random.key(0))))
  in_bytes = [("tokenizer.name", "bytes"), ("rollout.prompt_tokens", "60"), ("rollout.feedback_tokens", "40"),
              ("rollout.max_new_tokens", "8")]
  for source, more in ((str(tmp_path / "model"), in_bytes), ("base:general_points_0", [])):
    lines = evaluate.run(source, [*LITTLE, *more], str(tmp_path / source.replace("/", "-")), TASK)
    assert {(line["step"], line["variant"], line["episodes"]) for line in lines} == {(0, "id_seen", 6)}
    assert lines_of(tmp_path / source.replace("/", "-"), "evals.jsonl") == lines
    assert next(line for line in lines if line["temperature"] == 1.0)["kl"] == 0.0


@pytest.fixture(scope="module")
def base_lines(one_device, tmp_path_factory):
  """base_lines(**evals) -> the lines of a shipped base, which is right now and then; 10 hands, decoded 6 at a time."""

  def run(**evals):
    changes = [(f"evals.{key}", str(value)) for key, value in {"episodes": 10, **evals}.items()]
    with pytest.MonkeyPatch.context() as patch:
      patch.setenv("NPROC", "1")
      return evaluate.run("base:general_points_0", [*LITTLE, *changes], str(tmp_path_factory.mktemp("base")), TASK)

  return run


def test_more_samples_leave_the_first_as_it_is(base_lines):
  one, four = base_lines(), base_lines(samples=4)
  for single, first in zip(one, four, strict=True):
    assert {key: first[key] for key in single} == single
  greedy, sampled = four
  assert sampled["outcomes"].count("0") < 10 and greedy.keys().isdisjoint({"pass_at", "distinct"})
  rates = list(sampled["pass_at"].values())
  assert list(sampled["pass_at"]) == ["1", "2", "4"] and rates == sorted(rates) and 0 < rates[0] < rates[2] <= 1
  assert 0 < sampled["distinct"] <= 4 * rates[2] and 4 * 10 * rates[0] == pytest.approx(round(4 * 10 * rates[0]))


def test_of_a_hand_the_expert_has_one_state_whose_response_is_the_first_of_the_episode(base_lines):
  line, _ = base_lines(expert_episodes=99)
  assert line["expert_states"] == 10 and line["expert_accuracy"] == line["first_right"] / 10 > 0


def test_the_table_says_what_an_attempt_is_and_of_points_the_rate_by_step(base_lines):
  lines = base_lines()
  text = evaluate.table(lines)
  assert "per step" not in text and "an attempt is a response of the episode" in text
  points = [{**line, "attempts_of": "point", "per_step": 0.123, "first_right": 1, "points": 8} for line in lines]
  text = evaluate.table(points)
  assert "12.3%" in text and "12.5%" in text and "an attempt is a try at a point" in text
  assert text.splitlines()[0].index("per step") + 8 == text.splitlines()[1].index("12.3%") + 5


def test_the_table_has_a_column_for_what_only_some_lines_measure(base_lines):
  lines = base_lines(samples=2, expert_episodes=99)
  head, greedy, sampled, *_ = evaluate.table(lines).splitlines()
  ends = {name: head.index(name) + len(name) for name in ("expert's states", "pass@2", "episodes")}
  at = lambda row, name: row[: ends[name]].split(" ")[-1]
  assert at(greedy, "expert's states") == f"{100 * lines[0]['expert_accuracy']:.1f}%" and at(greedy, "pass@2") == ""
  assert at(sampled, "pass@2") == f"{100 * lines[1]['pass_at']['2']:.1f}%" and at(sampled, "expert's states") == ""
  assert at(greedy, "episodes") == at(sampled, "episodes") == "10"


@pytest.mark.parametrize("source, spec, overrides, message", [
    ("nowhere", TASK, [], "config.start is 'nowhere'"), ("nowhere", "", [], "nowhere is no workdir of a run: a model"),
    ("RUN", TASK, [], "is for a model without a run, but .* is the workdir of a run"),
    ("scratch", TASK, [("start", "scratch")], "both name a model"),
    ("scratch", TASK, [("evals.variants", "()")], "names no variants to evaluate")])
def test_what_cannot_be_evaluated_says_why(finished, source, spec, overrides, message, tmp_path):
  source = str(finished("sft")) if source == "RUN" else source
  with pytest.raises(ConfigError, match=message):
    evaluate.run(source, [*(LITTLE if spec else []), *overrides], str(tmp_path / "out"), spec)


def test_weights_between_start_and_end_begin_and_end_with_these(finished, lines_of, tmp_path):
  home, shown = finished("sft"), ("variant", "temperature", "outcomes", "codes", "success", "seed")
  pick = lambda lines: [[line[key] for key in shown] for line in lines]
  lines, out = evaluate.interpolate(str(home), [], (0.0, 0.5, 1.0), str(tmp_path))
  assert out == tmp_path and {line["share"] for line in lines} == {0.0, 0.5, 1.0}
  for share, step in ((0, 0), (1, 2)):
    own = [line for line in lines_of(home, "evals.jsonl") if line["step"] == step]
    assert pick(line for line in lines if line["share"] == share) == pick(own)
    assert pick(lines_of(tmp_path / str(share), "evals.jsonl")) == pick(own)
  kl = {line["share"]: line["kl"] for line in lines if line["temperature"] == 1.0}
  assert 0 == kl[0] < kl[0.5] < kl[1]
  assert evaluate.share_table(lines).splitlines()[0].split() == ["variant", "temperature", "0", "0.5", "1"]


def test_the_weights_of_any_run_can_be_compared_with_its_start(finished, tmp_path, capsys):
  path = evaluate.compare_weights(str(finished("sft")), [], str(tmp_path))
  assert {row["part"] for row in json.loads(path.read_text())["rows"]} == {
      "embedding", "attention", "mlp", "norm", "head"}
  assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize(("words", "rule"), [
    (["--interpolate=0,half"], "no list of numbers"), (["--interpolate=0,2"], "has 2; a share is from 0"),
    (["--interpolate=0", "--weights"], "give a workdir, one of the two"),
    (["--weights", f"--config={TASK}"], "give a workdir, one of the two")])
def test_a_share_that_is_none_is_an_error_before_anything_is_loaded(words, rule, capsys):
  assert main(["evaluate", "nowhere", *words]) == 1
  assert rule in capsys.readouterr().err
