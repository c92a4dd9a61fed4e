r"""A reward model from pairs of your own: it scores an answer higher, the more a person would prefer it.

  sftrl preference --config=configs/preference/reward.py --workdir=runs/reward --config.data.path=FILE.jsonl

Hardware: one GPU, or two CPU cores to try it. Minutes: not measured.
Result: not run at full length.

`rewards/accuracies` is the share of pairs that it orders rightly; `rewards/accuracies_not_longer` is that of the pairs
whose preferred response is not the longer one. --config.data.validation=0.1 measures them on pairs that are held out.

FILE and the start are those of dpo.py.
"""

from configs.preference import task


def get_config():
  config = task.shared()
  config.objective = "reward"
  config.bradley_terry = dict(centre=0.01)
  config.optimizer.learning_rate = 1e-5
  return config
