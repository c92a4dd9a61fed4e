r"""What aligns a model on V-IRL, and what survives a shift: SFT, DPO, RLHF and RL from the verifier.

  sftrl study --config=configs/study/alignment_virl_cpu.py --workdir=runs/alignment_virl    (five bases, two cores)

Hardware: two CPU cores. Minutes: TODO.
Result: not run at full length.

The arms of alignment_cpu.py on another task and another shift. From each base every arm spends 2e12 FLOPs on routes
under absolute actions (`TURN west`), and is evaluated on these and on the same routes under relative ones (`TURN
left`). The verifier orders two responses of the base at one point of a route, before which the expert has been right:
4,000 such pairs are what SFT on the preferred responses, DPO and the reward model learn from. The reward model reads
the chat up to a response, and so scores every response of an episode of RLHF. The FLOPs of the pairs, and for RLHF
those of the reward model, are in the arm's budget; the labels cost none and are counted in the notes.

Thresholds, fixed before the run: a claim holds when the bootstrap and the t interval over bases both lie on its side.
Evaluation routes are seeds 1,000,000,000 + i, i < 256; training routes have other seeds.
"""

from ml_collections import ConfigDict

from configs.study import alignment_cpu

CLAIM = "TODO"
HOME, PAIRS = "configs/virl", "4,000 labelled pairs"
ARMS = alignment_cpu.arms_of(HOME, PAIRS, "one verdict a response")
USED = ("sft_chosen", "sft_slow", "dpo", "rlhf")
BOTH = dict(evals=dict(variants=("id", "rule_ood")))
OVERRIDES = dict(
    sft_slow=dict(optimizer=dict(learning_rate=1e-4), steps=266),
    dpo=dict(data=dict(flops="recorded")))
CLAIMS = ()


def get_config():
  config = ConfigDict()
  config.study = dict(
      name="SFT, DPO, RLHF and RL on V-IRL",
      claim=CLAIM,
      bases=5,
      seeds=1,
      base=f"{HOME}/base.py",
      methods={method: file for method, (file, _, _) in ARMS.items()},
      prepares=dict(reward=f"{HOME}/reward.py"),
      uses={method: alignment_cpu.uses(method) for method in USED},
      labels={method: label for method, (_, label, _) in ARMS.items()},
      notes={method: note for method, (_, _, note) in ARMS.items()},
      overrides={method: {**BOTH, **OVERRIDES.get(method, {})} for method in ARMS},
      claims=CLAIMS,
      measure="per_step",
      flops=2e12,
      id="id",
      ood="rule_ood",
      eval_episodes=256,
      at=(0.1, 0.25, 0.5),
      jobs=2,
      disclosure=())
  return config
