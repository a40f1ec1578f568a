"""OpenAI's official client, pointed at a gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai

ANSWERS_WITHIN_S = 300


@asynccontextmanager
async def openai_client(base_url: str, api_key: str = "any", max_retries: int = 0) -> AsyncIterator[openai.AsyncOpenAI]:
    """`base_url` is the gateway's, without /v1. Proxies of the environment are left aside."""
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"{base_url}/v1", api_key=api_key, http_client=http, timeout=ANSWERS_WITHIN_S, max_retries=max_retries
    ) as client:
        yield client
