r"""Does the comparison depend on the optimizer? The same SFT, or the same PPO, under each at its rate from our table.

  sftrl study --config=configs/study/settings/optimizers.py --workdir=runs/optimizers          (SFT, 14 well-known ones)
  sftrl study --config=configs/study/settings/optimizers.py:rl --workdir=runs/optimizers_rl    (PPO)
  sftrl study --config=configs/study/settings/optimizers.py:all --workdir=runs/optimizers_all  (SFT, all; :rl:all PPO)

Hardware: two CPU cores. Minutes: about 12 (:rl 20, :all 35).
Result: SFT on base 0 alone, 256 hands, greedy, in percent of id_seen / rule_ood, from 34 / 31 at the start:
schedule_free_adamw 73 / 23, adan 72 / 19, lamb 64 / 0, ademamix 64 / 34, prodigy 64 / 34, adabelief 63 / 34, adamw and
adam 62 / 32, adafactor 61 / 36, nadamw 61 / 34, sgd 61 / 13, lion 59 / 33, rmsprop 59 / 37, muon 48 / 31. Intervals
are 6 points either way, so most are not told apart; all of them learn, and on held-out pairs all fall, from 32 to
between 13 and 24.

adam is adamw here, bit for bit: decay is a key of its own, and 0. What is lost under the shifted rule so early in SFT
goes with the length of the steps rather than with what was gained: lamb, sgd, adan and schedule_free_adamw, at rates
above adamw's, lose it; the others still stand at the start's level.

Nothing was tuned here: a rate and arguments are what --config.optimizer.name=NAME fills in for post-training of a
transformer, and one rate a method says little about an optimizer at its best.
"""

from ml_collections import ConfigDict

from sftrl_jax.training.optimizers.recommended import STARTS

FILES = {"sft": "configs/general_points/sft.py", "rl": "configs/general_points/ppo.py"}
KNOWN = ("adamw", "adam", "nadamw", "adabelief", "adan", "ademamix", "lion", "muon", "lamb", "adafactor", "sgd",
         "rmsprop", "prodigy", "schedule_free_adamw")


def get_config(choice=""):
  words = [word for word in choice.split(":") if word]
  if len({"sft", "rl"} & set(words)) > 1 or not {"sft", "rl", "all"}.issuperset(words):
    raise ValueError(f"choice is {choice!r}; it must be sft (the default) or rl, and :all for every optimizer.")
  verb = "rl" if "rl" in words else "sft"
  names = tuple(STARTS) if "all" in words else KNOWN
  config = ConfigDict()
  config.study = dict(
      name=f"{len(names)} optimizers, one task: {'PPO' if verb == 'rl' else 'SFT'} on GeneralPoints",
      claim="The same method, bases, hands and FLOPs under each optimizer, at its rate from our table.",
      bases=2,
      methods=dict.fromkeys(names, FILES[verb]),
      overrides={name: dict(optimizer=dict(name=name)) for name in names},
      labels={name: name for name in names},
      reference="adamw",
      flops=1e12 if verb == "rl" else 4e11,
      id="id_seen",
      ood="rule_ood",
      eval_episodes=256,
      at=(0.5,),
      jobs=2,
      disclosure=("Rates and arguments come from the table of --config.optimizer.name=help, which was made from papers "
                  "and short runs on this task, before this study.",))
  return config
