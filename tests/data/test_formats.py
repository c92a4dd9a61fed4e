"""What of a row is learned, format by format, and what is told of a row that is none."""

import pytest

from sftrl_jax.data.formats import (
  FORMATS,
  READERS,
  SPELLED,
  SPELLED_IN_CHAT,
  TRAILING,
  examples,
  format_of,
)
from sftrl_jax.data.lines import BadRow
from sftrl_jax.text.tokenizer import byte, words

TOKENIZER = byte()


def messages(*pairs):
  return [{"role": role, "content": content} for role, content in pairs]


def example(name, value, tokenizer):
  outcome, = examples([(name, value)], tokenizer)
  if isinstance(outcome, BadRow):
    raise outcome
  return outcome


def learned(name, value):
  """The spans that are learned, as text, and everything."""
  ids, flags = example(name, value, TOKENIZER).ids, example(name, value, TOKENIZER).learned
  assert len(ids) == len(flags)
  spans, open_ = [], False
  for token, flag in zip(ids, flags, strict=True):
    if flag and not open_:
      spans.append([])
    if flag:
      spans[-1].append(token)
    open_ = flag
  return [TOKENIZER.decode(span) for span in spans], TOKENIZER.decode(ids)


def test_every_turn_of_the_assistant_is_learned_with_its_end():
  chat = messages(("system", "S"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
  assert learned("messages", {"messages": chat}) == (["a<eos>", "b<eos>"], "<bos>S<end>q<end>a<eos>r<end>b<eos>")


def test_sharegpt_is_the_same_chat():
  turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
  same = {"messages": messages(("user", "q"), ("assistant", "a"))}
  assert example("messages", {"conversations": turns}, TOKENIZER) == example("messages", same, TOKENIZER)


def test_what_follows_the_last_answer_is_left_out_and_told():
  chat = messages(("user", "q"), ("assistant", "a"), ("user", "r"))
  whole, short = (example("messages", {"messages": listed}, TOKENIZER) for listed in (chat, chat[:2]))
  assert whole.notes == ((TRAILING, "user: 'r'"),) and (whole.ids, whole.learned) == (short.ids, short.learned)


def test_of_prompt_and_completion_the_completion_is_learned():
  assert learned("prompt_completion", {"prompt": "2+2=", "completion": "4"}) == (["4<eos>"], "<bos>2+2=4<eos>")
  prompt = messages(("user", "q"), ("assistant", "wrong"), ("user", "no"))
  value = {"prompt": prompt, "completion": messages(("assistant", "a"))}
  assert learned("prompt_completion", value) == (["a<eos>"], "<bos>q<end>wrong<eos>no<end>a<eos>")


def test_of_text_all_is_learned():
  assert learned("text", {"text": "abc"}) == (["abc<eos>"], "<bos>abc<eos>")


def test_the_columns_tell_the_format():
  assert READERS.keys() - FORMATS.keys() == {"chosen"}   # which a person has to ask for
  of = lambda *columns: format_of(dict.fromkeys(columns, "x"), columns)
  assert of("id", "messages", "prompt") == of("conversations") == "messages"
  assert of("prompt", "completion") == "prompt_completion" and of("text", "url") == "text"
  for columns, message in {("question", "answer"): "has the columns 'question', 'answer', but needs `messages`",
                        (): r"has the columns \(none\)",
                        ("text", "messages"): "choose with --config.data.format=messages or text"}.items():
    with pytest.raises(BadRow, match=message):
      of(*columns)


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
BAD = {
    "no answer": ([USER], "messages", "no message of the assistant"),
    "no list": ("hello", "messages", "is text, but should be a list"),
    "null": (None, "messages", "is null"),
    "nothing": ([], "messages", "is an empty list"),
    "a message of text": ([USER, "a"], "messages[1]", "is text, but should be an object"),
    "other keys": ([{"speaker": "x"}], "messages[0]", "has the keys 'speaker'"),
    "no content": ([{"role": "user"}], "messages[0].content", "is missing"),
    "a picture": ([{"role": "user", "content": [{"type": "image", "url": "x"}]}, ANSWER], "messages[0].content[0]",
                  "is of type 'image', but only parts of type 'text'"),
    "a part that is no text": ([{"role": "user", "content": [{"type": "text", "text": 3}]}],
                               "messages[0].content[0].text", "is a number"),
    "a part that is none": ([{"role": "user", "content": [None]}], "messages[0].content[0]", "is null"),
    "a picture beside": ([{**USER, "images": ["x"]}, ANSWER], "messages[0].images", "no text model reads"),
    "half a flag": ([USER, {**ANSWER, "weight": 0.5}], "messages[1].weight", "is '0.5', but should be true or false"),
    "no number": ([USER, {**ANSWER, "weight": float("nan")}], "messages[1].weight", "is 'nan'"),
    "two flags": ([USER, {**ANSWER, "weight": 0, "train": True}], "messages[1]", "one says that it is learned and"),
    "an unclear flag": ([USER, {**ANSWER, "mask": 1}], "messages[1].mask", 'use "train": true or false'),
    "no flag is on": ([USER, {**ANSWER, "train": False}], "messages", "no message of the assistant that its flags"),
    "half a pair in a key": ([{**USER, "name": ["\ud83d"]}, ANSWER], "messages[0].name[0]", "half a surrogate pair"),
    "an object": ([{"role": "user", "content": {"a": 1}}], "messages[0].content", "is an object"),
    "a number": ([{"role": "user", "content": 4}], "messages[0].content", "is a number"),
    "an unknown role": ([USER, {"role": "robot", "content": "x"}], "messages[1].role", "'robot', but should be one"),
    "no role": ([{"role": None, "from": None, "content": "x"}], "messages[0].role", "is null, but should be one"),
    "a role that is none": ([{"role": 7, "content": "x"}], "messages[0].role", "is '7'"),
    "a list for a role": ([{"role": [], "content": "x"}], "messages[0].role", "is '[]'"),
    "an empty answer": ([USER, {**ANSWER, "content": ""}], "messages[1].content", "is empty"),
    "NUL": ([{"role": "user", "content": "a\0"}, ANSWER], "messages[0].content", "a NUL at character 2"),
    "half a pair": ([{"role": "user", "content": "\ud83d"}, ANSWER], "messages[0].content", "half a surrogate pair"),
    "a call of tools": ([USER, {**ANSWER, "tool_calls": [{}]}], "messages", "calls tools"),
    "reasoning alone": ([USER, {"role": "assistant", "reasoning_content": "r"}], "messages[1].content",
                        "says nothing that the chat template reads"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_chat_is_told_with_its_place_in_the_row(case):
  listed, column, message = BAD[case]
  with pytest.raises(BadRow) as error:
    example("messages", {"messages": listed}, TOKENIZER)
  assert error.value.column == column and message in error.value.message


@pytest.mark.parametrize(("name", "value", "column", "message"), [
    ("text", {"text": ""}, "text", "is empty"), ("text", {"text": ["a"]}, "text", "is a list"),
    ("text", {}, "text", "is missing"), ("messages", {"text": "a"}, "messages", "is missing; the row has 'text'"),
    ("prompt_completion", {"prompt": "a"}, "completion", "is missing"),
    ("prompt_completion", {"prompt": "a", "completion": ""}, "completion", "is empty"),
    ("prompt_completion", {"prompt": "a", "completion": [ANSWER]}, "completion", "both should be texts"),
    ("prompt_completion", {"prompt": [USER], "completion": [USER]}, "completion", "no message of the assistant")])
def test_a_bad_row_of_another_format_is_told_too(name, value, column, message):
  with pytest.raises(BadRow) as error:
    example(name, value, TOKENIZER)
  assert error.value.column == column and message in error.value.message


def test_a_word_that_the_tokenizer_has_not_is_a_bad_row():
  with pytest.raises(BadRow, match="cannot be rendered: 'maybe' is no word"):
    example("text", {"text": "yes maybe"}, words(("yes", "no")))


def test_chats_of_a_pretrained_tokenizer_are_rendered_together_and_one_that_is_refused_is_told():
  pytest.importorskip("transformers")
  from tokenizers import Tokenizer, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast

  from sftrl_jax.text.pretrained import Pretrained
  names = ["<unk>", "<|user|>", "<|assistant|>", "<|end|>", "1", "2", "3", "then"]
  backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  backend.add_special_tokens(names[:4])
  source = ("{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no rules') }}{% endif %}"
            "{{ '<|' + m.role + '|> ' + m.content + '<|end|> then ' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}")
  tokenizer = Pretrained.of(PreTrainedTokenizerFast(
      tokenizer_object=backend, unk_token="<unk>", eos_token="<|end|>", chat_template=source))
  chats = [messages(("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "1 2")),
           messages(("system", "1"), ("user", "1"), ("assistant", "2")), messages(("user", "3")),
           messages(("user", "3"), ("assistant", "3"))]
  first, refused, silent, last = examples([("messages", {"messages": chat}) for chat in chats], tokenizer)
  words_of = lambda example: " ".join(
      names[token] for token, flag in zip(example.ids, example.learned, strict=True) if flag)
  assert words_of(first) == "2 <|end|> 1 2 <|end|>" and words_of(last) == "3 <|end|>"
  assert names[first.ids[-1]] == "<|end|>"   # what the template puts behind the last end teaches nothing
  assert refused.reason == "cannot be rendered" and "no rules" in refused.message
  assert silent.reason == "no assistant message"
  halves = [{"prompt": chats[0][:3], "completion": chats[0][3:]}, {"prompt": "1", "completion": "2 3"}]
  listed, written = examples([("prompt_completion", half) for half in halves], tokenizer)
  assert words_of(listed) == "1 2 <|end|>" and listed.ids == first.ids
  assert [names[token] for token in written.ids] == ["1", "2", "3", "<|end|>"]


HEAD = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
TAIL = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
SOURCE = ("{% if tools %}{{ '<|im_start|>' + (tools | tojson) + '<|im_end|>' }}{% endif %}" + HEAD +
          "{% if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
          "{{ m.content or '' }}"
          "{% for call in m.tool_calls or [] %}{{ '[' + call.name + ']' }}{% endfor %}{{ '<|im_end|>' }}" + TAIL)


@pytest.fixture(scope="module")
def chatty():
  """A tokenizer over bytes, whose template reads reasoning_content, tools and tool_calls; and transformers' own."""
  pytest.importorskip("transformers")
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers
  from transformers import PreTrainedTokenizerFast

  from sftrl_jax.text.pretrained import Pretrained
  names = ["<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
  backend = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, []))
  backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
  backend.add_special_tokens(names[:2])
  hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", chat_template=SOURCE)
  return Pretrained.of(hf), hf


def test_what_a_template_reads_of_a_message_and_a_row_is_trained(chatty):
  tokenizer, hf = chatty
  call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
  chat = [USER, call, {"role": "tool", "content": "5", "tool_call_id": "1"}, {**ANSWER, "reasoning_content": "r"}]
  tools = [{"name": "f", "args": {"z": 1, "a": 2}}]
  for beside in ({"tools": tools}, {"tools": '[{"name": "f", "args": {"z": 1, "a": 2}}]'},
                 {"chat_template_kwargs": {"tools": tools}}):
    example, = examples([("messages", {"messages": chat, **beside})], tokenizer)
    theirs = hf.apply_chat_template(chat, tools=tools, return_dict=False)
    assert example.ids == theirs and example.unread == ("messages[].tool_call_id",) and example.notes == ()
    taught = [token for token, flag in zip(example.ids, example.learned, strict=True) if flag]
    assert tokenizer.decode(taught) == "[f]<|im_end|><think>r</think>a<|im_end|>"
  halves = {"prompt": chat[:3], "completion": chat[3:], "tools": tools}
  half, = examples([("prompt_completion", halves)], tokenizer)
  assert half.ids == theirs and sum(half.learned) == len("<think>r</think>a") + 1
  flagged = [USER, {**call, "train": False}, *chat[2:]]
  silent, = examples([("messages", {"messages": flagged, "tools": tools})], tokenizer)
  assert silent.ids == theirs and silent.learned == half.learned


def test_columns_beside_a_chat(chatty):
  turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
  whole, bare = examples([("messages", {"conversations": turns, "system": "s", "tools": ""}),
                          ("messages", {"messages": [{"role": "system", "content": "s"}, USER, ANSWER]})], chatty[0])
  assert whole == bare
  for row, column, message in (
      ({"messages": [{"role": "system", "content": "s"}, USER, ANSWER], "system": "t"}, "system", "another text"),
      ({"messages": [USER, ANSWER], "tools": "["}, "tools", "no JSON"),
      ({"messages": [USER, ANSWER], "tools": 3}, "tools", "is a number, but should be a list"),
      ({"messages": [USER, ANSWER], "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs",
       "sets messages")):
    error, = examples([("messages", row)], chatty[0])
    assert error.column == column and message in error.message
  ours, = examples([("messages", {"messages": [USER, ANSWER], "tools": [{}]})], TOKENIZER)
  assert ours.unread == ("tools",)


def test_control_tokens_that_are_spelled_are_noted_or_read(chatty):
  tokenizer, hf = chatty
  text = {"text": "<|im_start|>user\nq<|im_end|>"}
  spelled, = examples([("text", text)], tokenizer)
  assert [what for what, _ in spelled.notes] == [SPELLED] and spelled.notes[0][1] == "<|im_start|>, <|im_end|>"
  assert spelled.ids.count(tokenizer.eos) == 1
  read, = examples([("text", text)], tokenizer, control_tokens=True)
  assert read.ids == hf(text["text"])["input_ids"] and read.notes == ()   # it has its end already
  chat, = examples([("messages", {"messages": [USER, {**ANSWER, "content": "<|im_end|>"}]})], tokenizer)
  assert [what for what, _ in chat.notes] == [SPELLED_IN_CHAT]
  for control_tokens in (False, True):
    pair, = examples([("prompt_completion", {"prompt": "<|im_start|>q", "completion": "a"})], tokenizer, control_tokens)
    assert pair.ids[:2].count(0) == control_tokens and sum(pair.learned) == 2 and bool(pair.notes) != control_tokens
