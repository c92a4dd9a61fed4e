"""Prompt and answer as one text, byte tokens, and tokens across a seam, for tokenizers of several makes."""

import functools

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.text.pretrained import SEAM, Pretrained
from sftrl_jax.text.render import render, renderings

TEXT = "Hello world the play playing 2 + 2 = 4 user assistant Hello hello . wor ing\n\n"
TEMPLATE = ("{{ bos_token }}{% for m in messages %}{{ '[S]' + m.role + '\\n' + m.content + '[E]\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '[S]assistant\\n' }}{% endif %}")
PAIRS = [("2+2=", "4"), ("Hello", " world"), ("Hello ", "world"), ("Hello\n", "world"), ("Hello\n", "\nworld"),
         ("play", "ing"), ("Hello", "\n"), ("", "Hello"), ("Hello é", "日 x"), (" ", " ")]
KINDS = ("bytes", "metaspace", "legacy", "unigram", "wordpiece")


@functools.cache
def hugging(kind, bytes_special=False):
  from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
  from transformers import PreTrainedTokenizerFast
  special, byte = ["<unk>", "<s>", "[S]", "[E]"], [f"<0x{number:02X}>" for number in range(256)]
  blank = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
  train = dict(vocab_size=340, special_tokens=special, show_progress=False)
  if kind == "bytes":
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(**train, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
  elif kind in ("metaspace", "legacy"):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(blank)
    trainer = trainers.BpeTrainer(**{**train, "special_tokens": special + byte})
  elif kind == "unigram":
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(**{**train, "vocab_size": 60}, unk_token="<unk>")
  else:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(**train)
  tokenizer.train_from_iterator([TEXT] * 4, trainer)
  if kind == "legacy":   # as Llama 2's files have it
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
  if byte[0] in tokenizer.get_vocab() and not bytes_special:
    import json
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in byte]
    tokenizer = Tokenizer.from_str(json.dumps(spec))
  tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
  tokenizer.post_processor = processors.TemplateProcessing(
      single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
  return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="[E]", pad_token="[E]",
                                 unk_token="<unk>", chat_template=TEMPLATE)


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_answer_are_the_joint_text_or_follow_the_prompt_as_generation_reads_it(kind):
  hf = hugging(kind)
  tokenizer, crossing = Pretrained.of(hf), 0
  for prompt, text in PAIRS:
    before, after, crossed = tokenizer.seam(prompt, text)
    joint = hf(prompt + text)["input_ids"]
    assert before == tokenizer.plain(prompt) == hf(prompt)["input_ids"]
    if kind != "unigram" or joint[:len(before)] == before:   # which may cut the prompt in another way
      assert crossed or [*before, *after] == joint
    assert hf.decode([*before, *after]) == hf.decode(joint) or crossed
    crossing += bool(crossed)
  assert 0 < crossing < len(PAIRS) - 3


@pytest.mark.parametrize("kind", ["metaspace", "legacy"])
def test_byte_tokens_flagged_special_keep_the_fallback(kind):
  hf = hugging(kind, bytes_special=True)
  for texts in (("What?", "It is 42."), ("日本", "é\n\n🙂"), ("Hello", "world")):
    chat = (Message("user", texts[0]), Message("assistant", texts[1]))
    theirs = hf.apply_chat_template([{"role": message.role, "content": message.text} for message in chat],
                                    return_dict=False)
    assert render(Pretrained.of(hf), chat)[0] == theirs and hf.unk_token_id not in theirs
  tokenizer = Pretrained.of(hf)
  assert tokenizer.decode(tokenizer.encode("Hello <0x41>")) == "Hello <0x41>"   # a byte's name stays text


def test_a_chat_whose_answer_begins_inside_a_token_is_noted(make, talk):
  straight, crossed = renderings(make("smollm2"), [talk("a", "b"), talk("a", "\n\nb")])
  assert straight.notes == () and [what for what, _ in crossed.notes] == [SEAM]


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_of_a_text_are_letters_or_tokens(kind):
  hf = hugging(kind)
  tokenizer, text = Pretrained.of(hf), "[S]Hello[E]"
  ends = [hf.convert_tokens_to_ids(name) for name in ("[S]", "[E]")]
  before, after, _ = tokenizer.seam("", text, control_tokens=True)
  assert [*before, *after] == hf(text)["input_ids"] and set(ends) <= set(after)
  before, after, _ = tokenizer.seam("", text)
  assert not set(ends) & set(after) and tokenizer.spelled(text) == ["[S]", "[E]"]
  assert tokenizer.seam("", "<s>Hello", control_tokens=True)[0] == []   # it begins once
