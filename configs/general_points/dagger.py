r"""DAgger on GeneralPoints: the expert's answer at a state that the policy came to. Own states, the expert's targets.

  sftrl rl --config=configs/general_points/dagger.py --workdir=runs/gp_dagger
  sftrl rl --config=configs/general_points/dagger.py:smollm2 --workdir=runs/smollm2_dagger   (an accelerator)

Hardware: one CPU core. Minutes: 3.
Result: not yet measured on five bases. Against SFT it differs in whose states are shown, against self-SFT in whose
answers are right; the episodes' rewards are measured and not learned from.
"""

from configs.general_points import ppo


def get_config(choice=""):
  config = ppo.get_config(choice)
  config.algorithm = "dagger"
  del config.ppo
  config.dagger = dict(epochs=1, minibatches=4)
  config.compute.lengths = 4
  return config
