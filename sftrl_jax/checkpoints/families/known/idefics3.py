"""Idefics3 and SmolVLM: SigLIP's tower, pixel shuffle, and a decoder of the family llama."""

from typing import Any

from sftrl_jax.checkpoints.families import rope, table
from sftrl_jax.checkpoints.families.keys import (
    TOWER_ACTIVATIONS,
    TOWER_WRITTEN,
    WRITTEN,
    Keys,
    read_normalisation,
    read_resample,
    read_shape,
    write_normalisation,
    write_shape,
)
from sftrl_jax.checkpoints.families.known import llama
from sftrl_jax.checkpoints.families.table import Tensor
from sftrl_jax.models.vision.idefics3 import Idefics3Config
from sftrl_jax.projections import TOWER, TOWER_PROJECTIONS

CONFIG = Idefics3Config
ARCHITECTURE = "Idefics3ForConditionalGeneration"
ARCHITECTURES = {"idefics3": ARCHITECTURE, "smolvlm": "SmolVLMForConditionalGeneration"}
PROCESSORS = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}   # transformers' names begin so
DEFAULTS = {"image_token_id": 128_257, "scale_factor": 2}
VISION_DEFAULTS = {"hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
                   "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "gelu_pytorch_tanh",
                   "layer_norm_eps": 1e-6}
PICTURE_DEFAULTS = {"size": {"longest_edge": 4 * 364}, "max_image_size": {"longest_edge": 364}, "resample": 1,
                    "do_image_splitting": True, "do_resize": True}
_VISION = "model.vision_model."
NAMES = {
    **{path: Tensor(tensor.name.replace("model.", "model.text_model.", 1), tensor.axes)
       for path, tensor in {**table.LLAMA, **table.BIASES}.items()},
    "vision/tower/patch/kernel": Tensor(f"{_VISION}embeddings.patch_embedding.weight", "yxcd -> d c y x"),
    "vision/tower/patch/bias": Tensor(f"{_VISION}embeddings.patch_embedding.bias", "d -> d"),
    "vision/tower/positions": Tensor(f"{_VISION}embeddings.position_embedding.weight", "pd -> p d"),
    "vision/tower/final_norm/scale": Tensor(f"{_VISION}post_layernorm.weight", "d -> d"),
    "vision/tower/final_norm/bias": Tensor(f"{_VISION}post_layernorm.bias", "d -> d"),
    "vision/connector/proj/kernel": Tensor("model.connector.modality_projection.proj.weight", "ed -> d e"),
    **table.of_layers({
        "attn_norm/scale": ("layer_norm1.weight", "d -> d"), "attn_norm/bias": ("layer_norm1.bias", "d -> d"),
        "mlp_norm/scale": ("layer_norm2.weight", "d -> d"), "mlp_norm/bias": ("layer_norm2.bias", "d -> d"),
        **{f"{path}/kernel": (f"{each.hf}.weight", each.weight_axes) for path, each in TOWER_PROJECTIONS.items()},
        **{f"{path}/bias": (f"{each.hf}.bias", each.bias_axes) for path, each in TOWER_PROJECTIONS.items()},
    }, _VISION + "encoder.layers.{n}.%s", TOWER),
}


def describe(keys: Keys) -> Idefics3Config:
  """The model of a config.json. What only the processor's files say is as `read_pictures` of none."""
  text, vision = keys.section("text_config", llama.DEFAULTS), keys.section("vision_config", VISION_DEFAULTS)
  text.only("model_type", ("llama",), "llama")
  for name in ("use_resampler", "qk_layer_norms"):
    text.only(name, (None, False))
  vision.only("num_channels", (3,))
  side, patch = vision.integer("image_size"), vision.integer("patch_size")
  shape = {**read_shape(text, llama.BIASES), "tie_embeddings": keys.flag("tie_word_embeddings")}
  return Idefics3Config(
      **shape, **rope.read(text), activation=text.activation(), image_id=keys.integer("image_token_id", 0),
      layout=keys.only("model_type", tuple(ARCHITECTURES), "idefics3"), shuffle=keys.integer("scale_factor"),
      tower_width=vision.integer("hidden_size"), tower_layers=vision.integer("num_hidden_layers"),
      tower_heads=vision.integer("num_attention_heads"), tower_mlp_dim=vision.integer("intermediate_size"),
      tower_activation=TOWER_ACTIVATIONS[vision.only("hidden_act", tuple(TOWER_ACTIVATIONS))],
      tower_norm_eps=vision.number("layer_norm_eps"), patch=patch, tower_side=side // patch, image_height=side,
      image_width=side, image_longest=4 * side, images=17)


def written(config: Idefics3Config) -> dict:
  """The config.json of the family that is nearest to this model."""
  c = config
  side = c.image_height if c.image_height // c.patch == c.tower_side else c.tower_side * c.patch
  vision = {"model_type": f"{c.layout}_vision", "hidden_size": c.tower_width, "num_hidden_layers": c.tower_layers,
            "num_attention_heads": c.tower_heads, "intermediate_size": c.tower_mlp_dim, "num_channels": 3,
            "hidden_act": TOWER_WRITTEN[c.tower_activation], "layer_norm_eps": c.tower_norm_eps, "image_size": side,
            "patch_size": c.patch, "attention_dropout": 0.0, "initializer_range": c.init_std}
  text = {"model_type": "llama", **write_shape(c, llama.BIASES), **rope.write(c),
          "hidden_act": WRITTEN[c.activation], "pretraining_tp": 1}
  return {"model_type": c.layout, "architectures": [ARCHITECTURES[c.layout]], "image_token_id": c.image_id,
          "scale_factor": c.shuffle, "tie_word_embeddings": c.tie_embeddings, "use_cache": True, "text_config": text,
          "vision_config": vision}


def read_pictures(keys: Keys) -> dict[str, Any]:
  """The fields of the config that preprocessor_config.json gives."""
  tile = keys.section("max_image_size").integer("longest_edge")
  longest = keys.section("size").integer("longest_edge") if keys.flag("do_resize") else 0
  splitting = keys.flag("do_image_splitting")
  fields = dict(image_height=tile, image_width=tile, image_longest=longest, image_splitting=splitting,
                image_resample=read_resample(keys), **read_normalisation(keys))
  rows = -(-(longest or tile) // tile)
  return {**fields, "images": rows * rows + 1 if splitting and rows > 1 else 1}


def written_pictures(config: Idefics3Config) -> dict[str, dict]:
  """{name: contents} of the files of transformers' processor."""
  c, name = config, PROCESSORS[config.layout]
  processor = {"processor_class": f"{name}Processor"}
  longest = {"size": {"longest_edge": c.image_longest or 4 * c.image_height}, "do_resize": bool(c.image_longest)}
  return {
      "preprocessor_config.json": {
          **processor, "image_processor_type": f"{name}ImageProcessor", **longest,
          "max_image_size": {"longest_edge": c.image_height}, "do_image_splitting": c.image_splitting, "do_pad": True,
          "do_convert_rgb": True, **write_normalisation(c)},
      "processor_config.json": {**processor, "image_seq_len": c.image_tokens},
  }
