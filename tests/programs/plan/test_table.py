"""A plan as a person reads it."""

import types

from sftrl_jax.programs.plan import table

FUNCTION = {"name": "train step", "calls_per_step": 2, "peak_gib": 24.5, "compiled": False, "program_gib": 20.0,
       "temporaries_gib": 8.0, "arguments_gib": {"parameters": 4.0, "optimizer": 8.0},
       "resident_gib": {"reference": 4.5},
       "flops": 2e13, "bytes": 3e11, "sent_bytes": 4e9, "seconds_bound": 0.25, "bound_by": "memory", "text_read": True,
       "collectives": {"all-gather": {"count": 64, "bytes": 4e9}}}
CONTENT = {"functions": [FUNCTION], "fits": False, "hbm_limit_gib": 15.75, "peak_gib": 24.5, "step_seconds_bound": 0.5,
        "tokens_per_second_bound": 1234.5, "steps": 100, "chip_hours_bound": 3.0, "price_per_chip_hour": 2.0,
        "cost_bound": 6.0, "only": []}
PLAN = types.SimpleNamespace(experiment=types.SimpleNamespace(limits=types.SimpleNamespace(flops=1e15)))


def test_what_does_not_fit_is_reported_by_how_much():
  page = table.page(PLAN, CONTENT)
  assert "train step does not fit: needs 24.50 GiB, the chip has 15.75 GiB" in page and "24.50!" in page
  assert "all-gather 64 (4.00 GB)" in page and "chip-hour" not in page


def test_what_fits_has_a_bound_and_a_price_if_all_of_it_was_compiled():
  page = table.page(PLAN, {**CONTENT, "fits": True})
  assert "6.00 at 2 a chip-hour" in page and "1,234 tokens/s" in page
  assert "config.flops = 1e+15 may end the run" in page
  some = table.page(PLAN, {**CONTENT, "fits": True, "only": ["train"]})
  assert "only functions that begin with train" in some and "tokens/s" not in some


def test_what_was_not_read_is_not_shown():
  page = table.page(PLAN, {**CONTENT, "fits": True, "functions": [{**FUNCTION, "compiled": True, "peak_gib": 9.0,
                                                                 "text_read": False, "collectives": {}}]})
  row = next(line for line in page.splitlines() if line.startswith("train step"))
  assert row.split()[-5:] == ["20.00", "-", "-", "0.250", "memory"] and "fits: 24.50 of 15.75" in page
  unread = "XLA cannot print this program"
  assert unread in page and unread not in table.page(PLAN, {**CONTENT, "fits": True})
  assert unread not in table.page(PLAN, {**CONTENT, "functions": [{**FUNCTION, "text_read": False}]})   # not compiled
