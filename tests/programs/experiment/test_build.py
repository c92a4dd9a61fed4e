"""A config is right as a whole, or one sentence says why not and nothing has been made."""

import jax
import pytest

from sftrl_jax.parallel import mesh as meshes, rules
from sftrl_jax.programs.config.errors import ConfigError
from sftrl_jax.programs.experiment.build import build_experiment


@pytest.mark.parametrize("verb, wrong, message", [
    ("sft", dict(optimizer__name="adamwx"), "did you mean 'adamw'"),
    ("rl", dict(ppo__gamma=1.5), "config.ppo.gamma is 1.5; it must lie in"),
    ("rl", dict(batch=10, ppo__minibatches=4), "config.ppo.minibatches is 4; it must divide config.batch = 10"),
    ("rl", dict(batch=12, ppo__minibatches=4, compute__microbatches=2), "compute.microbatches is 2"),
    ("sft", dict(batch=15, compute__microbatches=2), "compute.microbatches is 2; it must divide config.batch = 15"),
    ("sft", dict(batch=0), "config.batch is 0"), ("sft", dict(steps=0), "config.steps is 0"),
    ("sft", dict(start="base:nobody"), "config.start is 'base:nobody'"),
    ("rl", dict(start="/nowhere/run"), "config.start is '/nowhere/run'"),
    ("rl", dict(algorithm="dqn"), "config.algorithm is 'dqn'"),
    ("sft", dict(compute__exact=True), "config.compute.exact is True, but sft compares with nothing that was sampled"),
    ("rl", dict(compute__exact=True, rollout__refill=True, rollout__carry=False),
     "exact is True and config.rollout.refill too"),
    ("rl", dict(compute__exact=True, rollout__dtype="bfloat16"), "exact is True, which needs one dtype"),
    ("sft", dict(env__name="general_point"), "did you mean 'general_points'"),
    ("sft", dict(evals__variants="('id_sean',)"), "config.evals.variants names 'id_sean'"),
    ("sft", dict(tokenizer__name="wrods"), "config.tokenizer.name is 'wrods'"),
    ("sft", dict(model__vocab=3), "config.model.vocab is 3"), ("sft", dict(mesh__tensor=3), "config.mesh"),
    ("sft", dict(model__attention="cudnn"), "config.model.attention is 'cudnn', but that is a kernel of NVIDIA's GPUs"),
    ("sft", dict(model__heads=3), "config.model.heads is 3"), ("rl", dict(seed=-1), "config.seed is -1"),
    ("sft", dict(data__length=5), "config.data.length is 5, but an example has"),
    ("rl", dict(rollout__prompt_tokens=3), "use --config.rollout.prompt_tokens=11"),
    ("rl", dict(max_dropped=-1), "config.max_dropped is -1"),
    ("sft", dict(verdict_seconds="nan"), "config.verdict_seconds is"),
    ("rl", dict(verdict_workers=0), "config.verdict_workers is 0; it must be 1 (one verdict after another) or more"),
    ("sft", dict(verdict_workers=10**6), "at most 1024: each is a thread"),
    ("sft", dict(lora__rank=17), "config.lora.rank is 17, but layers/block/attn/k reads 16 channels and writes 16"),
    ("rl", dict(lora__rank=2, lora__targets="('*/w',)"), "config.lora.targets has '*/w', which matches no projection"),
    ("sft", dict(lora__rank=2, optimizer__name="galore"), "config.optimizer.name is 'galore'"),
    ("rl", dict(lora__rank=2, optimizer__freeze="('model/*',)"), "'model/*' matches no parameter; there are lora/"),
    ("sft", dict(checkpoint__export_every=1), "config.checkpoint.export_every is 1, but config.model.name"),
    ("sft", dict(optimizer__freeze="('nothing/*',)"), "'nothing/*' matches no parameter"),
    ("rl", dict(optimizer__factors__odd=0.5), "'odd' matches no parameter")])
def test_a_mistake_is_told_once_and_nothing_is_made(tiny, run_of, tmp_path, verb, wrong, message):
  with pytest.raises(ConfigError) as error:
    run_of(tiny(verb, **wrong), tmp_path / "run")
  assert message in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb, wrong, message", [
    ("sft", dict(batch=12), "config.batch is 12, but the mesh {'data': 8, 'fsdp': 1, 'tensor': 1} splits rows 8 ways: "
                            "use a multiple, for example --config.batch=16"),
    ("sft", dict(batch=16, compute__microbatches=4), "config.batch / compute.microbatches is 4, but the mesh"),
    ("rl", dict(batch=16, rollout__rows=16, ppo__minibatches=2, compute__microbatches=2),
     "config.batch / ppo.minibatches / compute.microbatches is 4, but the mesh"),
    ("rl", dict(batch=32, rollout__rows=16, compute__exact=True), "exact is True, which is for one device"),
    ("sft", dict(mesh__data=1, mesh__tensor=8, model__heads=4), "config.mesh.tensor is 8, but the model's "
     "heads is 4, so that")])
def test_what_eight_devices_cannot_split_is_told_before_anything_is_made(
    tiny, run_of, tmp_path, monkeypatch, verb, wrong, message):
  make = meshes.make
  monkeypatch.setattr(meshes, "make", lambda config, devices=None: make(config, jax.devices()))
  monkeypatch.setattr(rules, "LARGE", 2**7)
  with pytest.raises(ConfigError) as error:
    run_of(tiny(verb, **{"batch": 8, "mesh__data": 8, "mesh__fsdp": 1, **wrong}), tmp_path / "run")
  assert message in str(error.value)
  assert not list(tmp_path.iterdir())


def test_the_parts_fit_together(tiny):
  experiment = build_experiment(tiny("rl"), "rl")
  assert experiment.model.config.vocab == experiment.tokenizer.size
  assert experiment.actor.turns == experiment.env.attempts == 2
  assert experiment.actor.sampling.max_new_tokens == experiment.actor.rollout.max_new_tokens
  assert experiment.env_variant("rule_ood").variant == "rule_ood"


@pytest.mark.parametrize("change, message", [
    (dict(batch=12, grpo__group=8), "config.grpo.group is 8; it must divide config.batch = 12"),
    (dict(rollout__rows=6), "config.grpo.group is 4; it must divide config.rollout.rows = 6"),
    (dict(grpo__minibatches=3), "config.grpo.minibatches is 3; it must divide config.batch = 8"),
    (dict(grpo__minibatches=8), "config.compute.microbatches is 2; it must divide config.batch / grpo.minibatches = 1"),
    (dict(grpo__overlong_buffer=14), "config.grpo.overlong_buffer is 14; it must be at most .* = 13"),
    (dict(grpo__group=1), "config.grpo.group is 1; it must be at least 2: an episode is judged against the others"),
    (dict(grpo__clip_high=-1), "config.grpo.clip_high is -1"), (dict(optimizer__freeze="('value/*',)"), "value/")])
def test_what_cannot_be_cut_names_both_numbers(tiny, change, message):
  with pytest.raises(ConfigError, match=message):
    build_experiment(tiny("grpo", **change), "rl")


RARE = '''
import dataclasses
from sftrl_jax.chat import Message
from sftrl_jax.envs.general_points.env import GeneralPoints

@dataclasses.dataclass(frozen=True)
class Rare(GeneralPoints):
  """Of eight first prompts `long` are long, and `down` never come."""
  long: int = 1
  down: int = 1

  def reset(self, seed):
    state, chat = super().reset(seed)
    number = int(str(seed).split()[-1])
    if number < self.down:
      raise ConnectionError("the server is down")
    return state, (Message("user", " ".join([chat[0].text] * 2)),) if number < self.down + self.long else chat
'''


def test_a_few_prompts_that_do_not_fit_or_do_not_come_are_left_to_the_run(tiny, tmp_path):
  file = tmp_path / "rare.py"
  file.write_text(RARE)
  own = dict(env__name=f"{file}:Rare", evals__variants="()")
  rare = lambda **changes: build_experiment(tiny("rl", **own, **changes), "rl")
  assert rare().config["max_dropped"] == 100
  for wrong, message in ((dict(env__long=5), "use --config.rollout.prompt_tokens="), (dict(max_dropped=0), "or more"),
                         (dict(env__down=8), r"rare\.py, line \d+, in reset: ConnectionError: the server is down")):
    with pytest.raises(ConfigError, match=message):
      rare(**wrong)


def test_the_chats_of_a_variant_fit_into_the_rows_of_training(tiny):
  route = {"name": "virl", "legs": 1, "straight": 1}
  build = lambda **changes: build_experiment(tiny("rl", route, tokenizer__name="bytes", rollout__prompt_tokens=900,
                                                  evals__variants="('id',)", **changes), "rl")
  actor = build().actor
  assert (actor.turns, actor.row_turns, actor.episode_rows, actor.carries) == (4, 2, 2, False)
  with pytest.raises(ConfigError, match="config.evals.env makes 'id' keep one growing chat, but config.env does not"):
    build(evals__env="{'style': 'compact'}")
  with pytest.raises(ConfigError, match="gives 'id' up to 3 chats of 2 responses, but config.env has 2 of 2"):
    build(evals__env="{'legs': 2}")


def test_an_evaluation_has_no_more_attempts_than_training(tiny):
  attempts = build_experiment(tiny("rl"), "rl").env.attempts
  build_experiment(tiny("rl", evals__env=f"{{'attempts': {attempts - 1}}}"), "rl")
  with pytest.raises(ConfigError, match=rf"config.evals.env gives '\w+' {attempts + 1} attempts, but config.env has "):
    build_experiment(tiny("rl", evals__env=f"{{'attempts': {attempts + 1}}}"), "rl")
