"""Tables and lines from given seconds."""

from sftrl_jax.programs.bench.machine_peak import MachinePeak
from sftrl_jax.programs.bench.paired_timing import Pairs
from sftrl_jax.programs.bench.table import describe_line, describe_machine, line_of, table
from sftrl_jax.programs.bench.workloads import Timed

PEAK = MachinePeak(float32=100e9, bfloat16=200e9, bandwidth=20e9, device="cpu", devices=1, threads=2)
STEP = Timed(None, 2048, 50e9, labels=1024, temporaries=1_500_000_000)


def test_shares_and_rates_follow_from_seconds():
  line = line_of("sft", "8x256", STEP, Pairs((1.0, 3.0, 2.0), (2.0, 4.5, 4.0)), PEAK, "float32")
  assert line["seconds"] == 2.0 and line["tokens_per_second"] == 1024 and line["label_tokens_per_second"] == 512
  assert line["of_peak"] == 0.25 and line["ratio"] == 2.0 and line["ratio_spread"] == [1.5, 2.0]
  assert line["their_tokens_per_second"] == 512 and line["temporaries"] == 1_500_000_000
  assert line_of("sft", "", STEP, Pairs((2.0,)), PEAK, "bfloat16")["of_peak"] == 0.125


def test_a_decoding_step_is_one_of_many():
  decode = Timed(None, 240, 1e9, bytes=1e9)
  line = line_of("decode", "batch 10", decode, Pairs((2.4,)), PEAK, "float32", steps=24)
  assert round(line["ms_per_step"], 6) == 100.0 and round(line["of_bandwidth"], 6) == 0.5 and "ratio" not in line
  assert line["tokens_per_second"] == 100.0


def test_the_table_has_a_row_a_measurement_and_no_empty_column():
  lines = [line_of("prefill", "1x256", Timed(None, 256, 1e9), Pairs((1.0,), (1.5,)), PEAK, "float32"),
           line_of("decode", "batch 1", Timed(None, 24, 1e9, bytes=1e9), Pairs((24.0,), (36.0,)), PEAK, "float32", 24)]
  rows = table(lines, PEAK, "float32").splitlines()
  assert rows[0] == describe_machine(PEAK) and len(rows) == 5 and len({len(row) for row in rows[2:]}) == 1
  assert "temporaries" not in rows[2] and "labels/s" not in rows[2] and "1.50 - 1.50" in rows[3]
  assert rows[3].split()[:4] == ["prefill", "1x256", "1000.0", "256"]
  assert describe_line(lines[0]) == "prefill 1x256: 256 tokens/s, 1.50 times the peer (1.50 to 1.50)"
  alone = table([line_of("prefill", "1x256", Timed(None, 256, 1e9), Pairs((1.0,)), PEAK, "float32")], PEAK, "float32")
  assert "ratio" not in alone and "peer" not in alone


def test_the_machine_has_a_line():
  assert describe_machine(PEAK) == "cpu, 2 CPU threads: matmul 100 GFLOP/s in f32, 200 in bf16, memory 20.0 GB/s"
