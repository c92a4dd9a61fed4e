r"""Which method for which task? SFT, DPO, self-SFT, GRPO, PPO and RLHF from the same bases at equal FLOPs.

  sftrl study --config=configs/study/methods_cpu.py:labels --workdir=runs/methods_labels     (classify documents)
  sftrl study --config=configs/study/methods_cpu.py:reading --workdir=runs/methods_reading   (short answers)
  sftrl study --config=configs/study/methods_cpu.py:triples --workdir=runs/methods_triples   (triples, by F1)
  sftrl study --config=configs/study/methods_cpu.py:virl --workdir=runs/methods_virl         (acting over turns)

Hardware: two CPU cores. Minutes: labels 29, reading 19; by --only in two pieces: virl 25 and 25, triples 18 and 13.
Result: labels, five bases: 6 of 18 claims held, none contrary. In distribution every method comes to 99 to 100% from
70% (greedy), SFT with the fewest FLOPs; at T = 1 a tenth of wrong demonstrations costs SFT 12.8 points (9.0 to 16.9).
Under other names of labels no method is shown to move from 44%; at T = 1 PPO and self-SFT end 6 points above SFT. So
SFT's home ground is RL's too where the base can do the task. Triples, five bases: 5 of 16 held, 3 contrary (at T = 1
GRPO ends 3.4 points below SFT and PPO 2.4 below self-SFT in distribution, and SFT gains in the other wording):
greedy, all come to 98 to 100% in distribution from 76%; in the other wording, from 80%, SFT to 76, PPO 87, self-SFT
92, RLHF 94, DPO 95; on longer texts, from 57%, DPO to 43, RLHF 27, self-SFT 14, all others to 0 to 2. Triples again,
bases of other bits: 5 of 16 held, 3 contrary (GRPO below SFT in distribution, greedy too: -1.9). Reading, five
bases: 5 of 10 held, 2 contrary: SFT, too, gains in the other wording. All but RLHF (75%) come to 100% in distribution
from 69% (greedy), in the other wording from 70% PPO, self-SFT and GRPO to 98, SFT to 92 (noise 81), DPO to 89; at T = 1
self-SFT ends 12.8 points above SFT there (2.1 to 23.5). Virl, five bases: 10 of 10 held. All come to 99 to 100% of
responses in distribution from 70% (greedy); under the shifted actions, from 69%, SFT to 33 (noise 43), DPO to 93, all
others to 99 to 100%; in new cities, from 66%, SFT to 91 (noise 99), all others to 99 to 100%. Virl again, bases of
other bits: 8 of 10, none contrary. Under the shift, from 70%, SFT to 46 (8, 12, 56, 72, 82: its loss is not shown),
DPO to 87, all others but noise (47) to 100%.

The article that this project starts from names tasks as either side's home ground: one label a document for SFT, a
knowledge graph's triples with F1 as the reward for RL. Its statements about them are the claims below, written before
any run over bases. Every method starts from the same bases and spends the same FLOPs on texts in the plain wording with
the usual labels (V-IRL: absolute actions). Evaluation adds held-out combinations, longer texts, the other wording, and
other names of labels in the prompt. Claims are about the last of these of which the bases know something.

DPO and the reward model of RLHF learn from pairs of the base's responses, which the verifier orders. Their FLOPs, and
those of the reward model, are in the arm's budget. `sft_noise` is SFT where a tenth of the demonstrations is wrong.

Thresholds, fixed before the run: a claim holds when the bootstrap and the t interval over bases both lie on its side.
Evaluation texts are seeds 1,000,000,000 + i; training texts have other seeds.
"""

from ml_collections import ConfigDict

# What differs from task to task. shift: the variant of the claims about a shift. pairs: how many DPO learns from
TASKS = {
    "labels": dict(name="classifying documents", home="documents", choice="labels", shift="label_ood", pairs="2,000"),
    "reading": dict(name="short answers", home="documents", choice="reading", shift="wording_ood", pairs="2,000"),
    "triples": dict(name="extracting triples", home="documents", choice="triples", shift="wording_ood", pairs="2,000"),
    "virl": dict(name="acting over turns", home="virl", choice="", shift="rule_ood", pairs="1,000",
                 noise=dict(length=128))}   # wrong landmarks may have longer names than the right ones
LABELS = dict(sft="SFT", sft_noise="SFT, noise", dpo="DPO + SFT term", self_sft="Self-SFT", grpo="GRPO", ppo="PPO",
              rlhf="RLHF")
FILES = dict(sft="sft", sft_noise="sft", dpo="dpo", self_sft="self_sft", grpo="grpo", ppo="ppo", rlhf="rlhf")
USES = dict(dpo=dict(data=dict(path="reward/pairs.jsonl", heldout="reward/heldout")),
            rlhf=dict(reward_model=dict(start="reward")))
SHIFTED = (
    dict(method="sft", sign=-1, text="SFT loses under the shift"),
    dict(method="ppo", sign=1, text="PPO gains under the shift"),
    dict(method="ppo", comparison="sft", sign=1, text="PPO ends above SFT under the shift"),
    dict(method="self_sft", comparison="sft", sign=1, text="Self-SFT ends above SFT under the shift"))
SFT_HOME = (
    dict(method="sft", variant="id", comparison="", least=0.95, text="SFT ends at 95% or more in distribution"),
    *(dict(method="sft", comparison=method, variant="id", sign=1,
           text=f"SFT ends above {LABELS[method]} in distribution") for method in ("dpo", "grpo", "ppo")),
    dict(method="sft_noise", comparison="sft", variant="id", sign=-1,
         text="A tenth of wrong demonstrations costs SFT success in distribution"))
RL_HOME = (
    *(dict(method=method, comparison="sft", variant="id", sign=1,
           text=f"{LABELS[method]} ends above SFT in distribution") for method in ("grpo", "ppo")),
    dict(method="ppo", comparison="sft", variant="length_ood", sign=1, text="PPO ends above SFT on longer texts"),
    dict(method="ppo", comparison="self_sft", variant="id", sign=1, text="PPO ends above self-SFT in distribution"))
TURNS = (
    dict(method="ppo", variant="id", comparison="", least=0.95, text="PPO ends at 95% or more in distribution"),)
CLAIMS = dict(labels=(*SFT_HOME, *SHIFTED), reading=(*SFT_HOME[:1], *SHIFTED), triples=(*RL_HOME, *SHIFTED),
              virl=(*TURNS, *SHIFTED))
STATEMENTS = dict(
    labels="Classifying documents is SFT's home ground: SFT ends above DPO, GRPO and PPO in distribution.",
    reading="Short answers: SFT answers the questions it is shown, and PPO keeps what the base knows beside them.",
    triples="Triples with F1 as the reward are RL's home ground: GRPO and PPO end above SFT in distribution.",
    virl="Acting over turns is RL's home ground: PPO gains under the shifted actions, and SFT loses.")

# What was seen before any run over bases: of the texts, on bases of seed 0.
SEEN = ("A first base of all three tasks (stopped at 1,180 of 1,600 steps, four topics, careless 50%) did not learn to "
        "look labels up: after 960 steps 41% of labels, 27% of answers and 10% of texts' triples were right. So each "
        "task has a base of its own, a document has three topics, questions give a thing alone, and texts are careless "
        "in 35% on average, as those of virl_cpu.py.")
LABELS_SEEN = (
    "SFT and PPO were run from one such base on 256 evaluation texts; all claims had been written before. Greedy, "
    "id and label_ood: start 66 and 62%; SFT after 1e11 FLOPs 100 and 93%, after 1e12 100 and 91% (label_ood at T "
    "= 1: 57, 93, 82%); PPO after 1.1e11 94 and 90%, after 1e12 100 and 95% (T = 1: 93%). So the claim that SFT "
    "loses under the shift is not expected to hold at this budget, and both reach 100% in distribution; the "
    "claims were kept, as they are the article's. PPO's value head was linear there and raised the alarm "
    "poor_values: it has layers and a rate of its own now, as on V-IRL, which was not run. The batch of SFT, 32, "
    "the 2,000 pairs and the budget were set without a run; DPO, self-SFT, GRPO and RLHF were not run.")
READING_SEEN = (
    "All claims had been written for an earlier task, whose responses named a line's number, before any base knew it: "
    "its base answered 23%, which is chance. Responses quote the line now, and the first layer of the model is local. "
    "SFT and PPO were run from a first base of that, whose careless writer quoted the line before, on 256 texts. In "
    "distribution, other wording, longer texts, greedy: base 98, 98, 99%; SFT after 1e12 FLOPs 100, 82, 100; PPO 100, "
    "86, 100. At T = 1: base 68, 68, 55%; SFT 100, 79, 100; PPO 99, 84, 100. As greedy left nothing to learn, a "
    "careless writer quotes the first line since, in 0 to 80%: a base is right in 63% greedy and 56% at T = 1. From "
    "such a base no arm was run; claims and shift were kept.")
TRIPLES_SEEN = (
    "All arms were run from base 0, and the shift of the claims was changed from label_ood to wording_ood after that: "
    "greedy, the base has 73% in distribution, 87% in the other wording, 56% of longer texts and 8% under other names "
    "of relations, which are three names of ten in an order that the prompt gives. Base 0 ended, in distribution, "
    "other wording, longer texts: SFT 100, 77, 0%; PPO 100, 83, 0; GRPO 100, 90, 0; self-SFT 100, 97, 0; RLHF 100, "
    "98, 13. So bases 1 to 4 are the test of what the claims say.")
DISCLOSURE = dict(
    labels=(SEEN, LABELS_SEEN),
    reading=(SEEN, READING_SEEN), triples=(SEEN, TRIPLES_SEEN),
    virl=("The configs, but for self-SFT, are those of alignment_virl_cpu.py and virl_cpu.py, whose runs over five "
          "bases had been seen: so the claims about SFT and PPO are a repetition. Self-SFT and SFT with wrong "
          "demonstrations were not run.",))


def get_config(choice=""):
  name = choice or "labels"
  if name not in TASKS:
    raise ValueError(f"choice is {choice!r}; it must be one of {', '.join(TASKS)}, or left out for labels.")
  task = TASKS[name]
  home, chosen = f"configs/{task['home']}", f":{task['choice']}" if task["choice"] else ""
  config = ConfigDict()
  config.study = dict(
      name=f"Methods on {task['name']}",
      claim=STATEMENTS[name],
      bases=5,
      seeds=1,
      base=f"{home}/base.py{chosen}",
      methods={method: f"{home}/{file}.py{chosen}" for method, file in FILES.items()},
      prepares=dict(reward=f"{home}/reward.py{chosen}"),
      uses=USES,
      labels=LABELS,
      notes=dict(sft="the expert's responses, as many as the budget allows",
                 sft_noise="a tenth of the demonstrations is wrong",
                 dpo=f"{task['pairs']} pairs of the base's responses, ordered by the verifier",
                 self_sft="its own right responses, fresh every iteration",
                 grpo="eight responses to a prompt are compared",
                 ppo="the verifier's rewards",
                 rlhf=f"PPO from a reward model of {task['pairs']} pairs, KL 0.3"),
      overrides=dict(sft_noise=dict(data=dict(noise=0.1, **task.get("noise", {}))),
                     dpo=dict(data=dict(flops="recorded"))),
      claims=tuple(dict(claim, temperature=temperature) for temperature in (0.0, 1.0) for claim in CLAIMS[name]),
      measure="per_step" if name == "virl" else "success",
      flops=2e12 if name == "virl" else 1e12,
      id="id",
      ood=task["shift"],
      eval_episodes=256,
      at=(0.1, 0.5),
      jobs=2,
      disclosure=DISCLOSURE[name])
  return config
