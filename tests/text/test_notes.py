"""What is not as a reader of a row would expect is noted, and keys that nothing reads are named."""

import dataclasses

import pytest

from sftrl_jax.chat import Message
from sftrl_jax.text import notes
from sftrl_jax.text.render import renderings

USER, REASONED = Message("user", "a"), "<think>\nbecause\n</think>\n\nso"
HEAD = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
TAIL = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def noted(tokenizer, chat, args=None):
  rendering, = renderings(tokenizer, [chat], [args or {}])
  if isinstance(rendering, ValueError):
    raise rendering
  return [what for what, _ in rendering.notes], list(rendering.unread)


def test_a_chat_as_it_is_has_no_notes(make, talk):
  for family in ("smollm2", "qwen3", "llama3", "marked", "zephyr"):
    assert noted(make(family), talk("a", "b", "c", "d", system="e")) == ([], [])
  assert noted(make("qwen3"), talk("a", REASONED)) == ([], [])


def test_what_a_template_leaves_out_is_noted(make, talk):
  assert noted(make("qwen3"), talk("a", REASONED, "b", REASONED)) == ([notes.REASONING], [])
  silent = make("", source=HEAD + "{{ m.content if m.role in ['user', 'assistant'] }}{{ '<|im_end|>' }}" + TAIL)
  assert noted(silent, talk("a", "b", system="be good")) == ([notes.OTHERS], [])
  with pytest.raises(ValueError, match="leaves out what a tool says .message 2.: it knows no role 'tool'"):
    noted(silent, (USER, Message("tool", "5"), Message("assistant", "b")))
  assert noted(make("smollm2"), (USER, Message("tool", "5"), Message("assistant", "b"))) == ([], [])


def test_an_answer_that_does_not_follow_the_generation_prompt_is_noted(make, talk):
  body = "{{ m.content.split('</think>')[-1] + '<|im_end|>' }}"
  tokenizer = make("", source=HEAD + body + TAIL.replace("assistant\\n", "assistant\\n<think>"))
  assert noted(tokenizer, talk("a", "b")) == ([notes.PROMPT], [])
  assert noted(tokenizer, talk("a", "<think>because</think>so")) == ([notes.KEPT], [])


def test_keys_and_arguments_that_make_no_difference_are_named(make):
  source = HEAD + "{{ (m.name or '') + (why or '') + (m.reasoning or '') + m.content + '<|im_end|>' }}" + TAIL
  answer = Message("assistant", "b", fields={"role": "assistant", "content": "b", "reasoning": "r", "thinking": "r"})
  bob = dataclasses.replace(USER, fields={"role": "user", "content": "a", "name": "Bob", "id": 3})
  what, unread = noted(make("", source=source), (bob, bob, answer), {"why": "x", "tools": [1]})
  assert unread == ["messages[].id", "messages[].id", "messages[].thinking", "tools"] and not what
