"""Templates as transformers compiles them, and arguments that become a part of one."""

import jinja2
import pytest

from sftrl_jax.text import jinja
from sftrl_jax.text.jinja import DAY, compiled, read_by, with_args

SOURCE = ("  {% if x is defined and x %}\n  {{- x }}{% endif %}{{ y or '' }}"
          "{% for tool in tools or [] %}{{ tool.n }}{% endfor %}")


def test_the_day_is_always_the_same(make, talk):
  assert compiled("{{ strftime_now('%d %b %Y') }}").render() == DAY.strftime("%d %b %Y") == "26 Jul 2024"
  text, _ = make("llama3").template.written(talk("a"))
  assert "It is 26 Jul 2024" in text


def test_a_template_has_what_transformers_gives_it():
  source = "{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ {'é': i} | tojson }}{% endfor %}"
  assert compiled(source).render() == '{"é": 1}'


def test_a_template_that_would_loop_for_years_is_refused(monkeypatch):
  monkeypatch.setattr(jinja, "MOST_ROUNDS", 100)
  loops = "{% for a in range(12) %}{% for b in range(12) if b %}{{ b }}{% else %}{% endfor %}{% endfor %}"
  with pytest.raises(jinja2.TemplateError, match="its loops make more than 100 rounds"):
    compiled(loops).render()
  template = compiled("{% for i in range(60) recursive %}{% if loop.last %}{{ i }}{% endif %}{% endfor %}")
  assert template.render() == template.render() == "59"   # each chat is counted by itself


def test_arguments_are_defaults_of_the_template(hf):
  args = {"x": "it's \"so\"\n\\ é", "tools": [{"n": 1.5, "deep": {"a": [True, None]}}]}
  source = with_args(SOURCE, args)
  assert compiled(source).render(tools=None) == compiled(SOURCE).render(**args)
  assert compiled(source).render(x="z", tools=[]) == compiled(SOURCE).render(x="z", tools=[])
  assert with_args(source, args) == with_args(source, {}) == source and with_args(SOURCE, {}) == SOURCE
  more = with_args(source, {"x": "w", "y": "v"})   # a later value counts, and the others stay
  assert compiled(more).render() == compiled(SOURCE).render(**{**args, "x": "w", "y": "v"})
  theirs = hf("smollm2").apply_chat_template([{}], chat_template=source, tokenize=False)
  assert theirs == compiled(SOURCE).render(**args)


@pytest.mark.parametrize(("args", "message"), [
    ({"z": 1}, "names 'z', but the chat template of T does not read it; it reads tools, x, y"),
    ({"messages": []}, "names 'messages'"), ({"x": {1, 2}}, "holds a set"), ({"x": [float("nan")]}, "holds nan")])
def test_arguments_that_cannot_be_are_refused(args, message):
  with pytest.raises(ValueError, match=message):
    with_args(SOURCE, args, "T")


def test_the_names_that_a_template_reads():
  assert read_by(SOURCE) == {"x", "y", "tools"}
