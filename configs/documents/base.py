r"""A base model for texts: it knows both wordings and all names of labels, and is often careless.

  sftrl sft --config=configs/documents/base.py:labels --workdir=runs/labels_base
  sftrl sft --config=configs/documents/base.py:reading --workdir=runs/reading_base
  sftrl sft --config=configs/documents/base.py:triples --workdir=runs/triples_base
  sftrl sft --config=configs/documents/base.py --workdir=runs/texts_base           (one base for all three tasks)

Hardware: one CPU core. Minutes: 4 (for all three tasks: 12).
Result: one base each (seed 0), greedy. Labels: 61 to 75% right in every variant. Triples: 73% in training's texts, 87%
in the other wording, 56% of longer ones, 8% under other names. Reading, both wordings: 63%, 56% at T = 1.

How a base of reading was tried, greedy, % of right answers; all are of global layers but where said:
  a line's number and the answer, an earlier task            23, chance; 26 without careless responses
  a quote and the answer, as now                             27 after 1,800 steps; 29 after 720 without careless ones
  the same without careless ones, biases, rope_theta=100     27 after 1,800 steps of 16 rows
  the same of 2 to 3 sentences                               50 after 1,800 steps of 16 rows
  the whole text recited, no careless ones, 16 rows          a loss of 0.63, which falls, after 1,800 steps
  Muon at the same rate (loss 0.79 after 600, AdamW 0.60)    26 after 720
  a first layer with a window of 2, 16 rows                  26, 86, 84, 97, 98 after 360, 720, 1,080, 1,440, 1,800
  a first layer with a window of 4, 16 rows                  a loss of 0.72 after 400 steps (window of 2: 0.59)
In all of these a careless writer quoted the sentence before, in 0 to 70%; such a base is right in 98% greedy and 68%
at T = 1, so that greedy leaves nothing to learn. Now it quotes the first sentence, in 0 to 80% for reading.

The mixture is an assumption of the studies, and their reports say so: half of the texts are in the other wording, three
quarters have names of labels drawn from all names, a fifth are longer than in training. The writer is careless with a
share that differs by what is asked about, 0 to 70%, and then takes the second most frequent topic, the first sentence,
or the object of the next triple: habits that all wordings and names share. RL can select against them.
"""

import dataclasses
import functools
import random
from typing import ClassVar

from configs.documents import task
from sftrl_jax.chat import Chat
from sftrl_jax.envs import texts
from sftrl_jax.envs.document_labels import DocumentLabels
from sftrl_jax.envs.env import Verdict
from sftrl_jax.envs.reading import Reading
from sftrl_jax.envs.triples import Triples

State = tuple[int, texts.State]   # the number of a task, and its state


@dataclasses.dataclass(frozen=True)
class Texts:
  """All three tasks, by chance a text. Its fields are the keys of config.env.

  task: the one task of training; "any" for all three
  attempts: responses of an episode at most
  variant: "train" (texts of `task`), or a task's name
  """

  task: str = "any"
  attempts: int = 1
  variant: str = "train"

  variants: ClassVar[tuple[str, ...]] = ("document_labels", "reading", "triples")
  codes: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys(
      (*DocumentLabels.code_labels, *Reading.code_labels, *Triples.code_labels)))
  words: ClassVar[tuple[str, ...]] = texts.WORDS
  thread_safe: ClassVar[bool] = True

  def reset(self, seed: int | str) -> tuple[State, Chat]:
    draw = random.Random(f"task {seed}")
    name = self.task if self.variant == "train" else self.variant
    number = texts.pick(draw, range(3)) if name == "any" else self.variants.index(name)
    state, chat = tasks(self.attempts, longer=draw.random() < 0.2)[number].reset(seed)
    return (number, state), chat

  def step(self, state: State, response: str) -> tuple[State, Verdict]:
    after, verdict = self._task(state).step(state[1], response)
    return (state[0], after), verdict

  def expert(self, state: State) -> str:
    return self._task(state).expert(state[1])

  def careless(self, state: State, seed: int | str) -> str:
    return self._task(state).careless(state[1], seed)

  def misread(self, state: State, seed: int | str) -> str:
    return self._task(state).misread(state[1], seed)

  def careless_bias(self, state: State) -> float:
    return self._task(state).careless_bias(state[1])

  def _task(self, state: State) -> texts.TextTask:
    return tasks(self.attempts, longer=False)[state[0]]


@functools.cache
def tasks(attempts: int, longer: bool) -> tuple[texts.TextTask, ...]:
  """The three tasks in every wording and with all names, nothing held out. longer: than texts of training are"""
  mixed = dict(attempts=attempts, wording="mixed", holdout=0.0)
  words, sentences = dict(length=(15, 18)) if longer else {}, dict(length=(5, 6)) if longer else {}
  return (DocumentLabels(labels="mixed", **mixed, **words), Reading(**mixed, **sentences),
          Triples(labels="mixed", **mixed, **sentences))


def get_config(choice=""):
  name = task.about(choice)["name"] if choice else "any"
  config = task.model(choice)
  config.env = dict(name=f"{__file__}:Texts", task=name)
  config.start = "scratch"
  config.steps = 1800 if choice else 5400
  config.batch = 16 if choice == "reading" else 32
  careless = 0.4 if choice == "reading" else 0.35
  config.data = dict(length=96, careless=careless, careless_spread=careless)
  config.rollout = dict(rows=256, prompt_tokens=29, feedback_tokens=1, max_new_tokens=21)
  config.optimizer = dict(name="adamw", learning_rate=3e-3, weight_decay=0.01, clip=1.0)
  config.schedule = dict(name="cosine", warmup=100, end=0.1)
  config.evals = dict(variants=(name,) if choice else Texts.variants, episodes=256, kl=False)
  config.compute = dict(microbatches=config.batch // 4)  # what fits a core's cache
  config.checkpoint = dict(every=1000, keep=2)
  config.log = dict(every=20)
  return config
