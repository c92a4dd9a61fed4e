"""D: rows, prompts and tokenizers of the user's own."""

import json

import pyarrow
import pyarrow.parquet
from campaign import Failed
from inputs import CHATML, chat, edit, sft, talk, talks, tiny, write

BOM = "\ufeff"
REASONING = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.reasoning_content %}"
             "{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}{{ m.content + '<|im_end|>' + '\n' }}"
             "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def parquet(case, name="rows.parquet", **columns) -> str:
  pyarrow.parquet.write_table(pyarrow.table(columns), case.home / name)
  return name


def report(case) -> dict:
  """The account of the rows that a run keeps."""
  return json.loads((case.home / "run" / "data.json").read_text())


def learned(case, *texts: str) -> None:
  """Failed unless the example of the report has these texts among what is learned."""
  example = report(case)["example"]
  bracketed = example[example.index("[["):]
  if not all(text in bracketed for text in texts):
    raise Failed(f"not learned: {texts} in {example!r}")


def D1(case):
  tiny(case.home / "tiny")
  (case.home / "data").mkdir()
  return sft("start=tiny", "data.path=data/rows.jsonl", config="configs/sft/chat.py")


def D2(case):
  return chat(case, "")


def D3(case):
  return chat(case, "".join(json.dumps(row) + "\n" for row in talks(2)) + '{"messages": [\n')


def D4(case):
  return chat(case, bytes(range(256)) * 8 + b"\n")


def D5(case):
  yield chat(case, BOM + "".join(json.dumps(row) + "\n" for row in talks()))
  assert report(case)["kept"] == 8


def D6(case):
  tiny(case.home / "tiny")
  (case.home / "prompts.jsonl").write_text(f'{BOM}{{"prompt": "Hello"}}\n{{"prompt": "Bye"}}\n')
  yield ["sample", "tiny", "--in=prompts.jsonl", "--out=answers.jsonl", "--max-new-tokens=4"]
  assert len(case.lines("answers.jsonl")) == 2


def D7(case):
  part = lambda *texts: [{"type": "text", "text": text} for text in texts]
  rows = [{"messages": [{"role": "user", "content": part("Hello", " you")},
                        {"role": "assistant", "content": part("go", "od")}]}] * 4
  yield chat(case, rows)
  learned(case, "good")


def D8(case):
  tiny(case.home / "tiny", template=REASONING)
  row = talk()
  row["messages"][1]["reasoning_content"] = "because"
  yield chat(case, [row] * 4)
  learned(case, "because", "good")


def D9(case):
  row = talk()
  row["messages"][1]["grade"] = 5
  return chat(case, [row] * 4)


def D10(case):
  rows = [{**row, "text": None} for row in talks(4)] + [{"messages": None, "text": "Hello world"}] * 4
  yield chat(case, rows)
  assert report(case)["kept"] == 8


def D11(case):
  words = chat(case, talks())
  parquet(case, text=[b"Hello", b"world", b"good", b"day"])
  yield [*words, "--config.data.path=rows.parquet"]
  assert report(case)["kept"] == 4


def D12(case):
  words = chat(case, talks())
  parquet(case, text=["Hello"] * 100)
  whole = (case.home / "rows.parquet").read_bytes()
  (case.home / "rows.parquet").write_bytes(whole[:len(whole) // 2])
  return [*words, "--config.data.path=rows.parquet"]


def D13(case):
  return chat(case, [talk("Hello " * 40)] * 8, "data.truncate=False")


def D14(case):
  return chat(case, [*talks(2), {"messages": [{"role": "user", "content": "Hello"}]}])


def D15(case):
  return chat(case, [{"messages": [{"role": "robot", "content": "Hello"}, {"role": "assistant", "content": "good"}]}])


def D16(case):
  line = json.dumps(talk())
  return chat(case, (line[:-1] + ', "messages": []}\n') * 2)


def D17(case):
  return chat(case, talks(4) * 4, "data.validation=0.25")


def D18(case):
  words = chat(case, talks())
  case.run(*words)
  (case.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks(9)))
  return [*words, "--config.steps=4"]


def D19(case):
  return chat(case, [talk("Hello \ud83d")] * 2)


def D20(case):
  return chat(case, [{"text": "<|im_start|>user\nHello<|im_end|>\n"}] * 8)


def D21(case):
  words = chat(case, talks())
  edit(case.home / "tiny" / "config.json", vocab_size=200)
  return words


def D22(case):
  tiny(case.home / "tiny", template="{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}")
  return chat(case, talks())


def D23(case):
  tiny(case.home / "tiny", template=CHATML.replace("m.content", "'hidden' if m.role == 'assistant' else m.content"))
  return chat(case, talks())


def D24(case):
  return chat(case, [*({"prompt": "a", "completion": " b"} for _ in range(39)), {"prompt": "a", "completion": ""}],
             "data.on_bad_row=skip")


def D25(case):
  tiny(case.home / "tiny")
  (case.home / "prompts.jsonl").write_text('{"prompt": "Hello"}\n{"prompt": \n{"prompt": "Bye"}\n')
  yield ["sample", "tiny", "--in=prompts.jsonl", "--out=answers.jsonl", "--max-new-tokens=4", "--on-bad-row=skip"]
  assert len(case.lines("answers.jsonl")) == 2


def D26(case):
  words = chat(case, talks())
  (case.home / "data").mkdir()
  (case.home / "data" / "notes.txt").write_text("mine")
  return [*words, "--config.data.path=data"]


def D27(case):
  tiny(case.home / "tiny")
  return ["sample", "tiny", f"--prompt={'Hello ' * 200}", "--max-new-tokens=4"]


def D28(case):
  yield chat(case, [*talks(39), {"messages": 5}], "data.on_bad_row=skip")
  assert report(case)["kept"] == 39


def D29(case):
  words = chat(case, talks())
  write(case.home / "tiny" / "generation_config.json", {"eos_token_id": 99999})
  return words


def D30(case):
  words = chat(case, talks())
  (case.home / "tiny" / "tokenizer.json").write_text('{"version": "1.0", "model": {"vo')
  return words
