"""Names and layouts: our parameter path -> the tensor of a Hugging Face checkpoint, its axes made of ours."""

import dataclasses
import math

import numpy as np

from sftrl_jax.projections import PROJECTIONS, STACK


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of a checkpoint, or one a layer where `name` holds {n}.

  axes: ours -> theirs, such as "dhc -> hc d" for kernel [width, heads, channels] and weight [heads * channels, width].
  """

  name: str
  axes: str

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Its shape in the checkpoint, where one layer's parameter is shaped `ours`."""
    letters, theirs = self._axes()
    sizes = dict(zip(letters, ours, strict=True))
    return tuple(math.prod(sizes[letter] for letter in group) for group in theirs)

  def inward(self, array: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    """The checkpoint's array with our axes: a view, so that a part of it reads only that part of the file."""
    letters, theirs = self._axes()
    sizes, order = dict(zip(letters, ours, strict=True)), "".join(theirs)
    apart = array.reshape([sizes[letter] for letter in order])
    return apart.transpose([order.index(letter) for letter in letters])

  def outward(self, array: np.ndarray) -> np.ndarray:
    """One layer's parameter as the checkpoint has it, in one piece."""
    letters, theirs = self._axes()
    order = [letters.index(letter) for letter in "".join(theirs)]
    return np.ascontiguousarray(array.transpose(order)).reshape(self.shape(array.shape))

  def _axes(self) -> tuple[str, list[str]]:
    ours, theirs = self.axes.split(" -> ")
    return ours, theirs.split(" ")


def of_layers(names: dict[str, tuple[str, str]], pattern: str = "model.layers.{n}.%s") -> dict[str, Tensor]:
  """{path within a block: (name within a layer, axes)} with both made whole."""
  return {STACK + path: Tensor(pattern % name, axes) for path, (name, axes) in names.items()}


# What Llama has, and with one more or less every other family.
LLAMA = {
    "embed": Tensor("model.embed_tokens.weight", "vd -> v d"),
    "unembed": Tensor("lm_head.weight", "dv -> v d"),
    "final_norm/scale": Tensor("model.norm.weight", "d -> d"),
    **of_layers({
        "attn_norm/scale": ("input_layernorm.weight", "d -> d"),
        "mlp_norm/scale": ("post_attention_layernorm.weight", "d -> d"),
        **{f"{path}/kernel": (f"{each.hf}.weight", each.weight_axes) for path, each in PROJECTIONS.items()},
    }),
}
BIASES = of_layers({f"{path}/bias": (f"{each.hf}.bias", each.bias_axes) for path, each in PROJECTIONS.items()
                    if each.bias})
HEAD_NORMS = of_layers({
    "attn/q_norm/scale": ("self_attn.q_norm.weight", "c -> c"),
    "attn/k_norm/scale": ("self_attn.k_norm.weight", "c -> c"),
})
