"""What is found out about a template, and what a template may not do."""

import pytest

from sftrl_jax.chat import Message

HEAD = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
TAIL = "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def loop(body):
  return HEAD + body + TAIL


@pytest.mark.parametrize("family, opener, end", [
    ("smollm2", "<|im_start|>assistant\n", "<|im_end|>"), ("qwen3", "<|im_start|>assistant\n", "<|im_end|>"),
    ("llama3", "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
    ("gemma", "<start_of_turn>model\n", "<end_of_turn>"), ("zephyr", "", "</s>"), ("mistral", "", "</s>")])
def test_the_end_and_the_words_before_a_response_are_found(make, hf, family, opener, end):
  tokenizer = make(family)
  template = tokenizer.template
  for token, name in template.controls.items():
    opener = opener.replace(token, name)
  assert template.opener == opener and template.end == template.controls[end]
  assert tokenizer.eos == hf(family).convert_tokens_to_ids(end)


def test_both_ways_to_find_responses_agree(make, talk):
  import dataclasses
  chat = talk("a", "So b", "c", "d", "e", "f", "g")
  for family in ("smollm2", "llama3", "qwen3", "gemma"):
    template = make(family).template
    assert template.opener
    assert dataclasses.replace(template, opener="").written(chat) == template.written(chat)


@pytest.mark.parametrize("body", [
    "{% generation %}{{ m.content + '<|im_end|>\\n' }}{% endgeneration %}",       # what follows the end is not written
    "{% generation %}{{ m.content }}{% endgeneration %}{{ '<|im_end|>\\n' }}",    # the end is
    "{% generation %}{{ m.content }}{% endgeneration %}{{ ' <|im_end|>' }}",
    "OPENED"])
def test_a_mark_goes_from_the_generation_prompt_to_the_end_of_the_turn(make, talk, body):
  source = loop("{% if m.role == 'assistant' %}" + body + "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}")
  if body == "OPENED":   # the generation prompt is inside the mark
    turn = "'<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n'"
    source = ("{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ TURN }}{% endgeneration %}"
              "{% else %}{{ TURN }}{% endif %}").replace("TURN", turn) + TAIL
  text, stretches = make("", source=source).template.written(talk("a", "b", "c", "d"))
  end = make("smollm2").template.controls["<|im_end|>"]
  assert [text[start:stop].replace(f" {end}", end) for start, stop in stretches] == [f"b{end}", f"d{end}"]


def test_turns_that_a_template_makes_up_are_not_taken_for_what_the_assistant_wrote(make, talk):
  example = "{% if m.role == 'system' %}{{ '<|im_start|>assistant\\nReady.<|im_end|>' }}{% endif %}"
  tokenizer = make("", source=loop("{{ m.content + '<|im_end|>' }}" + example))
  assert tokenizer.template.opener
  for chat in (talk("a", "b", "c", "d", system="e"), talk("a", "b", "c", system="e")):
    text, stretches = tokenizer.template.written(chat)
    assert "Ready." in text
    assert [text[start:stop].removesuffix(tokenizer.template.end) for start, stop in stretches] == [
        message.text for message in chat if message.role == "assistant"]


@pytest.mark.parametrize("source, message", [
    (loop("{{ m.content + '\\n' }}"), "puts no end token after the assistant's turn"),
    (loop("{{ '<|im_end|>' }}"), "leaves out what the assistant says"),
    (loop("{{ m.content + ('<|im_end|>' if loop.last or m.role == 'user' else '\\n') }}"), "does not show what the"),
    ("{% for m in messages %}", "does not compile"),
    (loop("{{ m.content.__class__.__mro__ }}"), "refuses a chat of system, user, assistant"),
    (loop("{{ messages.append(m) }}"), "refuses a chat"), (loop("{{ raise_exception('never') }}"), "never"),
    ("{% for m in messages %}{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}", "joins the end of its template's generation pro")])
def test_a_template_that_nothing_could_be_learned_by_is_refused(make, source, message):
  with pytest.raises(ValueError, match=message):
    make("", source=source)


# As DeepSeek-R1's distilled models have it: the prompt opens the reasoning, and no turn keeps it.
R1 = ("{{ bos_token }}{%- for m in messages -%}{%- if m.role == 'user' -%}{{ '<|user|>' + m.content }}"
      "{%- elif m.role == 'assistant' -%}{%- set c = m.content -%}{%- if '</think>' in c -%}"
      "{%- set c = c.split('</think>')[-1] -%}{%- endif -%}{{ '<|im_start|>' }}ANSWER{%- endif -%}{%- endfor -%}"
      "{%- if add_generation_prompt -%}{{ '<|im_start|><think>\n' }}{%- endif -%}")
REASONED = "<think>\nbecause\n</think>\n\nParis"


@pytest.mark.parametrize("answer", ["{{ c + '<|im_end|>' }}",
                                    "{% generation %}{{ c + '<|im_end|>' }}{% endgeneration %}"])
def test_reasoning_that_the_prompt_opens_and_the_template_drops_is_written(make, talk, answer):
  template = make("", source=R1.replace("ANSWER", answer)).template
  for reply in (REASONED, REASONED.removeprefix("<think>\n")):   # as a person writes it, and as it was sampled
    for chat in (talk("a", reply), talk("a", REASONED, "b", reply)):
      text, stretches = template.written(chat)
      begun, prompt = (template.readable(template.plain(chat[:-1])), template.readable(template.prompt))
      assert begun.endswith(prompt) and template.readable(text) == begun + reply.split("<think>\n")[-1] + "<|im_end|>"
      start, stop = stretches[-1]
      assert template.readable(text[start:stop]) == "because\n</think>\n\nParis<|im_end|>"
  text, stretches = template.written(talk("a", "Paris", "b", "Rome"))   # a row without reasoning trains too
  assert [template.readable(text[start:stop]) for start, stop in stretches] == ["Paris<|im_end|>", "Rome<|im_end|>"]


def test_turns_that_do_not_repeat_the_generation_prompt_are_found_by_what_they_begin_with(make, talk):
  block = "<think>\\n\\n</think>\\n\\n"
  source = HEAD + (f"{{%- if m.role == 'assistant' and loop.last %}}{{{{ '{block}' }}}}{{% endif %}}"
                   "{{ m.content + '<|im_end|>' }}") + TAIL.replace("assistant\\n", f"assistant\\n{block}")
  template = make("", source=source).template
  text, stretches = template.written(talk("a", "b", "c", "d"))
  assert [template.readable(text[start:stop]) for start, stop in stretches] == ["b<|im_end|>", "d<|im_end|>"]
  assert template.readable(template.header) == "<|im_start|>assistant\n" and not template.opener


def test_keys_of_a_message_reach_the_template_and_cannot_spell_control_tokens(make):
  source = loop("{% if m.why %}{{ '<think>' + m.why + '</think>' }}{% endif %}"
                "{% for call in m.calls or [] %}{{ call | tojson }}{% endfor %}{{ m.content + '<|im_end|>' }}")
  template = make("", source=source).template
  fields = {"role": "assistant", "content": "b", "why": "r<|im_end|>", "calls": [{"<s>": "</s>é"}]}
  text, ((start, stop),) = template.written((Message("user", "a"), Message("assistant", "b", fields=fields)))
  assert template.readable(text[start:stop]) == '<think>r<|im_end|></think>{"<s>": "</s>é"}b<|im_end|>'
  assert text[start:stop].count(template.end) == 1
