"""The range of every argument of every optimizer: a number outside it is refused before anything is compiled.

Outside it an update is 0 / 0, a root of a negative number, or a step uphill. Numbers are compared as float32, which is
what an update computes with: 1 - 1e-9 is 1 there, and 1e-50 is 0.
"""

import dataclasses
import math
from typing import Any

import numpy as np

LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Range:
  """Numbers from `low` to `high`. open_low, open_high: whether the end itself is outside."""

  low: float = -LARGEST
  high: float = LARGEST
  open_low: bool = False
  open_high: bool = False

  def holds(self, value: float) -> bool:
    """Whether the number, as float32, is in the range; NaN and infinity never are."""
    number = _as_float32(value)
    number = 0.0 if abs(number) < SMALLEST else number   # a device makes 0 of what is smaller
    low, high = _as_float32(self.low), _as_float32(self.high)
    above = number > low if self.open_low else number >= low
    below = number < high if self.open_high else number <= high
    return math.isfinite(number) and above and below

  def __str__(self) -> str:
    if self.high == LARGEST:
      ends = {(0.0, True): "be positive", (0.0, False): "not be negative", (-LARGEST, False): "be finite"}
      return ends.get((self.low, self.open_low), f"be {'above' if self.open_low else 'at least'} {self.low:g}")
    if self.low == -LARGEST:
      return f"be {'below' if self.open_high else 'at most'} {self.high:g}"
    return f"lie in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


SHARE = Range(0.0, 1.0, open_high=True)
INSIDE = Range(0.0, 1.0, open_low=True, open_high=True)
POSITIVE, NOT_NEGATIVE = Range(0.0, open_low=True), Range(0.0)
EPSILON, EPSILON_OR_ZERO = Range(0.0, 1.0, open_low=True), Range(0.0, 1.0)
COUNT = Range(1)

RANGES = {
    **dict.fromkeys(("b1", "b2", "b3", "adam_b1", "adam_b2", "beta3", "betas", "momentum", "decay", "rho"), SHARE),
    **dict.fromkeys(("eps", "eps_root", "adam_eps_root"), EPSILON_OR_ZERO),
    **dict.fromkeys(("clipping_threshold", "consistent_rms", "estim_lr0", "estim_lr_coef", "init_estim_sq_dist",
                     "max_step_size", "min_step_size", "s_init", "scale", "trust_coefficient", "min_norm"), POSITIVE),
    **dict.fromkeys(("alpha", "beta", "optimism", "initial_accumulator_value", "initial_scale", "eta", "gamma"),
                    NOT_NEGATIVE),
    **dict.fromkeys(("rank", "update_proj_gap", "min_dim_size_to_factor"), COUNT),
    "ns_steps": Range(1, 100), "ns_coeffs": Range(), "init_step": POSITIVE, "key": NOT_NEGATIVE,
    "decay_rate": EPSILON_OR_ZERO, "decay_offset": Range(high=0),   # the power of a negative count is NaN
    "eta_minus": INSIDE, "eta_plus": Range(1.0, open_low=True),
    "num_betas": Range(1, 7),   # 1 - 10^-8 is 1
    "threshold": Range(4.0),   # below it the rectification is the root of a negative number
    "weight_lr_power": Range(0.0, 10.0),   # a rate to a higher power is 0, and the average stays where it is
}
# Where an optimizer differs from the others that have an argument of the name.
OF_OPTIMIZER = {
    # Sums over all parameters are divided by something with this eps: at 0 the first update is none, whatever it reads.
    **{(name, "eps"): EPSILON for name in ("adafactor", "prodigy", "dadapt_adamw", "mechanize", "dowg")},
    ("adabelief", "b1"): INSIDE,   # without momentum nothing differs from its mean, and a step is the gradient over eps
    ("cocob", "eps"): Range(1e-15, 1.0), ("cocob", "alpha"): POSITIVE,
    **dict.fromkeys((("optimistic_adam_v2", "alpha"), ("optimistic_gradient_descent", "alpha")), POSITIVE),
    **dict.fromkeys((("signum", "beta"), ("muon", "beta")), SHARE),
    # The evaluated parameters are divided by b1.
    **{(name, "b1"): Range(0.01, 1.0, open_high=True)
       for name in ("schedule_free", "schedule_free_adamw", "schedule_free_sgd")},
}
DTYPES = ("float32", "bfloat16", "float16")
CHOICES = {
    **dict.fromkeys(("mu_dtype", "accumulator_dtype", "dtype_momentum", "state_dtype"), DTYPES),
    "init_step": ("distance", "learning_rate", "heuristic"), "ns_coeffs": ("standard", "dion"),
}
CHOICES_OF_OPTIMIZER = {("ademamix", "mu_dtype"): ("float32",)}   # its state has another dtype after an update


def refuse(name: str, args: dict[str, Any]) -> None:
  """ValueError, which begins with args.KEY, for an argument of an optimizer of optax outside its range or choices.

  name: of the optimizer; args: those that are given. Arguments that this file does not know are not looked at.
  """
  for key, value in args.items():
    _refuse(key, value, OF_OPTIMIZER.get((name, key), RANGES.get(key)),
            CHOICES_OF_OPTIMIZER.get((name, key), CHOICES.get(key, ())))
  if args.get("min_step_size", 0.0) > args.get("max_step_size", math.inf):
    raise ValueError(f"args.min_step_size is {args['min_step_size']}; it must be at most args.max_step_size = "
                     f"{args['max_step_size']}.")
  if isinstance(coefficients := args.get("ns_coeffs"), (tuple, list)):
    _refuse_coefficients(coefficients)


def warning(name: str, args: dict[str, Any]) -> str:
  """What to know of arguments that are in their ranges, "" if nothing. args: all of them, defaults included."""
  if name == "lars" or "eps" not in args or abs(args["eps"]) >= SMALLEST or args.get("eps_root", 0.0) >= SMALLEST:
    return ""
  return (f"config.optimizer.args.eps is {args['eps']}: where a gradient is 0, {name} divides 0 by 0, and an update "
          "that is not finite is skipped; 1e-8 is usual.")


def _refuse(key: str, value: Any, numbers: Range | None, choices: tuple[str, ...]) -> None:
  """ValueError unless the value, or every item of it, is in the range (None: any) or is one of the choices."""
  if isinstance(value, (tuple, list)):
    for item in value:
      _refuse(key, item, numbers, choices)
  elif choices and isinstance(value, str):
    if value not in choices:
      raise ValueError(f"args.{key} is {value!r}; it must be one of {', '.join(choices)}.")
  elif numbers and (isinstance(value, bool) or not isinstance(value, (int, float))):
    raise ValueError(f"args.{key} is {value!r}; it must be a number, and {numbers}.")
  elif numbers and not numbers.holds(value):
    number = _as_float32(value)
    rounds = number != value and number in (0.0, 1.0, math.inf, -math.inf)
    rounded = f", which is {number:g} in float32" if rounds else ""
    raise ValueError(f"args.{key} is {value}{rounded}; it must {numbers}.")


def _as_float32(value: float) -> float:
  with np.errstate(over="ignore", under="ignore"):
    return float(np.float32(value))


def _refuse_coefficients(rows: tuple | list) -> None:
  """ValueError unless these are the three coefficients of muon's polynomial, or three for each of its steps."""
  rows = rows if rows and isinstance(rows[0], (tuple, list)) else (rows,)
  numbers = lambda row: all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in row)
  if not all(isinstance(row, (tuple, list)) and len(row) == 3 and numbers(row) for row in rows):
    raise ValueError(f"args.ns_coeffs is {rows}; it must be three numbers, or three for each step, or one of "
                     f"{', '.join(CHOICES['ns_coeffs'])}.")
