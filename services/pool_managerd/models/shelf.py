"""The models that this node was asked for and has."""

import asyncio

from llorch.errors import FailedPrecondition, Reason
from pool_managerd.models.locate import locate
from pool_managerd.models.references import LocatedModel, parse_reference


class ModelShelf:
    """What lies ready, by reference. Files are used where they lie and are never removed from here."""

    def __init__(self) -> None:
        self._models: dict[str, LocatedModel] = {}

    async def find(self, reference: str) -> LocatedModel:
        """Looks again every time: a file can vanish. Raises what `parse_reference` and `locate` raise."""
        try:
            model = await asyncio.to_thread(locate, parse_reference(reference))
        except Exception:
            self._models.pop(reference, None)
            raise
        self._models[reference] = model
        return model

    def forget(self, reference: str, *, in_use: bool) -> None:
        """The file stays. Idempotent. Raises `FailedPrecondition` (MODEL_IN_USE) while a worker has it."""
        if in_use:
            raise FailedPrecondition(Reason.MODEL_IN_USE, f"{reference} is used by a worker; stop it first")
        self._models.pop(reference, None)

    def models(self) -> tuple[LocatedModel, ...]:
        return tuple(self._models.values())
