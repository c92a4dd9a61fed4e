"""Names and layouts: our parameter path -> the tensor of a Hugging Face checkpoint and its axes."""

import dataclasses
import math

import numpy as np

from sftrl_jax.projections import PROJECTIONS, STACK


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of a checkpoint, or one for each layer if `name` has {n}.

  axes: ours -> theirs, such as "dhc -> hc d" for kernel [width, heads, channels] and weight [heads * channels, width]
  part: where several parameters share a tensor, one below another, the place of this one
  numbers: {n} of each layer, where these are not counted from 0
  """

  name: str
  axes: str
  part: int = 0
  numbers: tuple[int, ...] = ()

  def of_layer(self, index: int) -> str:
    """The name of the tensor of a layer of the stack, or of the tensor if it is of no layer."""
    return self.name.format(n=self.numbers[index] if self.numbers else index)

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Its shape in the checkpoint; ours: the shape of one layer's parameter."""
    letters, theirs = self._axes()
    sizes = dict(zip(letters, ours, strict=True))
    return tuple(math.prod(sizes[letter] for letter in group) for group in theirs)

  def inward(self, array: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    """The checkpoint's array with our axes, of shape `ours`: a view, so that a slice reads only a part of the file."""
    letters, theirs = self._axes()
    sizes, order = dict(zip(letters, ours, strict=True)), "".join(theirs)
    ungrouped = array.reshape([sizes[letter] for letter in order])
    return ungrouped.transpose([order.index(letter) for letter in letters])

  def outward(self, array: np.ndarray) -> np.ndarray:
    """One layer's parameter with the checkpoint's axes, C-contiguous."""
    letters, theirs = self._axes()
    order = [letters.index(letter) for letter in "".join(theirs)]
    return np.ascontiguousarray(array.transpose(order)).reshape(self.shape(array.shape))

  def _axes(self) -> tuple[str, list[str]]:
    ours, theirs = self.axes.split(" -> ")
    return ours, theirs.split(" ")


def of_layers(names: dict[str, tuple[str, str]], pattern: str = "model.layers.{n}.%s", stack: str = STACK
              ) -> dict[str, Tensor]:
  """{path in the tree: Tensor} from {path within a block: (name within a layer, axes)}."""
  return {stack + path: Tensor(pattern % name, axes) for path, (name, axes) in names.items()}


# The tensors of Llama; other families differ in a few.
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
POST_NORMS = of_layers({
    "attn_post_norm/scale": ("post_attention_layernorm.weight", "d -> d"),
    "mlp_post_norm/scale": ("post_feedforward_layernorm.weight", "d -> d"),
})
HEAD_NORMS = of_layers({
    "attn/q_norm/scale": ("self_attn.q_norm.weight", "c -> c"),
    "attn/k_norm/scale": ("self_attn.k_norm.weight", "c -> c"),
})
