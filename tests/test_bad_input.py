"""What is wrong in a command or a config is told in one message, with key or file and way out, and nothing is made."""

import functools
import json
import os
import pathlib
import re

import pytest

from sftrl_jax.main import main
from sftrl_jax.programs.config import nested, resolve
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.config.values import LARGEST
from sftrl_jax.programs.experiment import run_config

ROOT = pathlib.Path(__file__).parents[1]
SFT, RL, STUDY = "configs/general_points/sft.py", "configs/general_points/ppo.py", "configs/study/general_points_cpu.py"

# A message that shows a person Python instead of what to do; of an error in a person's own file, its kind is told.
PYTHON = re.compile(r"(?<!line \d: )(?<!line \d\d: )\b\w+Error\b|Traceback|\bNoneType\b|__\w+__|positional argument|"
                    r"unexpected keyword|object at 0x|has no attribute|not subscriptable|not iterable|unhashable")


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
  """A folder to be left as it is, with the repository's configs in reach."""
  for name in ("NPROC", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL"):
    monkeypatch.setenv(name, os.environ.get(name, ""))
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  (tmp_path / "file").write_text("mine")
  for name, verb in (("run", "sft"), ("rl", "rl"), ("study", "study")):
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps({"verb": verb, "seed": 5}))
  (tmp_path / "study" / "study.json").write_text("{}")
  (tmp_path / "torn").mkdir()
  (tmp_path / "torn" / "config.json").write_text('{"verb": "sf')
  texts = {"syntax": "def get_config(:\n", "raises": "def get_config():\n  return 1 / 0\n", "none": "x = 1\n",
           "exits": "def get_config():\n  raise SystemExit(0)\n", "list": "def get_config():\n  return []\n",
           "imports": "import nothing_like_this\n", "deep": "def get_config():\n  return get_config()\n"}
  values = {"alien": "evals=dict(env=dict(cards=lambda: 0))", "nan": "model=dict(init_std=float('nan'))",
            "inf": "evals=dict(env=dict(cards=[float('inf')]))", "none": "batch=None", "empty": ""}
  for name, text in values.items():
    texts[f"config_{name}"] = f"def get_config():\n  return dict(env=dict(name='general_points'), {text})\n"
  for name, text in texts.items():
    (tmp_path / f"{name}.py").write_text(text)
  (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
  monkeypatch.chdir(tmp_path)
  return tmp_path


def listing(folder):
  return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")
          if "__pycache__" not in path.parts}


def run(verb, *keys, config=None, workdir="new"):
  config = config or {"sft": SFT, "rl": RL, "study": STUDY}[verb]
  return [verb, f"--config={config}", f"--workdir={workdir}", *(f"--config.{key}" for key in keys)]


MIX = "mix:base:general_points_0,base:general_points_1,0.5"
WRONG = {
    # a key or a value
    "a misspelt key": (run("rl", "ppo.gama=1"), 1, "config.ppo.gama is not a key", "did you mean config.ppo.gamma"),
    "a misspelt section": (run("rl", "pppo.gamma=1"), 1, "did you mean config.ppo?"),
    "a key of the other verb": (run("sft", "ppo.gamma=1"), 1, "config.ppo is not a key of this config"),
    "a section as a value": (run("rl", "ppo=1"), 1, "config.ppo is a section"),
    "a word for a number": (run("rl", "ppo.gamma=high"), 1, "config.ppo.gamma is 'high'", "float"),
    "half a step": (run("sft", "steps=1.5"), 1, "config.steps is '1.5'", "whole number"),
    "more than a device can count": (run("sft", "steps=1e12"), 1, "config.steps is 1000000000000", str(LARGEST)),
    "a number that is none": (run("rl", "optimizer.learning_rate=nan"), 1, "learning_rate is 'nan'", "finite"),
    "neither true nor false": (run("rl", "ppo.whiten=yes"), 1, "config.ppo.whiten is 'yes'", "true or false"),
    "none of the choices": (run("rl", "ppo.level=word"), 1, "'token', 'turn'"),
    "gamma out of range": (run("rl", "ppo.gamma=1.5"), 1, "config.ppo.gamma is 1.5", "[0, 1]"),
    "clip out of range": (run("rl", "ppo.clip=0"), 1, "config.ppo.clip is 0.0", "between 0 and 1"),
    "temperature out of range": (run("rl", "rollout.temperature=0"), 1, "config.rollout.temperature is 0.0", "above 0"),
    "no such heat": (run("rl", "rollout.temperature=1e9"), 1, "config.rollout.temperature is 1000000000.0", "100"),
    "evaluating below zero": (run("sft", "evals.temperatures=(-1.0,)"), 1, "config.evals.temperatures is [-1.0]"),
    "no batch": (run("sft", "batch=0"), 1, "config.batch is 0", "at least 1"),
    "a negative rate": (run("sft", "optimizer.learning_rate=-1"), 1, "config.optimizer.learning_rate is -1.0"),
    "an unknown optimizer": (run("sft", "optimizer.name=adamwx"), 1, "adamwx", "did you mean", "adamw"),
    "an unknown environment": (run("sft", "env.name=general_point"), 1, "did you mean", "general_points"),
    "an unknown variant": (run("sft", "evals.variants=id_sen,"), 1, "config.evals.variants names 'id_sen'", "id_seen"),
    "an unknown algorithm": (run("rl", "algorithm=dqn"), 1, "config.algorithm is 'dqn'", "ppo"),
    "an algorithm misspelt": (run("rl", "algorithm=gpro"), 1, "config.algorithm is 'gpro'", "did you mean grpo?"),
    "a key of another algorithm": (run("rl", "grpo.clip=0.1"), 1, "is of algorithm grpo", "--config.algorithm=grpo"),
    "an expert that is cut": (run("rl", "algorithm=dagger", "rollout.max_new_tokens=9"), 1,
                              "config.rollout.max_new_tokens is 9", "expert has 13 tokens"),
    "distillation from nobody": (run("rl", "algorithm=distill"), 1, "config.teacher.start is ''", "WORKDIR"),
    "a teacher that is not there": (run("rl", "algorithm=distill", "teacher.start=nowhere"), 1,
                                    "config.teacher.start is 'nowhere'", "has no checkpoints/"),
    "a teacher of another model": (run("rl", "algorithm=distill", "teacher.start=base:virl_0"), 1,
                                   "config.teacher.start is 'base:virl_0'", "shape"),
    "a demonstration to nobody": (run("rl", "algorithm=distill", "teacher.demonstration=expert"), 1,
                                  "config.teacher.start is ''", "--config.teacher.start=base:general_points_0"),
    "a demonstration to ppo": (run("rl", "teacher.demonstration=expert"), 1, "config.teacher.demonstration is 'expert'",
                               "algorithm ppo has no teacher"),
    "a demonstration of no kind": (run("rl", "algorithm=distill", "teacher.demonstration=mine"), 1,
                                   "config.teacher.demonstration is 'mine'", "'expert'"),
    "a demonstration of SFT": (run("sft", "sft.loss=distill", "teacher.start=base:general_points_0",
                                   "teacher.demonstration=expert"), 1, "row of SFT holds several", "algorithm=distill"),
    "a demonstration without room": (run("rl", "algorithm=distill", "teacher.start=base:general_points_0",
                                         "teacher.demonstration=expert", "teacher.demonstration_tokens=9"), 1,
                                     "config.teacher.demonstration_tokens is 9", "demonstration_tokens=24 or more"),
    "room for no demonstration": (run("rl", "algorithm=distill", "teacher.demonstration_tokens=9"), 1,
                                  "config.teacher.demonstration_tokens is 9", "demonstration='expert'"),
    "a teacher of ppo": (run("rl", "teacher.start=base:general_points_1"), 1, "algorithm ppo has no teacher"),
    "cispo with a dual clip": (run("rl", "algorithm=grpo", "grpo.surrogate=cispo", "grpo.dual_clip=3"), 1,
                               "config.grpo.dual_clip is 3.0", "surrogate='clip'"),
    "a group of one": (run("rl", "algorithm=grpo", "grpo.group=1"), 1, "config.grpo.group is 1", "at least 2"),
    "minibatches of psft that do not divide": (run("sft", "sft.loss=psft", "sft.minibatches=5"), 1,
                                               "config.sft.minibatches is 5", "divide config.batch = 64"),
    "no loss of SFT": (run("sft", "sft.loss=ce"), 1, "config.sft.loss is 'ce'", "'nll', 'dft', 'psft'"),
    "threads beyond any machine": (run("sft", "mesh.cpu_threads=1000000"), 1, "config.mesh.cpu_threads is 1000000"),
    "more devices than there are": (run("sft", "mesh.data=64"), 1, "config.mesh is data=64", "--config.mesh.fsdp=-1"),
    # what contradicts
    "top-k in training": (run("rl", "rollout.top_k=5"), 1, "config.rollout.top_k is not a key of config.rollout"),
    "two cadences": (run("rl", "evals.every=5", "evals.at=(0.5,)"), 1, "config.evals.every is 5 and at is", "only one"),
    "minibatches that do not divide": (run("rl", "ppo.minibatches=7"), 1, "config.ppo.minibatches is 7", "divide"),
    "microbatches that do not divide": (run("sft", "compute.microbatches=7"), 1, "config.compute.microbatches is 7"),
    "heads that do not divide": (run("sft", "model.heads=7"), 1, "config.model.heads is 7", "divide"),
    "a vocabulary that is too small": (run("sft", "model.vocab=5"), 1, "config.model.vocab is 5"),
    "held out of nothing": (run("sft", "env.holdout=0"), 1, "config.env.variant is 'id_unseen'", "holdout"),
    # where a run begins
    "an unknown base": (run("sft", "start=base:nobody"), 1, "config.start is 'base:nobody'", "general_points_0"),
    "a start that is no run": (run("sft", "start=nowhere"), 1, "config.start is 'nowhere'", "has no checkpoints/"),
    "a start that is a study": (run("rl", "start=study"), 1, "config.start is 'study'", "is a study; give one of"),
    "the best of nothing": (run("rl", "start=nowhere@best:id_seen"), 1, "config.start is 'nowhere@best:id_seen'"),
    "a mix of one": (run("sft", "start=mix:base:general_points_0,0.5"), 1, "config.start is 'mix:", "A,B,0.5"),
    "a mix beyond its ends": (run("sft", f"start={MIX[:-3]}2"), 1, "share is 2"),
    "a mix with nobody": (run("sft", "start=mix:base:general_points_0,base:nobody,0.5"), 1,
                          "base:nobody,0.5', whose two starts", "'base:nobody'"),
    "a mix of no mix": (run("sft", "start=mix:mix:a,b,1,b,0.5"), 1, "config.start is 'mix:mix:a,b,1,b,0.5'"),
    "a mix of another model": (run("sft", f"start={MIX}", "model.layers=2"), 1, f"config.start is '{MIX}'", "shape"),
    "an empty start": (run("rl", "start="), 1, "config.start is ''", "scratch"),
    # the workdir
    "the workdir of another config": (run("sft", workdir="run"), 1, "run holds a run of another config", "config.seed"),
    "the workdir of another verb": (run("sft", workdir="rl"), 1, "rl holds a run of `rl`", "another --workdir"),
    "a workdir that is a file": (run("sft", workdir="file"), 1, "--workdir=file is a file", "give a directory"),
    "a workdir of too many letters": (run("sft", workdir="x" * 300), 1, "--workdir=xxx", "too long"),
    "a workdir in a file": (run("rl", workdir="file/in/it"), 1, "file is a file", "give a directory"),
    "a study's workdir that is a file": (run("study", workdir="file"), 1, "--workdir=file is a file"),
    "a study in a run": (run("study", workdir="run"), 1, "run is the workdir of one sft run", "another --workdir"),
    "a study of no key": (run("study", "study.basis=3"), 1, "did you mean config.study.bases?"),
    "a study of no bases": (run("study", "study.bases=0"), 1, "config.study.bases is 0", "from 1 to 99"),
    # the config file
    "no file": (run("sft", config="nowhere.py"), 1, "there is no file nowhere.py"),
    "the file next to it": (run("sft", config="configs/general_points/sfd.py"), 1, "did you mean configs/general_poi"),
    "no Python": (run("sft", config="file"), 1, "names no Python file"),
    "a folder": (run("sft", config="configs"), 1, "names no Python file"),
    "a syntax error": (run("sft", config="syntax.py"), 1, "syntax.py, line 1"),
    "bytes": (run("sft", config="bytes.py"), 1, "bytes.py"),
    "a file that exits": (run("sft", config="exits.py"), 1, "exits.py, line 2"),
    "no get_config": (run("sft", config="none.py"), 1, "none.py defines no get_config"),
    "a config that is a list": (run("sft", config="list.py"), 1, "returned list"),
    "an unwanted choice": (run("sft", config="config_empty.py:x"), 1, "takes no choice"),
    "an unknown choice": (run("study", config=f"{STUDY}:fast"), 1, "choice is 'fast'", "quick"),
    "an import that fails": (run("sft", config="imports.py"), 1, "imports.py, line 1", "nothing_like_this"),
    "a config without end": (run("sft", config="deep.py"), 1, "deep.py, line 2", "recursion"),
    "a function in a config": (run("sft", "steps=1", "batch=8", config="config_alien.py"), 1,
                               "config.evals.env is <function", "only numbers, text"),
    "no number in a config": (run("sft", "steps=1", "batch=8", config="config_nan.py"), 1,
                              "config.model.init_std is nan", "finite"),
    "deep in a config": (run("sft", "steps=1", "batch=8", config="config_inf.py"), 1, "config.evals.env is inf"),
    "None in a config": (run("sft", "steps=1", config="config_none.py"), 1, "config.batch is None", "leave the key"),
    "a config that lacks all": (run("sft", config="config_empty.py"), 1, "config.steps is missing", "add it to the"),
    # the words
    "an unknown verb": (["tarin"], 2, "'tarin' is no verb", "Verbs: "),
    "a verb nearly": (["evalute", "run"], 2, "did you mean evaluate?"),
    "an unknown flag": (["sft", "--confg=x"], 2, "did you mean --config?"),
    "no workdir": (["rl", f"--config={RL}"], 2, "rl needs --workdir"),
    "a key without config": (["rl", "--ppo.gamma=1"], 2, "--config.ppo.gamma=VALUE"),
    # what is read back
    "evaluating nothing": (["evaluate", "nowhere"], 1, "nowhere is no workdir of a run"),
    "evaluating a torn run": (["evaluate", "torn"], 1, "config.json is no JSON", "another workdir"),
    "evaluating a study": (["evaluate", "study"], 1, "is a study; give one of its runs"),
    "tasks without a name": (["evaluate", "run", "--tasks=,"], 1, "--tasks is ','", "names, with commas"),
    "tasks beside weights": (["evaluate", "run", "--tasks=arc_easy", "--weights"], 1, "give one of the two"),
    "a limit of no task": (["evaluate", "run", "--limit=3"], 1, "--limit is of --tasks", "add --tasks="),
    "no documents of a task": (["evaluate", "run", "--tasks=arc_easy", "--limit=0"], 1, "--limit is '0'", "from 1"),
    "evaluating into a file": (["evaluate", "run", "--workdir=file"], 1, "--workdir=file is a file"),
    "a report on nothing": (["report", "nowhere"], 1, "nowhere is no workdir"),
    "a report into a file": (["report", "run", "--out=file"], 1, "--out=file is a file"),
    "configs of nowhere": (["configs", "nowhere"], 1, "no folder nowhere"),
}


@pytest.mark.parametrize("case", WRONG)
def test_it_is_told_once_and_nothing_is_made(case, sandbox, capsys):
  words, code, *parts = WRONG[case]
  before = listing(sandbox)
  assert main(words) == code
  printed = capsys.readouterr()
  assert printed.err.startswith("error: ") and printed.err.count("error: ") == 1
  for part in parts:
    assert part in printed.err, printed.err
  assert not PYTHON.search(printed.err), printed.err
  assert listing(sandbox) == before


# Numeric keys that take 0, and -1. A new key that does so belongs here; one that does not has to refuse it.
ZERO = {
    "env.earlier", "ema.decay", "data.mix.share", "evals.probe_tokens",
    "seed", "flops", "env.rewards", "env.noise", "env.pixels", "model.vocab", "model.kv_heads",
    "model.head_dim", "model.mlp_dim", "evals.every",
    "model.window", "model.context", "model.query_scale", "model.rope_context", "model.rope_local_theta",
    "model.attention_softcap", "model.logits_softcap",
    "evals.seed", "evals.temperatures", "evals.log_episodes", "optimizer.weight_decay", "optimizer.clip",
    "schedule.warmup", "schedule.updates", "schedule.end", "compute.logit_chunk", "mesh.cpu_threads",
    "checkpoint.every", "checkpoint.export_every", "lora.rank",
    "checkpoint.grace_seconds", "log.episodes", "log.megabytes", "log.watchdog_seconds", "data.careless",
    "data.misread", "data.careless_spread", "data.noise", "ppo.value_clip", "ppo.critic_warmup", "ppo.dual_clip",
    "ppo.ratio_cap", "ppo.target_kl", "evals.expert_episodes", "evals.kl_episodes", "rollout.segment",
    "rollout.feedback_images", "evals.task_limit", "evals.task_shots", "teacher.demonstration_tokens",
    "own_reward.abstain_limit", "own_reward.batch", "own_reward.memory_gib", "own_reward.output_kib", "ppo.kl_target",
    "reward_model.flops", "max_dropped", "max_without_signal", "verdict_seconds", "ppo.value_coef", "ppo.entropy_coef",
    "ppo.kl_coef",
    "ppo.gamma", "ppo.turn_gamma", "ppo.gae_lambda"}
NEGATIVE = {"mesh.fsdp", "env.rewards", "log.watchdog_seconds", "evals.task_shots"}


def numeric(config):
  """{dotted key: how a number is written for it} of every key that holds a number, or several."""
  found = {}
  for path, value in nested.flat(config.to_dict()).items():
    items = value if isinstance(value, tuple) else (value,)
    if items and all(type(item) in (int, float) for item in items):
      found[path] = "{}" if items is not value else f"({', '.join(['{}'] * len(items))},)"
  return found


@pytest.fixture(scope="module")
def judged():
  """judged(verb, path, text) -> what is said of one override, "" where nothing is; every part is built, none run."""
  from sftrl_jax.programs.experiment import build
  from sftrl_jax.programs.start import initial_params
  shapes = functools.cache(build._shapes)   # of one model hundreds of times
  files = {verb: resolve.load(str(ROOT / path)) for verb, path in (("sft", SFT), ("rl", RL))}

  def judge(verb, *override):
    overrides = [override] if override else []
    try:
      parts = build.build_experiment(run_config.resolve_for(verb, files[verb], overrides, lambda _: None), verb)
      initial_params.check_start(parts.config["start"])
    except ConfigError as error:
      return str(error)
    return ""

  judge.keys = {verb: numeric(run_config.resolve_for(verb, file, [], lambda _: None)) for verb, file in files.items()}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(build, "_shapes", lambda model: dict(shapes(model)))
    yield judge


@pytest.mark.parametrize("verb", ["sft", "rl"])
def test_no_number_is_taken_that_makes_no_sense(verb, judged):
  """-1, 0, what is no number, what is none at all, and what no device can count, for every numeric key."""
  assert not judged(verb) and len(judged.keys[verb]) > 40
  wrong, same = [], {"model", "optimizer", "schedule", "evals", "mesh", "checkpoint", "log", "lora"}
  for path, form in judged.keys[verb].items():
    if verb == "rl" and path.partition(".")[0] in same:
      continue   # no other section than that of SFT
    for text in ("-1", "0", "nan", "inf", "word", "1e30", str(10**12), str(-(10**12))):
      printed = judged(verb, path, form.format(*[text] * form.count("{}")))
      expected = {"0": path in ZERO, "-1": path in NEGATIVE, "nan": False, "inf": False, "word": False}.get(text)
      named = re.search(rf"\b{path.rpartition('.')[2]}\b", printed) or not printed
      if PYTHON.search(printed) or not named or expected not in (None, not printed):
        wrong.append(f"--config.{path}={text}: {printed or 'is taken'}")
  assert not wrong, "\n".join(wrong)
