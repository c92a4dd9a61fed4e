"""A tiny vision-language model, its text model alone, and rows with 0, 1 and 2 pictures; models of transformers."""

import dataclasses
import functools
import tempfile
import types
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax import models, trees
from sftrl_jax.checkpoints import hf
from sftrl_jax.inputs import Inputs
from sftrl_jax.models import lora
from sftrl_jax.models.vision.tiny import TinyVisionConfig

IMAGE = 23
CONFIG = TinyVisionConfig(vocab=24, width=16, layers=2, heads=2, mlp="plain", activation="relu", remat="none", unroll=2,
                          init_std=0.6, image_id=IMAGE, image_height=32, image_width=64, images=2,
                          channels=(2, 3, 4), connector=8, connector_std=0.6)
# (ids, pictures): a picture has two features.
ROWS = [([1, 4, 5, 6, 7], 0), ([1, IMAGE, IMAGE, 5, 6, 8], 1), ([1, IMAGE, IMAGE, 4, IMAGE, IMAGE, 9, 3], 2)]

# Of the text model of transformers' tiny ones.
TEXT = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)


@dataclasses.dataclass(frozen=True)
class Row:
  """ids, and the pictures [Y, X, 3] of their placeholders."""

  ids: list
  pictures: list


@pytest.fixture(scope="session")
def config():
  return CONFIG


@pytest.fixture(scope="session")
def vision():
  """The model, its parameters, and its functions compiled once for all tests."""
  model = models.build(CONFIG)
  params = jax.jit(model.init)(jax.random.key(1))
  decoding = jax.jit(model.decoding)(params)
  return types.SimpleNamespace(
      model=model, params=params, decoding=decoding, logits=jax.jit(model.logits),
      extend=jax.jit(functools.partial(model.extend, decoding)),
      prefill=jax.jit(functools.partial(model.prefill, decoding)))


@pytest.fixture(scope="session")
def text(vision):
  """(model of text, parameters) with the decoder of the vision model."""
  fields = {field.name: getattr(CONFIG, field.name) for field in dataclasses.fields(models.DecoderConfig)}
  params = {name: tree for name, tree in vision.params.items() if name != "vision"}
  return models.build(models.DecoderConfig(**fields)), params


@pytest.fixture(scope="session")
def shown():
  """Rows of ids with random pictures."""
  random = np.random.default_rng(3)
  draw = lambda: random.integers(0, 256, (CONFIG.image_height, CONFIG.image_width, 3)).astype(np.uint8)
  return [Row(ids, [draw() for _ in range(count)]) for ids, count in ROWS]


@pytest.fixture(scope="session")
def with_images():
  """with_images(inputs, pictures of each row) -> Inputs."""

  def add(batch, pictures):
    images = np.zeros((len(batch.tokens_BT), CONFIG.images, CONFIG.image_height, CONFIG.image_width, 3), np.uint8)
    for row, own in enumerate(pictures):
      for place, picture in enumerate(own):
        images[row, place] = picture
    return Inputs(*(jnp.asarray(x) for x in (batch.tokens_BT, batch.positions_BT, batch.segments_BT, images)))

  return add


@pytest.fixture(scope="session")
def adapted():
  """adapted(params, *targets) -> (the tree with adapters that add nothing, the same with loud ones, their paths)."""

  def attach(params, *targets):
    config, random = lora.LoraConfig(rank=2, alpha=3.0, targets=targets), np.random.default_rng(2)
    born = lora.init(config, params, jax.random.key(0))
    draw = lambda x: jnp.asarray(random.normal(size=x.shape) / np.prod(x.shape[1:-1]) ** 0.5, jnp.float32)
    both = [lora.attach(params, adapters, config) for adapters in (born, jax.tree.map(draw, born))]
    return *both, {path.rpartition("/")[0] for path in trees.leaves(born)}

  return attach


@pytest.fixture(scope="session")
def leaves():
  return trees.leaves


def weights(name, shape):
  """Any tensor of a model, from its name: norms off their rest, gates open, matrices loud enough to show."""
  noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
  if "gate" in name and len(shape) == 1:
    return 0.7 + 0.2 * noise
  if len(shape) == 1:
    return (0.0 if name.endswith("bias") or "class_embedding" in name else 1.0) + 0.2 * noise
  fan_in = np.prod(shape[1:])
  return noise * np.float32(0.5 if "embedding" in name or "embed_tokens" in name else fan_in**-0.5)


@pytest.fixture(scope="module")
def by_torch():
  """by_torch(model) -> a model of transformers with weights by their names, its directory, and ours from there."""
  torch = pytest.importorskip("torch")
  folders = []

  def saved(model):
    torch.set_num_threads(1)
    model.eval()
    with torch.no_grad():
      for name, leaf in model.named_parameters():
        leaf.copy_(torch.from_numpy(np.asarray(weights(name, tuple(leaf.shape)), np.float32)))
    folders.append(tempfile.TemporaryDirectory(prefix="sftrl-vision-"))
    home = Path(folders[-1].name)
    model.save_pretrained(home)
    loaded = hf.load(home)
    ours = models.build(loaded.config)
    return types.SimpleNamespace(torch=model, home=home, config=loaded.config, params=loaded.params, model=ours,
                                 logits=jax.jit(ours.logits), decoding=ours.decoding(loaded.params))

  yield saved
  for folder in folders:
    folder.cleanup()


@pytest.fixture(scope="session")
def text_fields():
  """The fields of a tiny text model of transformers."""
  return TEXT
