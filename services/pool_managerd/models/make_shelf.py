"""Puts the shelf of this node together from its settings."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from llorch.background import TaskSupervisor
from llorch.clock import Clock
from pool_managerd.models.cache import ModelCache
from pool_managerd.models.download.network import Network, tls_context
from pool_managerd.models.folder import ModelsFolder
from pool_managerd.models.remote import RemoteModels, RemoteRules
from pool_managerd.models.settings import ModelSettings
from pool_managerd.models.shelf import ModelShelf


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What models have to know of the rest of the node.

    `sources_in_use` are the references whose files workers have open. `where_it_fits` says for a number of bytes which
    devices could hold them, for people. `changed` is called when other models are here than before.
    """

    sources_in_use: Callable[[], Collection[str]]
    where_it_fits: Callable[[int], str]
    changed: Callable[[], None]


def make_shelf(
    settings: ModelSettings, default_cache: Path, node: NodeFacts, tasks: TaskSupervisor, clock: Clock
) -> ModelShelf:
    """Raises `InvalidArgument` for settings that can't be right."""
    cache = ModelCache((settings.model_cache_dir or default_cache).expanduser(), settings.model_cache_bytes)
    rules = RemoteRules(
        settings.download_policy,
        Network(tls_context(settings.download_ca_file)),
        node.sources_in_use,
        node.where_it_fits,
    )
    folder = ModelsFolder(settings.models_dir, node.changed) if settings.models_dir is not None else None
    return ModelShelf(RemoteModels(cache, rules, clock), folder, tasks, node.changed)
