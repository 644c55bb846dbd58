import os
from pathlib import Path

import pytest
import torch

from foveate import memory
from foveate.memory import device_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="the system does not say")
def test_the_memory_of_a_container_is_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTAINER", limit)
    whole = device_memory(CPU)
    assert whole == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for text, expected in (("max\n", whole), ("1000000\n", 1_000_000), (f"{2**63}\n", whole)):
        limit.write_text(text)
        assert device_memory(CPU) == expected


def test_where_no_one_says_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert device_memory(CPU) > 2**60
