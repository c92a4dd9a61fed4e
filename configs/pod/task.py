"""GeneralPoints with the paper's prompt on slices of TPU: what SFT and PPO share, for each choice of model and slice.

A choice is MODEL-SLICE, such as 8b-v5e-16. The models are written out in numbers, so that `sftrl plan` needs neither
weights nor network; hub-MODEL-SLICE is the same run from the hub's weights, with their own tokenizer. Without a choice
it is a toy that shows the way on a laptop.
"""

from ml_collections import ConfigDict

LLAMA = dict(vocab=128256, kv_heads=8, head_dim=128, norm_eps=1e-5, rope_theta=5e5, rope_scaling="llama3",
             rope_factor=8.0, rope_low=1.0, rope_high=4.0, rope_context=8192)
MODELS = {
    "1.5b": dict(vocab=151936, width=1536, layers=28, heads=12, kv_heads=2, head_dim=128, mlp_dim=8960, norm_eps=1e-6,
                 rope_theta=1e6, tie_embeddings=True, qkv_bias=True),
    "8b": dict(LLAMA, width=4096, layers=32, heads=32, mlp_dim=14336),
    "11b": dict(LLAMA, width=4096, layers=44, heads=32, mlp_dim=14336),  # as large as Llama-3.2-11B-Vision, text alone
    "70b": dict(LLAMA, width=8192, layers=80, heads=64, mlp_dim=28672),
}
HUB = {"1.5b": "Qwen/Qwen2.5-1.5B-Instruct", "8b": "meta-llama/Llama-3.1-8B-Instruct",
       "70b": "meta-llama/Llama-3.1-70B-Instruct"}
CHIPS = {"v5e-4": 4, "v5e-8": 8, "v5e-16": 16, "v5e-64": 64, "v5p-16": 8, "v5p-32": 16, "v5p-256": 128}
ROWS = {"v5e-4": 128, "v5e-8": 128, "v5e-16": 128}  # conversations decoded together; elsewhere all 256 of a batch
CHOICES = ("1.5b-v5e-4", "1.5b-v5e-8", "8b-v5e-16", "8b-v5e-64", "8b-v5p-16", "11b-v5e-64", "11b-v5p-32",
           "70b-v5p-256")


def chosen(choice: str) -> tuple[str, str, str]:
  """(model, slice, the hub's id or "") of a choice."""
  name = choice.removeprefix("hub-")
  model, _, slice_ = name.partition("-")
  hub = HUB.get(model, "") if choice.startswith("hub-") else ""
  if name not in CHOICES or (choice.startswith("hub-") and not hub):
    known = ", ".join((*CHOICES, *(f"hub-{name}" for name in CHOICES if name.partition("-")[0] in HUB)))
    raise ValueError(f"choice is {choice!r}; it must be one of {known}, or left out for a toy.")
  return model, slice_, hub


def shared(choice: str) -> ConfigDict:
  """The paper's task in English and JSON, within three attempts; the token counts are those of bytes, which a real
  tokenizer stays below."""
  config = ConfigDict()
  config.seed = 0
  config.evals = dict(variants=("id_seen", "rule_ood"), episodes=512, kl=False)
  config.mesh = dict(fsdp=-1)
  config.env = dict(name="general_points", cards=4, faces=10, attempts=3, style="paper" if choice else "compact")
  if not choice:
    config.start = "scratch"
    config.tokenizer = dict(name="words")
    config.model = dict(width=64, layers=2, heads=4)
    config.rollout = dict(rows=128, prompt_tokens=16, feedback_tokens=2, max_new_tokens=20, temperature=1.0, shrink=())
    return config
  model, slice_, hub = chosen(choice)
  config.start = hub or "scratch"
  config.tokenizer = dict(name="pretrained" if hub else "bytes")
  config.model = dict(name="pretrained", dtype="bfloat16") if hub else dict(MODELS[model], dtype="bfloat16")
  config.rollout = dict(rows=ROWS.get(slice_, 256), prompt_tokens=576, feedback_tokens=128, max_new_tokens=192,
                        temperature=1.0, shrink=())
  return config


def microbatches(choice: str, rows: int, each: int) -> int:
  """Pieces of `rows` rows of which every chip has `each` at once."""
  return max(1, rows // (CHIPS[chosen(choice)[1]] * each)) if choice else 1
