"""What learning from pairs shares with SFT of a chat model, configs/sft/chat.py, and the pairs in place of its rows."""

from pathlib import Path

from configs.sft import chat


def shared():
  """The model, the optimizer and the sizes of chat.py on the sample of pairs; without an objective."""
  config = chat.get_config()
  config.data = dict(path=str(Path(__file__).with_name("pairs_sample.jsonl")), length=256)
  return config
