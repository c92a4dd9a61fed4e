"""FLOPs of going over rows once, by their length and by what is computed for them."""

import dataclasses

from sftrl_jax.models import flops, heads
from sftrl_jax.models.config import DecoderConfig
from sftrl_jax.training.updates.lengths import prompt_columns


@dataclasses.dataclass(frozen=True)
class StepFlops:
  """FLOPs of one step of a run, or of one pass over rows."""

  train: float
  score: float = 0.0


@dataclasses.dataclass(frozen=True)
class PassFlops:
  """What is computed for a row of RL.

  config: of the model; teacher: of a teacher, or None, which reads `before` tokens more than a row has
  adapters: parameters of adapters, where these alone are trained; adapts_pictures: whether some are in the tower
  reads_reference: whether rows are scored by the start too; it has no adapters
  value_layers: hidden layers of a value head; own_critic: whether it has a trunk of its own
  prompt, group: columns before a row of `longest` that are computed once for `group` rows; 0 and 1 where each row has
    its own
  """

  config: DecoderConfig
  adapters: int = 0
  adapts_pictures: bool = False
  reads_reference: bool = False
  value_layers: tuple[int, ...] = ()
  own_critic: bool = False
  teacher: DecoderConfig | None = None
  before: int = 0
  prompt: int = 0
  group: int = 1
  longest: int = 1

  def __call__(self, positions: float, length: int) -> StepFlops:
    """Of training, and of scoring, so many positions in rows of this length, prompts that are shared apart."""
    c, rows = self.config, positions / length
    head = 2.0 * positions * heads.matmul_parameters(c.width, self.value_layers)
    head += self._forward(positions, length, unembedded=0) if self.own_critic else 0.0
    pictures = lambda **options: flops.pictures(c, rows / self.group, **options)
    train = self._train(positions, length) + 3 * head + teacher_flops(self.teacher, self.before, positions, length)
    train += pictures(training=True, adapters=self.adapters, adapted=self.adapts_pictures)
    score = self._forward(positions, length, self.adapters) + head + pictures() * (1 + self.own_critic)
    return StepFlops(train, score + (self._forward(positions, length) + pictures() if self.reads_reference else 0.0))

  def _forward(self, positions: float, length: int, adapters: int = 0, unembedded: float = -1.0) -> float:
    before = self._columns(length)
    of_rows = flops.forward(self.config, positions, length + before, unembedded, adapters)
    return of_rows + (flops.forward(self.config, self._prompts(positions, length), before, 0, adapters)
                      if before else 0.0)

  def _train(self, positions: float, length: int) -> float:
    before = self._columns(length)
    of_rows = flops.train(self.config, positions, length + before, self.adapters)
    return of_rows + (flops.train(self.config, self._prompts(positions, length), before, self.adapters, 0)
                      if before else 0.0)

  def _prompts(self, positions: float, length: int) -> float:
    """Positions of the prompts before so many positions of rows."""
    return positions / length / self.group * self._columns(length)

  def _columns(self, length: int) -> int:
    """Of a prompt, with rows of this length."""
    return prompt_columns(self.prompt, length, self.longest) if self.prompt else 0

  def computed(self, positions: float, length: int) -> float:
    """Positions with those of the prompts."""
    return positions + self._prompts(positions, length)


def teacher_flops(teacher: DecoderConfig | None, before: int, positions: float, length: int) -> float:
  """Of a teacher's forward pass over these positions and the `before` tokens that it reads before each row, 0 without
  one."""
  if teacher is None:
    return 0.0
  return flops.forward(teacher, positions + before * positions / length, before + length, unembedded=positions)
