r"""GeneralPoints from pictures on a laptop: what SFT and PPO make of a shifted rule and of shifted looks.

  sftrl study --config=configs/study/general_points_vl_cpu.py --workdir=runs/vl             (SFT and PPO, five bases)
  sftrl study --config=configs/study/general_points_vl_cpu.py:arms --workdir=runs/vl_arms   (eight bases, every arm)

Hardware: two CPU cores. Minutes: 19 (arms: about 45, by CPU seconds).
Result: all claims held, eleven (twice) and fifteen (VISION.md). Under the shifted rule, greedy, from 20%: PPO 23%, SFT
0%; hands read with another deck, from 71%: PPO 68%, SFT 47%. In distribution, from 25%: PPO 44%, SFT 88%.

Each base learns to read clean pictures, then the task under any rule and every deck, slipping half the time. From each,
SFT and PPO spend the same FLOPs on black suits of one deck with J = Q = K = 10. Both are evaluated on the same hands
with at least one face card: in distribution (pairs seen and held out), under the rule 11, 12, 13, with red suits, and
with two other decks. The base has seen every rule and look: a shifted one is not trained on after it, not unseen.

Success needs what is seen and what is made of it. Both are measured apart: hands whose cards the first response names
right, and success. The arms separate causes: the tower frozen (is reading lost there?), and PPO's number of updates.

Thresholds, fixed before the runs: a claim holds when the bootstrap and the t interval over bases both lie on its side.
Claim 4 of the plan, PPO ahead of SFT at equal success in distribution, is judged by the report's matched comparison.
"""

from ml_collections import ConfigDict

CLAIM = ("From the same bases, at equal FLOPs and under one verifier, SFT loses the shifted rule and the reading of "
         "shifted decks while it gains most in distribution; PPO gains in distribution and on every look, and "
         "keeps the rule.")
SFT, PPO = (f"configs/general_points_vl/{name}.py" for name in ("sft", "ppo"))
LABELS = dict(sft="SFT", ppo="PPO", sft_frozen="SFT, tower frozen", sft_updates="SFT, equal updates")
NOTES = dict(
    sft="the paper's comparison: equal FLOPs, about five times PPO's updates",
    ppo="the paper's comparison, with a token as the action",
    sft_frozen="the same with the tower and the connector as the base has them",
    sft_updates="rows of five and a half times as many hands, so that SFT makes about as many updates as PPO")
CARDS = dict(measure="cards")
MAIN = (
    dict(method="sft", sign=-1, text="1. SFT lowers success under the shifted rule"),
    dict(method="ppo", comparison="sft", sign=1, text="2. PPO ends ahead of SFT under the shifted rule at equal FLOPs"),
    dict(method="ppo", variant="id_seen", sign=1, text="5. PPO raises success in distribution"),
    dict(method="sft", variant="id_seen", comparison="ppo", sign=1, text="5. SFT raises it more"),
    *(dict(method="ppo", variant=look, sign=1, text=f"6. PPO raises success on the look {look}")
      for look in ("red", "deck1", "night")),
    *(dict(method="sft", variant=deck, sign=-1, text=f"7. SFT lowers the hands read of {deck}", **CARDS)
      for deck in ("deck1", "night")),
    dict(method="sft", variant="id_seen", sign=1, text="7. SFT raises the hands read in distribution", **CARDS),
    dict(method="ppo", temperature=1.0, sign=1, text="9. PPO raises success under the shifted rule at T = 1"))
ARMS = (
    dict(method="ppo", comparison="sft_updates", sign=1,
         text="3. PPO ends ahead of SFT under the shifted rule at equal FLOPs and updates"),
    *(dict(method="sft_frozen", variant=deck, least=-margin, **CARDS,
           text=f"8. With a frozen tower SFT keeps the hands read of {deck} within {100 * margin:.0f} points")
      for deck, margin in (("deck1", 0.08), ("night", 0.05))),
    dict(method="sft_frozen", sign=-1, text="8. With a frozen tower too SFT lowers success under the shifted rule"))


def get_config(choice=""):
  if choice not in ("", "arms"):
    raise ValueError(f"choice is {choice!r}; it must be 'arms' or left out.")
  methods = dict(sft=SFT, ppo=PPO)
  if choice == "arms":
    methods |= dict(sft_frozen=f"{SFT}:frozen", sft_updates=f"{SFT}:equal_updates")
  config = ConfigDict()
  config.study = dict(
      name="SFT against PPO on GeneralPoints from pictures" + (": every arm" if choice else ""),
      claim=CLAIM,
      bases=8 if choice == "arms" else 5,
      seeds=1,
      base="configs/general_points_vl/base.py",
      base_start="configs/general_points_vl/recitation.py",
      methods=methods,
      labels={method: LABELS[method] for method in methods},
      notes={method: NOTES[method] for method in methods},
      claims=MAIN + (ARMS if choice == "arms" else ()),
      reference="sft",
      flops=1.5e12,
      id="id_seen",
      ood="rule_ood",
      eval_episodes=384,
      # Early: SFT passes PPO's last success in distribution before a third of its FLOPs.
      at={method: (0.05, 0.1, 0.15, 0.2, 0.3, 0.5) if method.startswith("sft") else (0.1, 0.5) for method in methods},
      jobs=2,
      disclosure=(
          "The recipe (clean recitation first, noise 0.6, half of the base's answers slips, two attempts, the tower at "
          "a third of the rate) was chosen in a probe of its own code on five bases, partly after seeing results "
          "there; the claims are those that its intervals supported. Nothing is held out there; here a quarter of the "
          "(values, target) pairs is.",
          "Here, a base of seed 0 was trained for 2,000 steps (success 8% in distribution, 5% under the shifted rule) "
          "and then, for more to lose and to gain, for 3,500 (22%, 17%); both were post-trained by SFT and PPO, the "
          "second one in every arm, and all were seen on the evaluation hands. An embedding of a cell's place was "
          "added to the model after a recitation without it read 4% of hands. Nothing else was changed.",
          "The probe did not support, and this study does not claim: that PPO raises greedy success under the shifted "
          "rule, that PPO improves recognition, that SFT lowers success on shifted looks (it raised it), that PPO "
          "beats SFT on visual shifts at equal FLOPs (the reverse on red suits and the dark deck, a tie on the other), "
          "that SFT fails in distribution."))
  return config
