"""Chat templates as transformers compiles them, and arguments written into one."""

import datetime
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

# Templates that ask for the date get this one: ids must not depend on the day on which a run is resumed. It is
# what Llama 3's template falls back to without a date.
DAY = datetime.datetime(2024, 7, 26)
# Four private characters. A message that has one of them is read with U+FFFD, the replacement character, instead.
OURS = "\U0010fffa\U0010fffb\U0010fffc\U0010fffd"
OPEN, CLOSE, BREAK, NAME = OURS
NEEDS = "chats and tokenizers of pretrained models need transformers and jinja2: pip install 'sftrl-jax[hf]'"
GIVEN = ("messages", "add_generation_prompt", "raise_exception", "strftime_now")   # not for a person to set
MOST_ROUNDS = 2_000_000   # of all loops of a template, for one chat
_BAKED = "{# template_args of sftrl #}\n"   # the line end belongs to the comment: the template begins a line, as it did


@functools.cache
def compiled(source: str) -> Any:
  """A template as transformers compiles it: sandboxed, with its additions. Its data are plain strings and lists."""
  jinja2 = library()

  class Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %}: leaves marks around what the assistant wrote."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
      line = next(parser.stream).lineno
      body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
      return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
      return f"{OPEN}{caller()}{CLOSE}"

  def refuse(message: str) -> None:
    raise jinja2.TemplateError(message)

  def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)

  class CountedLoops(jinja2.compiler.CodeGenerator):
    """Code that calls the environment's `count` in every round of a loop."""

    def visit_For(self, node: Any, frame: Any) -> None:
      call = jinja2.nodes.Call(jinja2.nodes.EnvironmentAttribute("count"), [], [], None, None)
      node.body.insert(0, jinja2.nodes.ExprStmt(call, lineno=node.lineno))
      super().visit_For(node, frame)

  class Bounded(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox whose templates end: nested loops would keep a template of a stranger busy for years."""

    code_generator_class = CountedLoops
    rounds = 0

    def count(self) -> None:
      self.rounds += 1
      if self.rounds > MOST_ROUNDS:
        raise jinja2.TemplateError(f"its loops make more than {MOST_ROUNDS:,} rounds")

  class Restarted(jinja2.Template):
    """A template that counts anew each time that it is rendered."""

    def render(self, *arguments: Any, **variables: Any) -> str:
      self.environment.rounds = 0
      return super().render(*arguments, **variables)

  environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
  environment.template_class = Restarted
  environment.filters["tojson"] = to_json
  environment.globals.update(raise_exception=refuse, strftime_now=DAY.strftime)
  try:
    return environment.from_string(source)
  except jinja2.TemplateError as error:
    raise ValueError(f"A chat template does not compile: {error}") from error


def library() -> Any:
  """jinja2; ImportError that says how to get it."""
  try:
    import jinja2
    import jinja2.compiler
    import jinja2.ext
    import jinja2.meta
    import jinja2.sandbox
  except ImportError as error:
    raise ImportError(NEEDS) from error
  return jinja2


def read_by(source: str) -> set[str]:
  """The names that a template reads from outside, those of its own loops apart."""
  environment = compiled(source).environment
  return library().meta.find_undeclared_variables(environment.parse(source)) - {"namespace", "range", "dict"}


def with_args(source: str, args: Mapping[str, Any], title: str = "this tokenizer") -> str:
  """The template with arguments as defaults of its own, so that whoever renders it gets the same text.

  A value that is given when it is rendered still counts, and one that was written in before unless `args` has another.
  ValueError for a name that the template does not read, or a value that is not made of texts, numbers, true, false,
  null, lists and objects.
  """
  before, baked, template = source.rpartition(_BAKED)
  known, lines = read_by(template) - set(GIVEN), []
  for name, value in args.items():
    if name not in known:
      raise ValueError(f"template_args names {name!r}, but the chat template of {title} does not read it; it reads "
                       f"{', '.join(sorted(known)) or 'no arguments'}.")
    if fault := _no_json(value):
      raise ValueError(f"template_args.{name} holds {fault}, but it must be text, a number, true, false, or lists and "
                       "objects of these.")
    line = f"{{% if {name} is not defined or {name} is none %}}{{% set {name} = {value!r} %}}{{% endif %}}"
    lines += [] if line in before else [line]
  return "".join(lines) + before + (baked or _BAKED if args else baked) + template


def _no_json(value: Any) -> str:
  """What in a value is of no JSON type; "" if nothing is."""
  if isinstance(value, Mapping):
    return next((fault for key, item in value.items() if (fault := _no_json(key) or _no_json(item))), "")
  if isinstance(value, (list, tuple)):
    return next((fault for item in value if (fault := _no_json(item))), "")
  if isinstance(value, float) and not re.fullmatch(r"-?\d.*", repr(value)):
    return repr(value)
  return "" if value is None or isinstance(value, (str, bool, int, float)) else f"a {type(value).__name__}"
