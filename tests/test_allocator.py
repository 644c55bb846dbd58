import subprocess
import sys

import pytest

CODE = """
import resource, sys
from foveate.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
import torch
def step():
    held = [torch.ones(12 * 2**20) for _ in range(3)]  # 48 MiB each: glibc maps and unmaps such
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


@pytest.mark.slow
def test_freed_memory_is_not_faulted_in_again() -> None:
    assert faults("leave") > 5 * 1024  # pages
    assert faults("keep") < 100
