"""Alarms: rules on a step's metrics for runs that go wrong without failing, each with its cause and the keys to change.

A metric "alarm/NAME" is written only in a step that raises the alarm. The report imports this module, so it has no JAX.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Alarm:
  """cause: the meaning of the metrics. knob: the keys of the config that change them."""

  cause: str
  knob: str


ALARMS = {
    "nonfinite": Alarm(
        "The loss, its gradient or the update was not finite: the update was skipped, and parameters and optimizer "
        "stayed as they were.",
        "Lower --config.optimizer.learning_rate, or --config.optimizer.clip (0 does not clip); a longer "
        "--config.schedule.warmup helps where the first steps are hit."),
    "no_trainable_tokens": Alarm(
        "No token of the batch was trained on: its loss is 0 and the step changed nothing.",
        "SFT: look at one example with `sftrl check`; a row must hold a prompt and its whole response "
        "(--config.data.length). RL: every response was empty, so look at episodes.jsonl."),
    "constant_rewards": Alarm(
        "Every episode of the batch got the same reward, KL apart, or none holds a response that could be imitated: "
        "the policy stays as it is, but for a bonus for entropy; only the value head learns.",
        "All wrong: start from a better model (--config.start), an easier task (--config.env) or more attempts. All "
        "right: the task is solved. Else look at --config.reward, or a larger --config.batch or "
        "--config.rollout.temperature. --config.max_without_signal such steps in a row end the run."),
    "constant_groups": Alarm(
        "In every group all episodes got the same reward: no episode has an advantage, so the policy stays as it is, "
        "but for a penalty to the start and a bonus for entropy.",
        "All wrong: start from a better model (--config.start) or an easier task (--config.env). Else look at "
        "--config.reward, or a larger --config.grpo.group or --config.rollout.temperature, so that episodes of a group "
        "differ, or a larger --config.grpo.max_rounds, which plays until groups do (of rloo alike). "
        "--config.max_without_signal such steps in a row end the run."),
    "runaway_values": Alarm(
        "For some steps now, the value head has predicted more than the rewards of the batch can give, or its errors "
        "had over twice the variance of the returns: advantages are its errors.",
        "--config.ppo.truncation=end if it is bootstrap; else a lower --config.ppo.value_coef or "
        "--config.optimizer.learning_rate, and --config.ppo.value_gradient=False."),
    "poor_values": Alarm(
        "For some lines now, the value head has predicted returns worse than their mean would "
        "(critic/vf_explained_var below -0.1): advantages hold its errors, and where nearly every episode succeeds "
        "they unlearn right responses.",
        "A value head with layers, --config.ppo.value_layers=64,64, and a learning rate of its own, 'value/*': 10.0 in "
        "--config.optimizer.factors; or --config.ppo.critic_warmup=10."),
    "all_truncated": Alarm(
        "Every response was cut off at rollout.max_new_tokens: the verifier saw only incomplete responses.",
        "Raise --config.rollout.max_new_tokens; if the model never ends a response, it has not learned <eos>: start "
        "from a model that was trained by sft."),
    "entropy_collapse": Alarm(
        "The policy gives nearly the same response every time (under 0.1 nats a response), while it fails in more than "
        "a tenth of the episodes: it no longer explores.",
        "Raise --config.ppo.entropy_coef or --config.ppo.kl_coef (of grpo alike, or its clip_high), or lower "
        "--config.optimizer.learning_rate, and go on from an earlier step: --config.start=WORKDIR@STEP."),
    "success_collapse": Alarm(
        "For some lines now, the success of the training episodes has been far below its best: updates have "
        "destroyed what the policy could do, or, with 16 episodes a line or fewer, it is chance.",
        "Go on from a step before the fall, --config.start=WORKDIR@STEP, with smaller updates: "
        "--config.ppo.target_kl=0.02, fewer --config.ppo.epochs and --config.ppo.minibatches (of grpo and rloo alike), "
        "or a lower --config.optimizer.learning_rate."),
    "large_update": Alarm(
        "Within one iteration the policy went far from the one that played its episodes (policy/approxkl_avg above "
        "0.2, or a ratio above 100): clipping does not hold it, and such updates destroy policies.",
        "--config.ppo.target_kl=0.02 stops an iteration before that; else fewer --config.ppo.epochs or "
        "--config.ppo.minibatches, or a lower --config.optimizer.learning_rate. --config.ppo.dual_clip=3 bounds "
        "actions with a negative advantage (of grpo and rloo alike)."),
    "over_optimisation": Alarm(
        "For some lines now, the policy has been where its reward model does not know: more than 0.25 nats a response "
        "token from its start, or more than 2% of the scores outside of those that answers of the reward model's "
        "training had. What is learned there is often the reward model's errors: its score rises and the answers get "
        "worse.",
        "Read episodes.jsonl. Go on from an earlier step, --config.start=WORKDIR@STEP, with a larger "
        "--config.ppo.kl_coef or --config.ppo.kl_target (of grpo and rloo alike); or let answers of this policy be "
        "compared, and train the reward model, --config.reward_model.start, on those pairs too."),
    "zero_margins": Alarm(
        "For some lines now, the rewards of both sides of every pair have been 0: the model is still its start, and "
        "the loss stays where it began.",
        "Look at learning_rate of these lines: a larger --config.optimizer.learning_rate or a shorter "
        "--config.schedule.warmup; nothing learns what --config.optimizer.freeze or --config.lora.targets leave out."),
    "sampler_gap": Alarm(
        "The sampler's log-probabilities differ from the training graph's by more than 0.02 a token on average: "
        "episodes come from another distribution than the one that is updated.",
        "--config.model.dtype=float32 if it is bfloat16; --config.rollout.carry=false reads every chat anew, without "
        "the cache. In float32 a gap is a bug of the model: `sftrl check` compares decoding with the full forward."),
}

PREFIX = "alarm/"

# Rewards are exact fractions of a few numbers, so equal ones have a deviation of rounding errors only.
SAME_REWARD = 1e-6
# A policy that changes its answer one time in fifty has 0.1 nats a response, however long the responses are.
LEAST_NATS = 0.1
USUAL_LENGTH = 10.0  # tokens of a response where none was measured
# With little entropy and success from here on, the policy has learned its task.
SOLVED = 0.9
# Success is averaged, because that of one batch is noisy: over 5 lines at first, then with weight 1/5 for the newest.
# Simulated with a constant success of 0.1 to 0.5 over 500 lines: no false alarm with 64 episodes a line or more, some
# with 16 or fewer.
AVERAGED = 5
LEAST_LEVEL, FALL = 0.2, 0.5
# A fall to less than a quarter of a high level is no chance, and a short run may end before its average shows it.
HIGH_LEVEL, STEEP_FALL = 0.5, 0.25
BEST, AVERAGE, LINES = "success/best", "success/average", "success/lines"   # kept from line to line
# PPO on GeneralPoints as its config has it stays below an approximate KL of 0.001 and a ratio of 3. Iterations of 4
# epochs of 8 minibatches that destroyed a policy had 0.36 to 1.4 and ratios up to 184 (V-IRL in language), and 0.8 to
# 2.8 and up to 145 (GeneralPoints, 64 episodes, rate 2e-3).
MOST_KL, MOST_RATIO = 0.2, 100.0
# One batch may lack the rewards that others had, so values are judged by several lines in a row.
BEYOND = 1.5
LEAST_EXPLAINED = -1.0
# PPO on GeneralPoints explains -0.05 to 0.05 with a linear value head, and learns. On V-IRL such a head went down to
# between -0.3 and -0.7, where success was 0.98, and one of eight runs then lost its task within an iteration.
POOR_EXPLAINED = -0.1
# On GeneralPoints (answers of 13 tokens) gold rewards fell from 0.1 to 0.3 nats a token on without a KL coefficient;
# with one that held there were 0.08. Of new answers like the 2,048 that give lowest and highest, 0.1% are outside.
MOST_NATS, MOST_OUTSIDE = 0.25, 0.02
# Both sides have rewards of exactly 0 before the first update, and those of rounding where other programs scored the
# start: up to 4e-7 for 50 nats in float32 at beta 0.1. One update at a rate of 1e-6 gives more.
LEAST_REWARD = 1e-6
PATIENCE = {"runaway_values": 5, "poor_values": 10, "success_collapse": 5, "over_optimisation": 5, "zero_margins": 5}
# verl calls |p - p'| below 0.005 sound and above 0.01 broken, and |log p - log p'| is never smaller. Decoding gives up
# to 0.01 in bfloat16 and 1e-7 in float32.
MOST_GAP = 0.02


def streaks(metrics: dict[str, float], before: dict[str, float]) -> dict[str, float]:
  """What is known of the lines so far: for the alarms of PATIENCE, in how many lines in a row their rules hold; and
  the average and the best success. before: the same of the line before, {} at the first one."""
  levels = _success_levels(metrics, before)
  line = {**metrics, **levels}
  return {**levels, **{name: before.get(name, 0) + 1 if _RULES[name](line) else 0 for name in PATIENCE}}


def raised(metrics: dict[str, float], lines: dict[str, float] | None = None) -> dict[str, float]:
  """{"alarm/NAME": 1.0} of the alarms that one line of metrics raises; a rule whose metrics are absent raises nothing.

  A line may average several steps; constant rewards and truncation must then hold in all of them.
  lines: `streaks` with this line
  """
  lines = lines or {}
  waits = lambda name: lines.get(name, 0) < PATIENCE.get(name, 0)
  return {PREFIX + name: 1.0 for name, rule in _RULES.items() if rule({**metrics, **lines}) and not waits(name)}


def has_signal(metrics: dict[str, float]) -> bool:
  """Whether the rewards of a step of RL give an advantage to any of its episodes; True where nothing is known of it."""
  return not _constant_rewards(metrics) and not _constant_groups(metrics)


def _nonfinite(metrics: dict[str, float]) -> bool:
  return metrics.get("nonfinite_steps", 0.0) > 0 or not math.isfinite(metrics.get("loss", 0.0))


def _no_trainable_tokens(metrics: dict[str, float]) -> bool:
  return metrics.get("label_tokens", 1.0) <= 0


def _constant_rewards(metrics: dict[str, float]) -> bool:
  if "frac_reward_zero_std" in metrics:  # groups have an alarm of their own
    return False
  if "objective/signal" in metrics:
    return metrics["objective/signal"] <= 0
  size = max(1.0, abs(metrics.get("objective/scores", 0.0)))
  return metrics.get("objective/scores_std", math.inf) <= SAME_REWARD * size


def _constant_groups(metrics: dict[str, float]) -> bool:
  return metrics.get("frac_reward_zero_std", 0.0) >= 1.0 - 1e-9


def _runaway_values(metrics: dict[str, float]) -> bool:
  most = metrics.get("critic/values/bound", 0.0)
  beyond = most > 0 and metrics["critic/values/max"] > BEYOND * most
  return beyond or metrics.get("critic/vf_explained_var", 0.0) < LEAST_EXPLAINED


def _poor_values(metrics: dict[str, float]) -> bool:
  return metrics.get("critic/vf_explained_var", 0.0) < POOR_EXPLAINED


def _all_truncated(metrics: dict[str, float]) -> bool:
  return metrics.get("response_length/clip_ratio", 0.0) >= 1.0 - 1e-9


def _entropy_collapse(metrics: dict[str, float]) -> bool:
  length = metrics.get("response_length/mean", USUAL_LENGTH)
  return metrics.get("policy/entropy_avg", math.inf) * length < LEAST_NATS and metrics.get("success", 0.0) < SOLVED


def _success_levels(metrics: dict[str, float], before: dict[str, float]) -> dict[str, float]:
  """The average success after this line, its best so far, and the number of lines; as before where a line has none."""
  levels = {name: before[name] for name in (AVERAGE, BEST, LINES) if name in before}
  if "success" not in metrics:
    return levels
  lines, average = levels.get(LINES, 0) + 1, levels.get(AVERAGE, 0.0)
  average += (metrics["success"] - average) / min(lines, AVERAGED)
  best = levels.get(BEST, 0.0)
  return {AVERAGE: average, BEST: max(best, average) if lines >= AVERAGED else best, LINES: lines}


def _success_collapse(metrics: dict[str, float]) -> bool:
  best = metrics.get(BEST, 0.0)
  steep = best >= HIGH_LEVEL and metrics.get("success", best) < STEEP_FALL * best
  return steep or best >= LEAST_LEVEL and metrics[AVERAGE] < FALL * best


def _large_update(metrics: dict[str, float]) -> bool:
  return metrics.get("policy/approxkl_avg", 0.0) > MOST_KL or metrics.get("val/ratio_max", 0.0) > MOST_RATIO


def _over_optimisation(metrics: dict[str, float]) -> bool:
  if "reward_model/score" not in metrics:
    return False
  tokens = metrics.get("num_turns/mean", 1.0) * metrics.get("response_length/mean", USUAL_LENGTH)
  far = metrics.get("objective/kl", 0.0) > MOST_NATS * tokens
  return far or metrics.get("reward_model/outside", 0.0) > MOST_OUTSIDE


def _zero_margins(metrics: dict[str, float]) -> bool:
  rewards = [metrics.get(f"rewards/{name}", math.inf) for name in ("chosen", "rejected", "margins")]
  return all(abs(reward) <= LEAST_REWARD for reward in rewards)


def _sampler_gap(metrics: dict[str, float]) -> bool:
  return not metrics.get("sampling/sampling_logp_difference/mean", 0.0) <= MOST_GAP  # so that nan raises it too


_RULES = {
    "nonfinite": _nonfinite, "no_trainable_tokens": _no_trainable_tokens, "constant_rewards": _constant_rewards,
    "constant_groups": _constant_groups, "runaway_values": _runaway_values, "poor_values": _poor_values,
    "all_truncated": _all_truncated, "entropy_collapse": _entropy_collapse, "success_collapse": _success_collapse,
    "large_update": _large_update, "over_optimisation": _over_optimisation, "zero_margins": _zero_margins,
    "sampler_gap": _sampler_gap}
