r"""What aligns a model on V-IRL, and what survives a shift: SFT, DPO, RLHF and RL from the verifier.

  sftrl study --config=configs/study/alignment_virl_cpu.py --workdir=runs/alignment_virl    (five bases, two cores)

Hardware: two CPU cores. Minutes: 19 by its CPU seconds, beside other work 28.
Result: all fourteen claims held. Right responses under the shift, greedy, from 69%: SFT on expert responses 36%, SFT on
preferred ones 81%, the same with DPO's updates 100%, DPO 95%, RLHF and PPO 100%.

The arms of alignment_cpu.py on another task and another shift. From each base every arm spends 2e12 FLOPs on routes
under absolute actions (`TURN west`), and is evaluated on these and on the same routes under relative ones (`TURN
left`). The verifier orders two responses of the base at one point of a route, before which the expert has been right:
1,000 such pairs are what SFT on the preferred responses, DPO and the reward model learn from. The reward model reads
the chat up to a response, and so scores every response of an episode of RLHF. The FLOPs of the pairs, and for RLHF
those of the reward model, are in the arm's budget; the labels cost none and are counted in the notes.

Thresholds, fixed before the run: a claim holds when the bootstrap and the t interval over bases both lie on its side.
Evaluation routes are seeds 1,000,000,000 + i, i < 256; training routes have other seeds.
"""

from ml_collections import ConfigDict

from configs.study import alignment_cpu

CLAIM = ("On V-IRL, from the same base models and at equal FLOPs, SFT on expert responses loses right responses under "
         "the shifted actions; DPO with an SFT term, RLHF and PPO from the verifier gain them.")
HOME, PAIRS = "configs/virl", "1,000 labelled pairs"
ARMS = alignment_cpu.arms_of(HOME, PAIRS, "one verdict a response")
USED = ("sft_chosen", "sft_slow", "dpo", "rlhf")
BOTH = dict(evals=dict(variants=("id", "rule_ood")))
OVERRIDES = dict(
    # 12 rows of 192 have about as many preferred responses as DPO's 16 rows of 256.
    sft_slow=dict(optimizer=dict(learning_rate=1e-4), steps=306, batch=12, compute=dict(microbatches=6)),
    dpo=dict(data=dict(flops="recorded")))
GAINS = dict(sft_slow="SFT on the preferred responses at DPO's rate and number of updates", dpo="DPO with an SFT term",
             rlhf="RLHF", ppo="PPO from the verifier")
CLAIMS = (
    *(dict(claim, temperature=temperature) for temperature in (0.0, 1.0) for claim in (
        dict(method="sft", sign=-1, text="SFT on expert responses loses right responses under the shifted actions"),
        dict(method="sft_chosen", comparison="sft", sign=1,
             text="SFT on the preferred responses ends above SFT on expert ones under the shifted actions"),
        *(dict(method=method, sign=1, text=f"{name} gains right responses under the shifted actions")
          for method, name in GAINS.items()))),
    *(dict(method="ppo", comparison=method, variant="id", sign=1, temperature=1.0,
           text=f"PPO from the verifier ends above {name} in distribution")
      for method, name in (("dpo", "DPO"), ("rlhf", "RLHF"))))


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
      at=(0.1, 0.5),
      jobs=2,
      disclosure=(
          "Objectives, rates, the SFT term and the KL of 0.3 are those of alignment_cpu.py, not tuned here. SFT on "
          "expert responses and PPO are those of virl_cpu.py, whose runs had been seen from these five bases at 3e12 "
          "FLOPs; the budget is that of its quick form.",
          "Before the study, one other base (seed 77) was tried on other evaluation routes (seeds 2,000,000,000 + i). "
          "4,000 pairs, the first number: all but 7 of those that differed had one right and one wrong response, the "
          "reward model ordered 99.9% of held-out pairs rightly, and DPO was right in all greedy responses under both "
          "actions after 31 updates, at T = 1 in 91% at its best and 87% at three quarters. So 1,000 pairs were taken: "
          "the reward model ordered 99.8% rightly (300 pairs: 100%), and RLHF from that of 300 pairs was right in all "
          "greedy responses under both actions after 6 iterations.",
          "SFT on the preferred responses first had updates of 16 rows, four times as many tokens as those of SFT on "
          "expert responses: 459 updates, right in all greedy responses under both actions from the first evaluation "
          "on. Updates of 4 rows, which have as many tokens, were taken, so that SFT differs in its responses alone."))
  return config
