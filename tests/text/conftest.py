"""Small tokenizers made on the spot, with chat templates that behave as those of well-known families do.

The templates are written for these tests; only what they do is taken from life.
"""

import functools
import pathlib

import pytest

from sftrl_jax.chat import Message

CORPUS = ("The cards are 2, 3, 10 and K.\n\nMake 24 of them.", "I think: 10 + 10 + 2 + 2 = 24. Is that right?\n",
          "No, the answer is wrong; try again.\n\n\n", "system user assistant model\n think  about   it",
          "[INST] [/INST] question, another question, a last question, a rule, an answer: An answer: An answer")
WORDS = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"   # line ends stay with blanks before them
SPECIAL = ("<|pad|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|eot_id|>", "<start_of_turn>", "<end_of_turn>")
# eos_token; Gemma's is not what ends its turns
ENDS = {"llama3": "<|eot_id|>", "gemma": "</s>", "zephyr": "</s>", "mistral": "</s>"}   # others: <|im_end|>
DAY = "strftime_now('%d %b %Y')"


def template(family):
  path = pathlib.Path(__file__).parent / "templates" / f"{family}.jinja"
  return path.read_text() if path.exists() else None


@functools.cache
def backend(kind):
  """A BPE of some 400 tokens that puts <s> first: over "bytes", or over characters, with sentencepiece's "blank"."""
  from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
  if kind == "bytes":
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
  else:
    tokenizer = Tokenizer(models.BPE(unk_token="<|pad|>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    alphabet = sorted({*"".join(CORPUS), *"".join(SPECIAL)} - {" "})
  tokenizer.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(
      vocab_size=420, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False))
  tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
  tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
  return tokenizer


@functools.cache
def hugging(family, kind="bytes", source=""):
  from transformers import PreTrainedTokenizerFast
  eos = ENDS.get(family, "<|im_end|>")
  return PreTrainedTokenizerFast(tokenizer_object=backend(kind), bos_token="<s>", eos_token=eos, pad_token=eos,
                                 unk_token="<|pad|>", chat_template=source or template(family))


@pytest.fixture(scope="session")
def hf():
  """hf(family, kind="bytes", source="") -> transformers' own tokenizer of a family, or of another template's source."""
  return hugging


@pytest.fixture(scope="session")
def make():
  """make(family, kind="bytes", source="") -> the same as ours."""
  from sftrl_jax.text.pretrained import Pretrained
  return functools.cache(lambda family, kind="bytes", source="": Pretrained.of(hugging(family, kind, source)))


@pytest.fixture(scope="session")
def applied():
  """applied(family, kind, chat) -> the ids of transformers' apply_chat_template, on the day that ours keeps."""

  def apply(family, kind, chat, return_dict=False, **settings):
    messages = [{"role": message.role, "content": message.text} for message in chat]
    return hugging(family, kind).apply_chat_template(
        messages, add_generation_prompt=chat[-1].role != "assistant", return_dict=return_dict,
        chat_template=template(family).replace(DAY, "'26 Jul 2024'"), **settings)

  return apply


@pytest.fixture(scope="session")
def talk():
  """talk(*texts, system="") -> a chat: texts of the user and the assistant by turns."""

  def chat(*texts, system=""):
    opening = (Message("system", system),) if system else ()
    return (*opening, *(Message(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)))

  return chat
