"""Memory by role, and a lower bound on time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sftrl_jax.parallel import mesh as meshes
from sftrl_jax.programs.plan import compilation
from sftrl_jax.programs.plan.compilation import CompiledFunction, Machine
from sftrl_jax.programs.plan.hlo_traffic import Traffic
from sftrl_jax.programs.plan.jitted_functions import PlannedFunction

OOM_ERROR = ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for "
             "HLO temporaries (33.14G) exceeds available HBM (15.75G). HLO module: jit_step.")


def test_the_compilers_error_says_how_much_is_needed():
  assert compilation.oom_bytes(OOM_ERROR) == 33.14 * 2**30
  assert compilation.oom_bytes(OOM_ERROR.replace("33.14G", "512.00M")) == 2**29
  assert compilation.oom_bytes("RESOURCE_EXHAUSTED: ... space=vmem") is None
  assert compilation.oom_bytes("INVALID_ARGUMENT: no such option") is None


@pytest.fixture(scope="module")
def product():
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:4])
  matrix = lambda where: jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=where)
  arguments = (("parameters", matrix(meshes.by_rows(mesh))), ("batch", np.ones((32, 64), np.float32)))
  run = jax.jit(lambda w, x: x @ w)
  resident = (("cache", matrix(meshes.replicated(mesh))),)
  function = PlannedFunction("product", run, arguments, resident=resident, calls=2, tokens=32)
  return compilation.build(function, mesh, execute=True)


def test_a_function_is_weighed_on_one_device(product):
  compiled, returned, executable = product
  assert compiled.arguments == {"parameters": 16 * 32 * 4, "batch": 8 * 64 * 4}
  assert compiled.resident == {"cache": 64 * 32 * 4}
  assert compiled.flops == 2 * 32 * 64 * 32 / 4 and not compiled.oom and compiled.text_read
  assert compiled.peak >= sum(compiled.arguments.values()) + sum(compiled.resident.values())
  assert returned.shape == (32, 32) and returned.sharding is not None and executable is not None


def test_a_plan_has_the_keys_that_it_promises(product):
  line = product[0].to_json(Machine(1e9, 1e9, 1e9, 1e9))
  assert {"name", "peak_gib", "flops", "bytes", "seconds_bound"} <= line.keys()
  assert line["seconds_bound"] > 0 and line["bound_by"] in ("flops", "memory", "network")


def test_the_bound_is_the_longest_of_three_part_by_part():
  make = lambda once, looped: CompiledFunction("f", 1.0, 0, {}, {}, 0.0, 0.0, False, once, looped, 10, True, 0.0)
  machine = Machine(1.0, flops=100.0, bandwidth=10.0, network=1.0)
  assert make((1000.0, Traffic(1.0)), (0.0, Traffic())).bound(machine) == (10.0, "flops")
  # Reading a prompt is bound by FLOPs and a token by memory: together both, not the longer one.
  assert make((1000.0, Traffic(1.0)), (1.0, Traffic(20.0))).bound(machine) == (30.0, "memory")
  assert make((1.0, Traffic(1.0, (("all-gather", 1.0, 5.0),))), (0.0, Traffic())).bound(machine) == (5.0, "network")


def test_without_compiling_only_arguments_are_weighed(product):
  compiled = product[0]
  mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:4])
  arguments = (("parameters", jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=meshes.by_rows(mesh))),)
  least = compilation.weigh_arguments(PlannedFunction("product", None, arguments), mesh)
  assert least.peak == compiled.arguments["parameters"]
