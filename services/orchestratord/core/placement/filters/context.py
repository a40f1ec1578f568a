"""A worker whose context is too short for the request."""

from orchestratord.core.placement.filters.filter import Filter
from orchestratord.core.placement.query import Query, Site


def matters(query: Query) -> bool:
    return query.request.prompt_is_exact and query.request.prompt_tokens > 0


def removes(query: Query, site: Site) -> bool:
    return query.request.prompt_tokens >= context_of(query, site)


def detail(query: Query, site: Site) -> str:
    return f"the prompt has {query.request.prompt_tokens} tokens, and the context {context_of(query, site)}"


def context_of(query: Query, site: Site) -> int:
    if site.worker is not None and site.worker.engine is not None:
        return site.worker.engine.context_per_slot
    return query.request.context


CONTEXT = Filter("context", removes, detail, matters)
