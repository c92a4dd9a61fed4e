"""Tiny runs of every kind of training, from configs of this repository, which many tests read."""

import contextlib
import functools
import json
import os
import pathlib
import runpy
import shutil
import socket
import subprocess
import sys
import types

import jax
import pytest

from sftrl_jax import jsonl, paths


@pytest.fixture(scope="package")
def stranger():
  """stranger(folder, *(old, new)) -> configs/examples/sort_numbers.py, copied there with these pieces replaced."""
  text = (pathlib.Path(__file__).parents[2] / "configs" / "examples" / "sort_numbers.py").read_text()

  def write(folder, *changes):
    changed = text
    for old, new in changes:
      assert changed.count(old) == 1, f"{old!r} is there {changed.count(old)} times"
      changed = changed.replace(old, new)
    (folder / "sort_numbers.py").write_text(changed)
    return folder / "sort_numbers.py"

  return write


TESTS = pathlib.Path(__file__).parents[1]
CONFIGS = TESTS.parent / "configs" / "general_points"
TINY = {
    "start": "scratch", "steps": "2", "flops": "0", "batch": "16", "model.width": "16", "model.layers": "1",
    "model.heads": "2", "model.unroll": "1", "env.attempts": "2", "rollout.rows": "16", "rollout.shrink": "()",
    "evals.episodes": "16", "evals.variants": "('id_seen', 'rule_ood')", "evals.log_episodes": "2", "log.every": "1",
    "log.writers": "()", "mesh.cpu_threads": "0"}
TINY_RL = {"batch": "8", "compute.microbatches": "2", "rollout.rows": "8"}
TINY_PPO = {**TINY_RL, "ppo.minibatches": "1", "ppo.kl_coef": "0.1"}
TINY_METHODS = {
    "sft": ("sft", {}), "rl": ("ppo", TINY_PPO),
    "lora": ("sft", {"lora.rank": "2", "optimizer.name": "schedule_free_adamw", "optimizer.learning_rate": "0.03",
                     "schedule.warmup": "0"}),
    "rl_lora": ("ppo", {**TINY_PPO, "lora.rank": "2", "ppo.value_layers": "(4,)", "evals.variants": "()"}),
    # Two updates of four are applied in the second iteration: target_kl stops at the first that follows another.
    "rl_guarded": ("ppo", {**TINY_PPO, "ppo.epochs": "2", "ppo.minibatches": "2", "ppo.target_kl": "1e-12",
                           "ppo.dual_clip": "3.0", "ppo.value_layers": "(8, 4)", "ppo.critic_warmup": "1",
                           "ppo.value_gradient": "True", "ppo.entropy_coef": "0.01", "steps": "3",
                           "evals.variants": "()"}),
    # The one whose rollouts shrink: every size costs programs.
    "grpo": ("grpo", {**TINY_RL, "grpo.group": "4", "grpo.minibatches": "1", "grpo.kl_coef": "0.1",
                      "rollout.shrink": "(0.5,)"}),
    "rloo": ("ppo", {**TINY_RL, "algorithm": "rloo", "rloo.group": "4", "rloo.minibatches": "1"}),
    "self_sft": ("self_sft", {**TINY_RL, "self_sft.minibatches": "2"}),
    "distill": ("distill", {**TINY_RL, "distill.minibatches": "2", "teacher.start": "scratch"}),
    "dagger": ("dagger", {**TINY_RL, "dagger.minibatches": "2"}),
    "reinforce_plus_plus": ("reinforce_plus_plus", {
        **TINY_RL, "reinforce_plus_plus.minibatches": "1", "reinforce_plus_plus.kl_coef": "0.1"})}


REWARD = '''def by_words(chat, response, verdict):
  """A model from scratch is never right, but its responses differ."""
  return len(set(response.split())) / 8.0
'''


@pytest.fixture(scope="package")
def rewriters(tmp_path_factory):
  """The path of a file with environments that rewrite their prompt, or say so: Claims, Hands, Lenient."""
  file = tmp_path_factory.mktemp("rewriters") / "tasks.py"
  file.write_text((TESTS / "rewriters.py").read_text())
  return file


@pytest.fixture(scope="package")
def shared_runs():
  """A directory that all workers have."""
  return pathlib.Path(os.environ["SFTRL_TEST_RUNS"])


@pytest.fixture(scope="package")
def words_reward(shared_runs):
  """The reward REWARD as FILE:NAME, which is a part of a run's config: one in all workers."""
  reward = shared_runs / "words.py"
  if not reward.is_file():
    part = reward.with_suffix(f".{os.getpid()}")
    part.write_text(REWARD)
    part.replace(reward)
  return f"{reward}:by_words"


@pytest.fixture(scope="package")
def tiny(one_device, words_reward):
  """tiny(method, **overrides) -> the resolved config of a run of seconds, from configs/general_points; __ is a dot.

  method: of TINY_METHODS; "rl" is PPO, "lora" SFT of adapters. RL is paid for words, so that there is an advantage.
  env: the section of another environment, by its own rewards
  """
  from sftrl_jax.programs.config import resolve
  from sftrl_jax.programs.experiment import run_config

  def make(method, env=None, **overrides):
    file, own = TINY_METHODS[method]
    changed = {**TINY, **own, **{key.replace("__", "."): str(value) for key, value in overrides.items()}}
    config, verb = resolve.load(str(CONFIGS / f"{file}.py")), "sft" if file == "sft" else "rl"
    if env:
      config.env, changed = env, {key: value for key, value in changed.items() if not key.startswith("env.")}
    elif verb == "rl":
      changed.setdefault("reward", words_reward)
    return run_config.resolve_for(verb, config, list(changed.items()), lambda _: None)

  return make


TINY_PICTURES = {
    "start": "scratch", "steps": "2", "flops": "0", "batch": "8", "model.width": "16", "model.layers": "1",
    "model.heads": "2", "model.unroll": "1", "model.channels": "(2, 3, 4)", "model.connector": "8",
    "rollout.rows": "8", "rollout.shrink": "()", "rollout.max_new_tokens": "4", "evals.variants": "()",
    "checkpoint.every": "1", "checkpoint.keep": "9", "log.every": "1", "log.writers": "()", "log.report": "False",
    "mesh.cpu_threads": "0"}


@pytest.fixture(scope="package")
def pictured(one_device, words_reward):
  """pictured(name, **overrides) -> the resolved config of a tiny run on pictures, from configs/general_points_vl; __ is
  a dot. PPO is paid for words."""
  from sftrl_jax.programs.config import resolve
  from sftrl_jax.programs.experiment import run_config
  own = {"sft": {}, "ppo": {"ppo.minibatches": "1", "reward": words_reward}}

  def make(name, **overrides):
    more = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    config, changed = resolve.load(f"{CONFIGS}_vl/{name}.py"), {**TINY_PICTURES, **own[name], **more}
    return run_config.resolve_for("sft" if name == "sft" else "rl", config, list(changed.items()), lambda _: None)

  return make


# A task of many points, whose routes take 2 to 4 of them.
TINY_ROUTES = {
    "env.name": "virl", "env.style": "compact", "env.legs": "1", "env.straight": "1",
    "evals.variants": "('id', 'rule_ood')", "rollout.prompt_tokens": "48", "rollout.feedback_tokens": "4",
    "rollout.max_new_tokens": "6", "data.length": "128", "data.careless": "0", "data.misread": "0"}


@pytest.fixture(scope="package")
def tiny_routes(one_device):
  """tiny_routes(**overrides) -> the resolved config of SFT of seconds on V-IRL; __ is a dot."""
  from sftrl_jax.programs.config import resolve
  from sftrl_jax.programs.experiment import run_config

  def make(**overrides):
    more = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    changed = {key: value for key, value in {**TINY, **TINY_ROUTES, **more}.items() if key != "env.attempts"}
    return run_config.resolve_for("sft", resolve.load(str(CONFIGS / "sft.py")), list(changed.items()), lambda _: None)

  return make


@pytest.fixture(scope="package")
def pairs(tmp_path_factory):
  """A file of 18 pairs of texts."""
  path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
  rows = [{"prompt": f"Say {word} {n}:", "chosen": f" {word}" * (1 + n % 3), "rejected": f" no {n}"[: 3 + n]}
          for n in range(6) for word in ("yes", "well", "so")]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


@pytest.fixture(scope="package")
def pair_config(one_device, pairs):
  """pair_config(objective, **overrides) -> the resolved config of a run of seconds on `pairs`; __ is a dot."""
  from ml_collections import ConfigDict

  from sftrl_jax.programs.experiment import run_config
  base = dict(steps=3, batch=4, env=dict(name="none"), tokenizer=dict(name="bytes"), start="scratch",
              model=dict(width=16, layers=1, heads=2), data=dict(path=str(pairs), length=96), objective="dpo",
              optimizer=dict(name="adamw", learning_rate=1e-2), log=dict(every=1, writers=()),
              mesh=dict(cpu_threads=0))

  def make(objective="dpo", **overrides):
    changed = {"objective": objective, **{key.replace("__", "."): str(value) for key, value in overrides.items()}}
    return run_config.resolve_for("preference", ConfigDict(base), list(changed.items()), lambda _: None)

  return make


@pytest.fixture(scope="package")
def one_device():
  """Runs inside these tests see the first device alone: what many devices change is asked in tests/training."""
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  from sftrl_jax.parallel import mesh as meshes
  from sftrl_jax.programs.runtime import compile_cache
  make = meshes.make
  # The same programs are compiled by every run here: read back what one of them has compiled, in any worker.
  compile_cache.use()
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(meshes, "make", lambda config, devices=None: make(config, devices or jax.devices()[:1]))
    yield
  jax.config.update("jax_compilation_cache_dir", None)
  compilation_cache.reset_cache()


@pytest.fixture(scope="package")
def generator():
  """A tiny model that generates pieces of 4 words; its embeddings are large, so that every word matters."""
  import jax

  from sftrl_jax.models import DecoderConfig, build
  from sftrl_jax.parallel import mesh as meshes
  from sftrl_jax.programs.sample.generate import Generator, alone
  from sftrl_jax.rollout.sample import Sampling
  from sftrl_jax.text.tokenizer import words
  tokenizer = words(tuple("abcdefghijklmnopqrstuvwxyz"))
  model = build(DecoderConfig(vocab=tokenizer.size, width=16, layers=1, heads=2, kv_heads=1, remat="none",
                              init_std=0.6))
  decoding = jax.jit(lambda key: model.decoding(model.init(key)))(jax.random.key(3))
  return Generator(model, tokenizer, decoding, meshes.make(alone(meshes.MeshConfig()), jax.devices()[:1]), Sampling(4))


@pytest.fixture(scope="package")
def run_of():
  """run_of(config, workdir): trains as the verb recorded in the config's own keys does."""
  from sftrl_jax.programs import rl, sft
  return lambda config, workdir: (rl if "algorithm" in config else sft).run(config, workdir)


@pytest.fixture(scope="package")
def lines_of():
  """lines_of(workdir, name) -> the lines of a JSON-lines file, or of its parts."""
  return lambda workdir, name: [json.loads(line) for file in jsonl.files(workdir / name)
                                for line in file.read_text().splitlines()]


@pytest.fixture(scope="package")
def finished(tiny, run_of, shared_runs):
  """finished(method) -> the workdir of a whole tiny run, or in other workers its copy: tests write into it."""
  @functools.cache
  def run(method):
    trained, own = shared_runs / method, shared_runs / f"{method}-{os.getpid()}"
    if trained.is_dir():
      return shutil.copytree(trained, own)
    run_of(tiny(method), own)
    copy = shutil.copytree(own, shared_runs / f"{method}-{os.getpid()}-copy")
    with contextlib.suppress(OSError):   # the other worker was quicker
      copy.rename(trained)
    return own

  return run


@pytest.fixture(scope="package")
def afar(bucket, tiny, run_of):
  """(workdir in a bucket of a whole tiny SFT run, what it held after every request that changed it).

  The run is that of finished("sft"), with a checkpoint after every step.
  """
  home, moments = paths.as_path("gs://bucket/afar"), []
  bucket.watch = lambda bucket: moments.append(
      {name: object for name, object in bucket.objects.items() if name.startswith("afar/")})
  run_of(tiny("sft", checkpoint__every=1, log__writers="tensorboard"), home)
  bucket.watch = lambda bucket: None
  return home, moments


@pytest.fixture
def back_to(bucket):
  """back_to(moment): the bucket is as it was then, an hour ago, and whoever wrote into it is gone."""

  def restore(moment):
    bucket.objects.clear()
    bucket.objects.update({name: object._replace(time=object.time - 3600) for name, object in moment.items()})

  return restore


@pytest.fixture(scope="package")
def reward_home(tiny):
  """reward_home(home, bias=None) -> home, as a finished run of a reward model leaves it: see tests/reward_home.py."""
  maker = runpy.run_path(str(TESTS / "reward_home.py"))["maker"]
  return maker(tiny("rl").env.to_dict())


@pytest.fixture(scope="package")
def task_files():
  """The names of tests/task_files.py."""
  return types.SimpleNamespace(**runpy.run_path(str(TESTS / "task_files.py")))


@pytest.fixture(scope="package")
def tiny_home(tmp_path_factory, one_device, task_files):
  """tiny_home(begins) -> a directory of a llama with a chat template. begins: whether its texts begin with an id of
  their own."""
  return lambda begins=False: task_files.llama(tmp_path_factory.getbasetemp() / f"tiny-{begins}", begins)


@pytest.fixture
def task_folder(tmp_path, task_files):
  """A directory with three tasks over one file of five rows: tiny_choice, tiny_answer and tiny_text."""
  pytest.importorskip("lm_eval", reason=task_files.NEEDS)
  return task_files.write_tasks(tmp_path / "tasks")


@pytest.fixture(scope="session")
def run_in_two():
  """run_in_two(code, configs, home) -> [(exit code, output)] of two processes that run `code` together."""
  def run(code, configs, home):
    with socket.create_server(("127.0.0.1", 0)) as free:
      port = free.getsockname()[1]
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    children = []
    for process in range(2):
      environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "LOCAL_DEVICES": "1", "SFTRL_PROCESSES": "2",
                     "SFTRL_COORDINATOR": f"127.0.0.1:{port}", "SFTRL_PROCESS": str(process),
                     "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
                     "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                     "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
      children.append(subprocess.Popen([sys.executable, "-c", code, json.dumps(configs), str(home)], env=environment,
                                       text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    try:
      told = [child.communicate(timeout=600)[0] for child in children]
    finally:
      for child in children:
        child.kill()   # one that waits for another would outlive the tests
    return list(zip([child.returncode for child in children], told, strict=True))
  return run
