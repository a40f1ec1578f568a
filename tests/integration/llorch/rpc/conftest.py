from collections.abc import AsyncIterator

import pytest

from support.scripted_service import Script, Serving, serving


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def served(script: Script) -> AsyncIterator[Serving]:
    async with serving(script) as running:
        yield running
