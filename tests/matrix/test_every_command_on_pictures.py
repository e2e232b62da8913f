"""Every command over every kind of data set of pictures (row 99): an answer, or a refusal that says what helps.

Rows are chosen so that each pair of properties occurs in one of them. Training takes one epoch of two iterations. All commands
of a row run in this one process, so that a report is also made where nnU-Net's trainer has just been; the benchmark starts
its processes in one row only. Volumes and pictures have a file each, so that two workers of pytest share them.
"""

from __future__ import annotations

import pytest
from every_command import Commands, run_every_command
from kinds import Kind, covering_rows

pytestmark = [pytest.mark.slow, pytest.mark.no_cover, pytest.mark.usefixtures("one_thread")]  # what counts lines slows it

ROWS = [row for row in covering_rows() if row.dim == 2]
WITH_PROCESSES = next(row for row in ROWS if row.masks == "regions" and row.tasks == "none")


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.name)
def test_row_99_no_command_meets_a_kind_of_pictures_that_it_does_not_know(kind: Kind, commands: Commands) -> None:
    run_every_command(kind, commands, processes=kind is WITH_PROCESSES)
