r"""SFT memorizes, RL generalizes: the paper's claim on a laptop, with base models as the unit of evidence.

  sftrl study --config=configs/study/general_points_cpu.py --workdir=runs/study          (five bases, two cores)
  sftrl study --config=configs/study/general_points_cpu.py:quick --workdir=runs/quick    (two shipped bases)

Hardware: two CPU cores. Minutes: 19 to 36 (quick: 2 to 6).
Result: the table in README.md; on the shifted rule, greedy, PPO ends 2 points above its start (in a run before 4; five
bases do not settle whether it gains) and SFT 29 points below.

Five bases are pre-trained; from each, SFT and PPO spend the same FLOPs on hands with J = Q = K = 10, and both are
evaluated on hands with at least one face card where these count 10 (seen and held-out pairs) or 11, 12, 13 (the shift).

Thresholds, fixed before the final runs: a claim holds when the 95% interval over bases excludes zero. Evaluation hands
are seeds 1,000,000,000 + i, i < 768; development used seeds 2,000,000,000 + i; training hands have other seeds still.
"""

from ml_collections import ConfigDict

CLAIM = ("From the same base models, at equal FLOPs and under one verifier, PPO raises success under the rule it is "
         "trained on and under the shifted rule, while SFT raises the first and lowers the second.")


def get_config(choice=""):
  if choice not in ("", "quick"):
    raise ValueError(f"choice is {choice!r}; it must be 'quick' or left out.")
  quick = choice == "quick"
  config = ConfigDict()
  config.study = dict(
      name="SFT against PPO on GeneralPoints" + (" (quick: shipped bases)" if quick else ""),
      claim=CLAIM,
      bases=2 if quick else 5,
      seeds=1,
      base="" if quick else "configs/general_points/base.py",
      methods=dict(sft="configs/general_points/sft.py", ppo="configs/general_points/ppo.py"),
      labels=dict(sft="SFT", ppo="PPO"),
      flops=1.5e12 if quick else 3e12,
      id="id_seen",
      ood="rule_ood",
      eval_episodes=512 if quick else 768,
      at=() if quick else (0.1, 0.15, 0.2, 0.5),  # early: SFT passes PPO's last id_seen there
      jobs=2,
      disclosure=(
          "The recipe (half of the base's answers careless, three attempts, learning rate 3e-4 for both methods) was "
          "chosen in a prototype after seeing that a clean base gives PPO no gain on the shifted rule. Here it was "
          "taken over, not tuned again.",
          "Base 0 was trained and post-trained once with this recipe, and its results seen, before the final runs. "
          "What changed after that: how a batch is cut into microbatches, SFT's rows (23 columns, not 24), and the "
          "length of the decoding cache, which is charged. An interrupted study then showed base 0's runs on the "
          "evaluation hands up to 2.4e12 FLOPs, and development hands base 0 at 1.2e12: PPO gained at T=1 but little "
          "in greedy decoding on the shifted rule, so the budget of both methods was set to 3e12 "
          "(133 PPO iterations; the prototype's 119 cost 2.4e12 because it did not charge attention). A larger "
          "learning rate for the value head was tried there too and left out.",
          "A first run of the full study was evaluated at fifths of the budget, a second until a third of its runs was "
          "done at 5, 10, 15, 20, 40, 60 and 80%. Now it is 10, 15, 20 and 50%: SFT passes PPO's last success on "
          "id_seen before its first fifth, and the matched comparison had to read between two points that were 35 "
          "points of id_seen apart. Training did not change.",
          "To end within 40 minutes on a slower machine, bases are trained for 3,600 steps instead of 4,000, and 768 "
          "hands are played instead of 1,024. Both were set without seeing a result of theirs. (Before, with fifths of "
          "the budget and 1,024 hands, the matched greedy gap was +6.5 and excluded zero; between closer points it "
          "does not.)",
      ))
  return config
