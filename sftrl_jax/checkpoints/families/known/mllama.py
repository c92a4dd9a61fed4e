"""Llama-3.2-Vision: blocks that attend to pictures between the blocks of a Llama."""

from collections.abc import Mapping
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
from sftrl_jax.checkpoints.families.table import Tensor
from sftrl_jax.models.vision.mllama.config import EXTRA_IDS
from sftrl_jax.models.vision.mllama.model import MllamaConfig
from sftrl_jax.projections import CROSS, GLOBAL, PROJECTIONS, STACK, TOWER, TOWER_PROJECTIONS

CONFIG = MllamaConfig
ARCHITECTURE = "MllamaForConditionalGeneration"
DEFAULTS = {"image_token_index": 128_256}
TEXT_DEFAULTS = {
    "vocab_size": 128_256, "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14_336, "rope_theta": 500_000.0, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131_072, "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38]}
VISION_DEFAULTS = {
    "hidden_size": 1280, "hidden_act": "gelu", "num_hidden_layers": 32, "num_global_layers": 8, "attention_heads": 16,
    "intermediate_size": 5120, "image_size": 448, "patch_size": 14, "norm_eps": 1e-5, "max_num_tiles": 4,
    "num_channels": 3, "intermediate_layers_indices": [3, 7, 15, 23, 30]}
PICTURE_DEFAULTS = {"size": {"height": 224, "width": 224}, "max_image_tiles": 4, "resample": 2}
# transformers 5 has another spelling of some names, and writes them in either.
ALIASES = ((r"^model\.(?=language_model|vision_model|multi_modal_projector)", ""),
           (r"^language_model\.(?!model\.|lm_head)", "language_model.model."), (r"^lm_head", "language_model.lm_head"))
_LAYERS, _VISION = "language_model.model.layers.{n}.%s", "vision_model."
_TOWER_LAYER = {
    **{f"{path}/kernel": (f"{each.hf.replace('out_proj', 'o_proj')}.weight", each.weight_axes)
       for path, each in TOWER_PROJECTIONS.items()},
    **{f"{path}/bias": (f"{each.hf}.bias", each.bias_axes) for path, each in TOWER_PROJECTIONS.items()
       if path.startswith("mlp/")},
    "attn_norm/scale": ("input_layernorm.weight", "d -> d"), "attn_norm/bias": ("input_layernorm.bias", "d -> d"),
    "mlp_norm/scale": ("post_attention_layernorm.weight", "d -> d"),
    "mlp_norm/bias": ("post_attention_layernorm.bias", "d -> d"),
}
_TOWER = {
    "patch/kernel": ("patch_embedding.weight", "yxcd -> d c y x"), "class": ("class_embedding", "d -> d"),
    "positions/table": ("gated_positional_embedding.embedding", "pd -> p d"),
    "positions/gate": ("gated_positional_embedding.gate", "d -> d"),
    "positions/of_shapes": ("gated_positional_embedding.tile_embedding.weight", "smpd -> s mpd"),
    **{f"{name}/{ours}": (f"{name}_positional_embedding.{theirs}", axes) for name in ("pre_tile", "post_tile")
       for ours, theirs, axes in (("table", "embedding.weight", "smd -> s md"), ("gate", "gate", "d -> d"))},
    **{f"{name}_norm/{ours}": (f"layernorm_{name}.{theirs}", "d -> d") for name in ("pre", "post")
       for ours, theirs in (("scale", "weight"), ("bias", "bias"))},
}
_GATES = {"attn_gate": ("gate_attn", "d -> d"), "mlp_gate": ("gate_ffn", "d -> d")}
_CROSS_LAYER = {
    "attn_norm/scale": ("input_layernorm.weight", "d -> d"),
    "mlp_norm/scale": ("post_attention_layernorm.weight", "d -> d"),
    "attn/q_norm/scale": ("cross_attn.q_norm.weight", "c -> c"),
    "attn/k_norm/scale": ("cross_attn.k_norm.weight", "c -> c"),
    "attn_gate": ("cross_attn_attn_gate", "d -> d"), "mlp_gate": ("cross_attn_mlp_gate", "d -> d"),
    **{f"{path}/kernel": (f"{each.hf.replace('self_attn', 'cross_attn')}.weight", each.weight_axes)
       for path, each in PROJECTIONS.items()},
}


def names(config: MllamaConfig) -> Mapping[str, Tensor]:
  """{our path of a parameter: the tensor of a checkpoint}. Blocks of both kinds are counted together there."""
  numbers = {STACK: tuple(number for number, kind in enumerate(config.order) if kind == "text"), CROSS: config.cross}
  blocks = {path: tensor for path, tensor in table.LLAMA.items() if path.startswith(STACK)}
  inside = {path.removeprefix(STACK): (tensor.name.removeprefix("model.layers.{n}."), tensor.axes)
            for path, tensor in blocks.items()}
  numbered = lambda layer, stack: {path: Tensor(tensor.name, tensor.axes, numbers=numbers[stack]) for path, tensor in
                                   table.of_layers(layer, _LAYERS, stack).items()}
  return {
      **{path: Tensor(f"language_model.{tensor.name}", tensor.axes) for path, tensor in table.LLAMA.items()
         if path not in blocks},
      **numbered(inside, STACK), **numbered(_CROSS_LAYER, CROSS),
      **{f"vision/tower/{path}": Tensor(_VISION + name, axes) for path, (name, axes) in _TOWER.items()},
      **table.of_layers(_TOWER_LAYER, _VISION + "transformer.layers.{n}.%s", TOWER),
      **table.of_layers({**_TOWER_LAYER, **_GATES}, _VISION + "global_transformer.layers.{n}.%s", GLOBAL),
      "vision/connector/proj/kernel": Tensor("multi_modal_projector.weight", "ed -> d e"),
      "vision/connector/proj/bias": Tensor("multi_modal_projector.bias", "d -> d"),
  }


def describe(keys: Keys) -> MllamaConfig:
  """The model of a config.json."""
  text, vision = keys.section("text_config", TEXT_DEFAULTS), keys.section("vision_config", VISION_DEFAULTS)
  vision.only("num_channels", (3,))
  shape, cross = read_shape(text), _numbers(text, "cross_attention_layers")
  image_id = keys.integer("image_token_index", 0)
  if not shape["vocab"] <= image_id < shape["vocab"] + EXTRA_IDS:
    raise ValueError(f"{keys.where}: image_token_index is {image_id}; it must be one of the {EXTRA_IDS} ids behind "
                     f"vocab_size = {shape['vocab']}.")
  tile, tiles, patch = (vision.integer(name) for name in ("image_size", "max_num_tiles", "patch_size"))
  config = MllamaConfig(
      **{**shape, "vocab": shape["vocab"] + EXTRA_IDS, "layers": shape["layers"] - len(cross)}, **rope.read(text),
      activation=text.activation(), image_id=image_id, cross=cross, tile=tile, tiles=tiles, patch=patch,
      tower_side=tile // patch, tower_width=vision.integer("hidden_size"),
      tower_layers=vision.integer("num_hidden_layers"), global_layers=vision.integer("num_global_layers"),
      tower_heads=vision.integer("attention_heads"), tower_mlp_dim=vision.integer("intermediate_size"),
      tower_activation=TOWER_ACTIVATIONS[vision.only("hidden_act", tuple(TOWER_ACTIVATIONS))],
      tower_norm_eps=vision.number("norm_eps"), intermediate=_numbers(vision, "intermediate_layers_indices"))
  vision.only("vision_output_dim", (config.tower_output,), config.tower_output)
  vision.only("supported_aspect_ratios", ([list(each) for each in config.shapes],),
              [list(each) for each in config.shapes])
  return config


def _numbers(keys: Keys, name: str) -> tuple[int, ...]:
  value = keys.get(name)
  if not isinstance(value, list) or any(type(number) is not int for number in value):
    raise ValueError(f"{keys.where}: {name} is {value!r}; it must be a list of numbers of layers.")
  return tuple(value)


def written(config: MllamaConfig) -> dict:
  """The config.json of the family that is nearest to this model."""
  c = config
  text = {"model_type": "mllama_text_model", **write_shape(c), **rope.write(c), "hidden_act": WRITTEN[c.activation],
          "vocab_size": c.vocab - EXTRA_IDS, "num_hidden_layers": len(c.order),
          "bos_token_id": min(128_000, c.vocab - EXTRA_IDS - 1),   # transformers refuses null, and reads it nowhere
          "cross_attention_layers": list(c.cross), "dropout": 0.0}
  vision = {"model_type": "mllama_vision_model", "hidden_size": c.tower_width, "num_hidden_layers": c.tower_layers,
            "num_global_layers": c.global_layers, "attention_heads": c.tower_heads, "num_channels": 3,
            "intermediate_size": c.tower_mlp_dim, "vision_output_dim": c.tower_output, "image_size": c.tile,
            "patch_size": c.patch, "norm_eps": c.tower_norm_eps, "max_num_tiles": c.tiles,
            "intermediate_layers_indices": list(c.intermediate), "hidden_act": TOWER_WRITTEN[c.tower_activation],
            "supported_aspect_ratios": [list(each) for each in c.shapes], "initializer_range": c.init_std}
  return {"image_token_index": c.image_id, "tie_word_embeddings": False, "text_config": text, "vision_config": vision}


def read_pictures(keys: Keys) -> dict[str, Any]:
  """The fields of the config that preprocessor_config.json gives."""
  size = keys.section("size")
  tile = size.integer("height")
  if size.integer("width") != tile:
    raise ValueError(f"{keys.where}: size is {size.values}; tiles are square.")
  for name in ("do_resize", "do_pad"):
    keys.only(name, (True,), True)
  return dict(tile=tile, tiles=keys.integer("max_image_tiles"), image_resample=read_resample(keys),
              **read_normalisation(keys))


def written_pictures(config: MllamaConfig) -> dict[str, dict]:
  """{name: contents} of the files of transformers' processor."""
  processor = {"processor_class": "MllamaProcessor"}
  return {
      "preprocessor_config.json": {
          **processor, "image_processor_type": "MllamaImageProcessor", "do_resize": True, "do_pad": True,
          "do_convert_rgb": True, "size": {"height": config.tile, "width": config.tile},
          "max_image_tiles": config.tiles, **write_normalisation(config)},
      "processor_config.json": processor,
  }
