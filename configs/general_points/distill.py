r"""On-policy distillation on GeneralPoints: a teacher's distribution, token by token, on the policy's own answers.

  sftrl rl --config=configs/general_points/distill.py --workdir=runs/gp_distill   (after sft.py: its run is the teacher)

--config.teacher.start=WORKDIR takes another run, such as that of ppo.py. --config.teacher.demonstration=expert lets the
teacher read the same prompt with the expert's answer before each row, and then it may be as the run begins.

Hardware: one CPU core. Minutes: 3.
Result: not yet measured on five bases. What the teacher has cost is not in the budget; its forward pass is. Against
DAgger it differs in the target: a distribution in the place of one answer.
"""

from configs.general_points import ppo


def get_config(choice=""):
  config = ppo.get_config(choice)
  config.algorithm = "distill"
  del config.ppo
  config.distill = dict(epochs=1, minibatches=4)
  config.teacher = dict(start="runs/gp_sft")
  config.compute.lengths = 4
  return config
