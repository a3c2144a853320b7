"""The peak of this very process."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from ss4d.memory import in_gigabytes, parse_bytes, peak_memory

CPU = torch.device("cpu")


def test_memory_of_a_cpu_includes_what_was_freed():
    before = peak_memory(CPU)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    held = torch.ones((before - pages * resource.getpagesize() + 200_000_000) // 4)  # 200 MB above the peak
    del held
    assert peak_memory(CPU) - before == pytest.approx(200e6, abs=50e6)


@pytest.mark.parametrize(("text", "amount"), [("8GB", 8e9), ("800 mb", 8e8), ("7.5GiB", 7.5 * 2**30), ("1000", 1000)])
def test_amounts_of_memory_as_people_write_them(text: str, amount: float):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "8 cows", "-1GB", "0GB", "GB"])
def test_other_words_are_no_amount_of_memory(text: str):
    with pytest.raises(ValueError, match="no amount of memory: write 8GB"):
        parse_bytes(text)


def test_an_amount_is_rounded_up_and_read_back():
    assert in_gigabytes(1_234_567_890) == "1.24GB" and parse_bytes(in_gigabytes(1.2e9)) == 1.2e9
