"""Where each optimizer starts: a learning rate and arguments for post-training a transformer, and who recommends them.

`args` holds only what differs from optax's own defaults, or what optax leaves to the caller. Every rate is for mean
losses whose gradient is clipped to norm 1; a name that this file lacks gets optax's defaults (see catalogue.py).
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Start:
  """A start: learning rate, arguments, and a note for the page of optimizers."""

  learning_rate: float
  args: dict[str, Any] = dataclasses.field(default_factory=dict)
  note: str = ""


# A memory of 1000 updates (b2 = 0.999) is longer than many runs of post-training.
_SHORT = {"b2": 0.98}

GROUPS: dict[str, dict[str, Start]] = {
    "Adam and its kin": {
        "adamw": Start(3e-4, _SHORT, "with decay, which is ours under every name, the same as adam"),
        "adam": Start(3e-4, _SHORT, "Kingma & Ba 2015"),
        "nadamw": Start(3e-4, _SHORT, "adamw with Nesterov's look ahead (Dozat 2016)"),
        "nadam": Start(3e-4, _SHORT, "adam with Nesterov's look ahead (Dozat 2016)"),
        "amsgrad": Start(3e-4, _SHORT, "steps never grow again (Reddi 2018)"),
        "radam": Start(3e-4, _SHORT, "warms itself up (Liu 2020); adam's rate"),
        "adabelief": Start(3e-4, {}, "adam's rate (Zhuang 2020)"),
        "adamax": Start(6e-4, {}, "twice adam's rate (Kingma & Ba 2015)"),
        "adamaxw": Start(6e-4, {}, "the same as adamax"),
        "adopt": Start(3e-4, {}, "converges with any b2 (Taniguchi 2024); adam's rate"),
        "ademamix": Start(3e-4, {"b3": 0.999}, "remembers old gradients; for short runs its paper takes b3 0.999 "
                          "(Pagliardini 2024); adamw's rate"),
        "simplified_ademamix": Start(1e-5, {}, "sums gradients: adam's rate times about 1 - b1 (Morwani 2025)"),
        "acprop": Start(3e-4, {}, "adam's rate (Zhuang 2021)"),
        "adan": Start(1e-3, {}, "a few times adam's rate (Xie 2022)"),
        "yogi": Start(1e-3, {}, "v changes slowly and eps 1e-3 is part of the rule (Zaheer 2018)"),
        "optimistic_adam_v2": Start(3e-4, {}, "made for games (Daskalakis 2018); adam's rate"),
        "optimistic_adam": Start(3e-4, {"optimism": 1.0}, "deprecated by optax for _v2; optimism is in units of the "
                                 "learning rate"),
    },
    "Little memory": {
        "adafactor": Start(3e-4, {"multiply_by_parameter_scale": False, "min_dim_size_to_factor": 32},
                           "second moments by rows and columns (Shazeer 2018); without parameter scale, adam's rate; "
                           "heads of 64 channels are factored too"),
        "sm3": Start(1e-2, {}, "second moments by axes, as adagrad's (Anil 2019); wants warm-up"),
        "galore": Start(1e-3, {}, "adam in a subspace of every matrix inside blocks, found by SVD (Zhao 2024); adam "
                        "elsewhere"),
        "lion": Start(1e-4, {}, "signs of momentum: 3 to 10 times less than adamw's rate, and so much more decay (Chen "
                      "2023)"),
        "signum": Start(1e-4, {}, "as long steps as lion's (Bernstein 2018)"),
        "sign_sgd": Start(1e-4, {}, "as long steps as lion's (Bernstein 2018)"),
    },
    "Matrices, layer by layer": {
        "muon": Start(3e-4, {"consistent_rms": 0.2, "adam_b2": 0.98}, "matrices inside blocks, adam elsewhere (Jordan "
                      "2024); consistent_rms 0.2 makes adamw's rate and decay right for both (Liu 2025)"),
        "lamb": Start(3e-3, {}, "for large batches (You 2020); steps in proportion to a layer's norm"),
        "lars": Start(1.0, {}, "for large batches (You 2017): trust_coefficient times this, per layer"),
        "fromage": Start(1e-2, {}, "its paper's rate (Bernstein 2020); keeps norms, so all parameters shrink by "
                         "rate^2 / 2"),
        "novograd": Start(1e-2, {}, "gradients over their layer's norm (Ginsburg 2019)"),
    },
    "Gradient descent": {
        "sgd": Start(1e-1, {"momentum": 0.9}, ""),
        "noisy_sgd": Start(1e-1, {"eta": 1e-8, "key": 0}, "noise of optax's eta 0.01 would drown a clipped gradient "
                           "(Neelakantan 2015); key is the seed of the noise"),
        "optimistic_gradient_descent": Start(1e-1, {}, "made for games (Daskalakis 2018)"),
        "rmsprop": Start(3e-4, {}, "adam without momentum"),
        "adagrad": Start(3e-3, {"initial_accumulator_value": 0.0}, "steps only shrink (Duchi 2011); optax's start "
                         "value 0.1 is above any clipped gradient's square"),
        "adadelta": Start(1.0, {}, "its paper has no rate; this scales it (Zeiler 2012)"),
        "madgrad": Start(1e-3, {}, "dual averages from where it began (Defazio & Jelassi 2021)"),
        "rprop": Start(1e-4, {"max_step_size": 1e-2}, "the rate is the first step; for whole batches "
                       "(Riedmiller 1993)"),
    },
    "Finding their own rate (1 scales what they find)": {
        "prodigy": Start(1.0, {"safeguard_warmup": True}, "Mishchenko & Defazio 2024; safeguarded since warm-up "
                         "is usual"),
        "dadapt_adamw": Start(1.0, {}, "Defazio & Mishchenko 2023"),
        "mechanize": Start(1.0, {"base_optimizer": "adamw"}, "learns the scale of base_optimizer, any plain one above "
                           "(Cutkosky 2023)"),
        "dog": Start(1.0, {}, "distance over gradients (Ivgi 2023)"),
        "dowg": Start(1.0, {}, "distance over weighted gradients (Khaled 2023)"),
        "cocob": Start(1.0, {}, "bets (Orabona 2017): the rate cancels, so let the schedule be constant"),
    },
    "Schedule-free (evaluated at an average; let the schedule be constant, with warm-up)": {
        "schedule_free_adamw": Start(1e-3, {}, "1 to 10 times adamw's rate (Defazio 2024)"),
        "schedule_free_sgd": Start(1.0, {}, "about 10 times sgd's rate (Defazio 2024)"),
        "schedule_free": Start(1e-3, {"base_optimizer": "adamw"}, "around base_optimizer, any plain one above, its own "
                               "momentum off"),
    },
}
STARTS: dict[str, Start] = {name: start for group in GROUPS.values() for name, start in group.items()}

REFUSED = {
    "lbfgs": "its line search asks for the loss again in the middle of an update (value, grad, value_fn), and without "
             "one its steps on minibatches need not go down.",
    "polyak_sgd": "its step is the loss over the gradient's norm, so update needs the loss (value), and a policy's "
                  "loss has no least value.",
    "momo": "it models the loss, so update needs it (value), and a policy's loss has no lower bound.",
    "momo_adam": "it models the loss, so update needs it (value), and a policy's loss has no lower bound.",
    "sophia": "it estimates the Hessian, so update needs the loss as a function of the parameters (obj_fn).",
    "hutchinson_estimator_diag_hessian": "sophia's estimate of the Hessian; update needs the loss as a function of the "
                                         "parameters (obj_fn).",
    "dpsgd": "it clips the gradient of every example by itself; a train step has only their sum.",
    "differentially_private_aggregate": "it clips the gradient of every example by itself; a train step has only their "
                                        "sum.",
    "sam": "every other step leaves the parameters at an adversarial point, which would be played, evaluated and "
           "saved; its other mode needs grad_fn.",
    "reduce_on_plateau": "it lowers the rate when the loss stalls, so update needs the loss (value).",
    "lookahead": "it trains a pair of fast and slow parameters in place of the parameters.",
}

WRAPPERS = {
    "split_real_and_imaginary": "gives an optimizer complex parameters as two real ones; a decoder's are real.",
    "apply_if_finite": "skips updates that are not finite; the train step does that.",
    "flatten": "gives an optimizer all parameters as one vector, which could not be sharded.",
    "masked": "an optimizer for some parameters: see optimizer.freeze.",
    "selective_transform": "an optimizer for some parameters: see optimizer.freeze.",
    "partition": "several optimizers, each for some parameters: see optimizer.factors and freeze.",
    "multi_transform": "the older name of partition.",
    "conditionally_mask": "an optimizer under a condition.",
    "conditionally_transform": "an optimizer under a condition.",
    "inject_hyperparams": "makes an optimizer's arguments part of its state; the schedule changes its learning rate.",
    "inject_stateful_hyperparams": "makes an optimizer's arguments part of its state; the schedule changes its rate.",
    "chain": "several transformations, one after another.",
    "named_chain": "several transformations, one after another.",
    "with_extra_args_support": "lets update ignore what it does not need.",
}
