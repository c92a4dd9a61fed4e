"""Adapters of PEFT are their base and a product of two factors, by hand and by PEFT; what else PEFT has is refused."""

import json

import jax
import numpy as np
import pytest

from sftrl_jax import models, trees
from sftrl_jax.checkpoints import hf, peft, safetensors, source
from sftrl_jax.models.lora import LoraConfig
from sftrl_jax.projections import STACK

SIDES = {"self_attn.q_proj": (32, 24), "self_attn.v_proj": (16, 24), "self_attn.o_proj": (24, 32),
         "mlp.down_proj": (24, 20)}   # [written, read] of the model of conftest.py
TOKENS = np.arange(6)[None] * 5


@pytest.fixture
def adapters(make, tmp_path):
  """adapters(**changes) -> a directory of adapters of rank 2, written by the package safetensors, upon `model`."""
  numpy = pytest.importorskip("safetensors.numpy")
  base = make()

  def write(tensors=lambda there: None, **changes):
    home, random = tmp_path / "adapters", np.random.default_rng(3)
    home.mkdir(exist_ok=True)
    there = {}
    for n in range(3):
      for name, (written, read) in SIDES.items():
        stem = f"base_model.model.model.layers.{n}.{name}.lora_"
        there[f"{stem}A.weight"] = random.normal(size=(2, read)).astype("f")
        there[f"{stem}B.weight"] = random.normal(size=(written, 2)).astype("f")
    tensors(there)
    numpy.save_file(there, home / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": 2,
              "lora_alpha": 3, "bias": "none", "target_modules": [name.rpartition(".")[2] for name in SIDES],
              "modules_to_save": None, "rank_pattern": {}, "use_dora": False, "megatron_core": "megatron.core"}
    (home / "adapter_config.json").write_text(json.dumps({**values, **changes}))
    return home

  return write


@pytest.mark.parametrize("root", [False, True])
def test_they_are_merged_into_their_base(adapters, tmp_path, root):
  home, base = adapters(use_rslora=root), tmp_path / "model"
  loaded = peft.load(home)
  hf.save(tmp_path / "merged", loaded.config, loaded.params)
  there = {name: np.asarray(entry.read()) for name, entry in safetensors.entries(base).items()}
  factors = {name: np.asarray(entry.read()) for name, entry in safetensors.header(home / peft.WEIGHTS).items()}
  scale = 3 / 2**0.5 if root else 3 / 2
  for name, entry in safetensors.entries(tmp_path / "merged").items():
    a, b = (factors.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight") for side in "AB")
    wanted = there[name] if a is None else there[name] + scale * b @ a
    np.testing.assert_allclose(np.asarray(entry.read()), wanted, rtol=1e-5, atol=1e-5)
  assert peft.lora_of(home, loaded.config) == LoraConfig(
      2, 3.0, ("*attn/o", "*attn/q", "*attn/v", "*mlp/down"), "root" if root else "rank")


def test_what_is_written_is_what_is_read(adapters, tmp_path):
  home = adapters()
  config = peft.describe(home)
  there = peft.read(home, config)
  lora = peft.lora_of(home, config)
  assert trees.leaves(there).keys() == {f"{STACK}{path}/{side}" for side in "ab" for path in (
      "attn/q", "attn/v", "attn/o", "mlp/down")}
  peft.save(tmp_path / "again", config, there, lora, str(tmp_path / "model"), None)
  jax.tree.map(np.testing.assert_array_equal, there, peft.read(tmp_path / "again", config))
  assert peft.lora_of(tmp_path / "again", config) == lora
  with pytest.raises(ValueError, match="is not empty: give another directory"):
    peft.save(tmp_path / "again", config, there, lora, "", None)
  beside = {**there, "vision": {"connector": {"proj": {"a": np.zeros((4, 2)), "b": np.zeros((2, 24))}}}}
  with pytest.raises(ValueError, match="^vision/connector/proj is outside of the decoder's own blocks"):
    peft.save(tmp_path / "others", config, beside, lora, "", None)


def test_peft_opens_what_is_written_with_equal_logits(adapters, tmp_path):
  package, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
  from transformers import AutoModelForCausalLM
  config, home = peft.describe(adapters()), tmp_path / "adapters"
  peft.save(tmp_path / "again", config, peft.read(home, config), peft.lora_of(home, config), str(tmp_path / "model"),
            None)
  loaded = peft.load(tmp_path / "again")
  ours = np.asarray(models.build(loaded.config).logits(loaded.params, TOKENS))
  model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
  theirs = package.PeftModel.from_pretrained(model, tmp_path / "again")(torch.tensor(TOKENS)).logits
  np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-3)


def test_the_base_is_where_it_says_or_where_it_is_given(adapters, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  home = adapters(base_model_name_or_path="../model")   # beside the adapters, or here
  assert source.resolve(str(home)).kind == "peft" and peft.describe(home) == hf.describe(tmp_path / "model")
  home = adapters(base_model_name_or_path="/nowhere/model")
  with pytest.raises(ValueError, match="base of the adapters .* is /nowhere/model .*say where it is, .*adapters@BASE"):
    peft.describe(home)
  given = f"{home}@{tmp_path / 'model'}"
  assert source.resolve(given).kind == "peft" and peft.describe(given) == hf.describe(tmp_path / "model")
  with pytest.raises(ValueError, match="base_model_name_or_path is None.*give .*@BASE"):
    peft.describe(adapters(base_model_name_or_path=None))


@pytest.mark.parametrize("changes", [
    dict(peft_type="IA3"), dict(task_type="SEQ_CLS"), dict(bias="all"), dict(use_dora=True),
    dict(rank_pattern={"q_proj": 4}), dict(alpha_pattern={"q_proj": 4}), dict(modules_to_save=["lm_head"]),
    dict(layers_to_transform=[1]), dict(fan_in_fan_out=True), dict(init_lora_weights="pissa_niter_4"),
    dict(trainable_token_indices=[1]), dict(something_new=True), dict(r=0), dict(r="2"), dict(lora_alpha=-1),
    dict(lora_alpha=float("nan"))], ids=str)
def test_what_no_adapters_here_have_is_refused_by_its_key(adapters, changes):
  home, (name,) = adapters(**changes), changes
  with pytest.raises(ValueError, match=f"adapter_config.json: {name} is "):
    peft.describe(home)


PREFIX = "base_model.model.model.layers.2.self_attn.q_proj"


@pytest.mark.parametrize("change, message", [
    (lambda there: there.pop(f"{PREFIX}.lora_A.weight"), f"1 missing: {PREFIX}.lora_A.weight"),
    (lambda there: there.update({f"{PREFIX}.lora_A.weight": np.zeros((3, 24), "f")}), r"is \[3, 24\] instead of \[2"),
    (lambda there: there.update({"base_model.model.lm_head.weight": np.zeros((2, 2), "f")}), "have: base_model.model"),
    (lambda there: there.clear(), "no tensor of any")])
def test_weights_that_do_not_fit_are_one_report(adapters, change, message):
  home = adapters(change)
  with pytest.raises(ValueError, match=message):
    peft.checked(home, peft.describe(home))


def test_a_pickle_is_not_read(adapters):
  home = adapters()
  (home / "adapter_model.safetensors").rename(home / "adapter_model.bin")
  with pytest.raises(ValueError, match="holds no adapter_model.safetensors, and adapter_model.bin can run code"):
    peft.load(home)
