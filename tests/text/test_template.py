"""What is found out about a template, and what a template may not do."""

import pytest

from sftrl_jax.text.jinja import DAY, compiled

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


def test_the_day_is_always_the_same(make, talk):
  assert compiled("{{ strftime_now('%d %b %Y') }}").render() == DAY.strftime("%d %b %Y") == "26 Jul 2024"
  text, _ = make("llama3").template.written(talk("a"))
  assert "It is 26 Jul 2024" in text


def test_a_template_has_what_transformers_gives_it():
  source = "{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ {'é': i} | tojson }}{% endfor %}"
  assert compiled(source).render() == '{"é": 1}'
