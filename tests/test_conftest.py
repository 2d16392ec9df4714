"""What the tests must not do to whoever runs them."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize("pid", [0, -1, -11])
def test_no_signal_goes_to_a_group_or_to_all(pid: int) -> None:
    """Number 0 of kill(2) sends nothing: should this fail, nobody is harmed."""
    with pytest.raises(AssertionError, match="for nobody"):
        os.kill(pid, 0)
    with pytest.raises(AssertionError, match="for nobody"):
        os.killpg(pid, 0)
