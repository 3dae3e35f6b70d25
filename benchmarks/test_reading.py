"""Reading from a store on disk, whose files the operating system holds in memory."""

import pytest
import stages
from setups import iron_water_frames


@pytest.mark.parametrize("what", ["structures", "fingerprints", "derivatives"])
@pytest.mark.parametrize("atoms", [35, 164])
def test_reading(measure, atoms, what):
    measure(stages.reading, iron_water_frames(atoms, 32), what=what)
