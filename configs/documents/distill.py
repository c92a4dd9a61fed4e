r"""On-policy distillation on a task of texts: a teacher's distribution, token by token, on the policy's own responses.

  sftrl rl --config=configs/documents/distill.py --workdir=runs/labels_distill   (after sft.py: its run is the teacher)
  sftrl rl --config=configs/documents/distill.py:reading --workdir=runs/reading_distill
  sftrl rl --config=configs/documents/distill.py:triples --workdir=runs/triples_distill

Hardware: one CPU core. Minutes: 2.
Result: not yet measured on five bases. What the teacher has cost is not in the budget; its forward pass is.
"""

from configs.documents import ppo, task


def get_config(choice=""):
  config = ppo.get_config(choice)
  config.algorithm = "distill"
  del config.ppo, config.optimizer.factors   # of the value head
  config.distill = dict(epochs=1, minibatches=4)
  name = next(name for name, about in task.TASKS.items() if about == task.about(choice))
  config.teacher = dict(start=f"runs/{name}_sft")
  return config
