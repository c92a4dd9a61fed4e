"""What probes show of a template depends on its arguments."""

import dataclasses

import pytest

from sftrl_jax.text.probes import opened

THINK = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{%- endfor %}" + (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if think is defined and not think %}{{ '<think></think>' }}{% endif %}{% endif %}")


HEADER = "<|im_start|>assistant\n"


@pytest.mark.parametrize(("args", "prompt"), [({}, HEADER), ({"think": True}, HEADER),
                                              ({"think": False}, f"{HEADER}<think></think>")])
def test_the_generation_prompt_is_that_of_the_arguments(make, talk, args, prompt):
  template = opened(dataclasses.replace(make("", source=THINK).template, args=args))
  assert template.readable(template.prompt) == prompt and template.readable(template.header) == HEADER
  assert bool(template.opener) == (prompt == HEADER)
  text, stretches = template.written(talk("a", "b", "c", "d", "e"))
  assert [template.readable(text[start:stop]) for start, stop in stretches] == ["b<|im_end|>", "d<|im_end|>"]
