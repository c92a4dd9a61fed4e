r"""SFT of a chat model on rows of your own: after it, the model answers as the assistant in your file does.

  sftrl sft --config=configs/sft/chat.py --workdir=runs/chat --config.data.path=FILE.jsonl

Hardware: one GPU, or two CPU cores to try it. Minutes: 7 for the result below on two busy cores; not measured on a GPU.
Result: SmolLM2-135M-Instruct on the sample, 12 updates of two rows of 256 tokens: on six chats that are held out
(--config.data.validation=0.2) the loss goes from 2.56 to 2.17.

FILE is .jsonl, .json or .parquet, a directory of such files, or owner/name on the hub, with `messages`, `prompt` and
`completion`, or `text`. Without it, the little sample beside this file is trained on. Any model can be the start:
--config.start=DIR, a .gguf file, or a name on the hub; --config.lora.rank=16 trains adapters instead of all of it.
"""

from pathlib import Path

from ml_collections import ConfigDict


def get_config():
  config = ConfigDict()
  config.seed = 0
  config.start = "smollm2"
  config.steps = 100
  config.batch = 8
  config.env = dict(name="none")  # nothing is played; evals.variants of an environment would be
  config.tokenizer = dict(name="pretrained")
  config.model = dict(name="pretrained", dtype="float32")  # bfloat16 on an accelerator
  config.data = dict(path=str(Path(__file__).with_name("chat_sample.jsonl")), length=1024)
  config.optimizer = dict(name="adamw", learning_rate=2e-5, clip=1.0)
  config.schedule = dict(name="cosine", warmup=10, end=0.1)
  config.compute = dict(microbatches=4, logit_chunk=256)  # a vocabulary of 49 thousand is the largest array there is
  config.checkpoint = dict(every=50, keep=2)
  config.log = dict(every=1)
  return config
