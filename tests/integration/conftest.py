from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.whole_system import WholeSystem, whole_system


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path) as running:
        yield running
