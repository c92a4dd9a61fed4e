r"""On-policy distillation on GeneralPoints: a teacher's distribution, token by token, on the policy's own answers.

  sftrl rl --config=configs/general_points/distill.py --workdir=runs/gp_distill   (after sft.py: its run is the teacher)

--config.teacher.start=WORKDIR takes another run, such as that of ppo.py. --config.teacher.demonstration=expert lets the
teacher read the same prompt with the expert's answer before each row, and then it may be as the run begins.

Hardware: one CPU core. Minutes: 3.
Result: on five bases, one try, 2.4e12 FLOPs, T = 1 (continuum.py:targets): from SFT in distribution 78%, under the
shifted rule 10% (base 15%); from PPO 51 and 23%. What the teacher has cost is not in the budget; its forward pass is.
Against DAgger it differs in the target: a distribution in the place of one answer. With a demonstration, one base that
had been trained on chats that begin with one, two seeds: seen pairs 27% to 41 and 42% greedy, held-out ones 19% to 19
and 22%, the shifted rule 22% to 20% (its teacher with the demonstration: 92, 80, 27%).
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
