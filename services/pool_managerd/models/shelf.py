"""The models that this node has, by reference: what was asked for, what was downloaded, what its folder offers."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from llorch.background import TaskSupervisor
from llorch.errors import FailedPrecondition, LlorchError, NotFound, Reason, Unimplemented
from llorch.model_reference import FolderReference, ModelReference, RemoteReference, parse_reference
from pool_managerd.models.download.progress import Progress
from pool_managerd.models.folder import ModelsFolder
from pool_managerd.models.locate import check_there, locate, path_of
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.models.remote import RemoteModels
from pool_managerd.models.staging import Bring, Staging

MOST_NOTED = 1000
"""Beside the models of the folder. Of more, the ones that were asked for last are reported; the others are here all the
same, and are found when they are asked for.
"""


class ModelShelf:
    """Files that are used where they lie are never removed from here.

    Without `remote` nothing is downloaded, without `tasks` nothing is staged. `changed` is called when other models are
    here than before.
    """

    def __init__(
        self,
        remote: RemoteModels | None = None,
        folder: ModelsFolder | None = None,
        tasks: TaskSupervisor | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._remote = remote
        self._folder = folder
        self._tasks = tasks
        self._changed = changed
        self._models: dict[str, LocatedModel] = {}
        self._stagings: dict[str, Staging] = {}

    async def open(self) -> None:
        """Looks at the cache and at the folder, and goes on to look at the folder."""
        if self._remote is not None:
            self._models.update((model.reference, model) for model in await self._remote.open(self._evicted))
        if self._folder is not None and self._tasks is not None:
            await self._folder.look()
            self._tasks.spawn("folder of models", self._folder.run(), forever=True)

    async def find(self, reference: str) -> LocatedModel:
        """What is here. Looks again every time: a file can vanish. Raises what `parse_reference` and `locate` raise,
        and `NotFound` for what was not brought yet.
        """
        try:
            model = await self._find(parse_reference(reference))
        except Exception:
            self._evicted([reference])
            raise
        self._note(model)
        return model

    async def path_of(self, reference: str) -> Path:
        """The file of what is here, for a look that is no use: nothing is reported or kept longer for it. Raises as
        `find`, except for what a look into the file would tell.
        """
        parsed = parse_reference(reference)
        if isinstance(parsed, RemoteReference):
            return await self._downloads(parsed).path_of(parsed.text)
        if isinstance(parsed, FolderReference):
            path = self._folder_of(parsed).path_of(parsed)
        else:
            path = await asyncio.to_thread(path_of, parsed)
        await asyncio.to_thread(check_there, reference, path)
        return path

    def stage(self, reference: str) -> Staging:
        """Begins to bring it here, if it is not here yet; all callers that ask for one reference share one staging.

        Raises what `parse_reference` raises.
        """
        parsed = parse_reference(reference)
        staging = self._stagings.get(reference)
        if staging is None:
            assert self._tasks is not None, "a shelf that stages has to be given `tasks`"
            staging = self._stagings[reference] = Staging(reference)
            work = self._tasks.spawn(f"staging of {reference}", staging.run(self._bringing(parsed)))
            work.add_done_callback(lambda _: self._stagings.pop(reference, None))
        return staging

    async def forget(self, reference: str, *, in_use: bool) -> None:
        """Only the files of downloads are removed. Idempotent.

        Raises `FailedPrecondition` (MODEL_IN_USE) while a worker has it, or while it comes.
        """
        if in_use:
            raise FailedPrecondition(Reason.MODEL_IN_USE, f"{reference} is used by a worker; stop it first")
        if reference in self._stagings:
            raise FailedPrecondition(Reason.MODEL_IN_USE, f"{reference} is being staged; wait for it")
        self._evicted([reference])
        if self._remote is not None and isinstance(parse_reference(reference), RemoteReference):
            await self._remote.remove(reference)

    def models(self) -> tuple[LocatedModel, ...]:
        offered: Mapping[str, LocatedModel] = self._folder.models if self._folder is not None else {}
        return tuple({**self._models, **offered}.values())

    async def _find(self, reference: ModelReference) -> LocatedModel:
        if isinstance(reference, RemoteReference):
            return await self._downloads(reference).find(reference.text)
        if isinstance(reference, FolderReference):
            return await asyncio.to_thread(self._folder_of(reference).find, reference)
        return await asyncio.to_thread(locate, reference)

    def _folder_of(self, reference: FolderReference) -> ModelsFolder:
        if self._folder is None:
            raise NotFound(
                Reason.MODEL_FILE_MISSING,
                f"{reference.text}: this machine has no `models_dir`; set it in the section [pool_manager] of its "
                "settings file",
            )
        return self._folder

    def _bringing(self, reference: ModelReference) -> Bring:
        async def bring(tell: Callable[[Progress], None]) -> LocatedModel:
            try:
                return await self.find(reference.text)
            except LlorchError as error:
                if not isinstance(reference, RemoteReference) or error.reason is not Reason.MODEL_FILE_MISSING:
                    raise
            model = await self._downloads(reference).bring(reference, tell)
            self._note(model)
            return model

        return bring

    def _downloads(self, reference: RemoteReference) -> RemoteModels:
        if self._remote is None:
            raise Unimplemented(Reason.UNSUPPORTED_SOURCE, f"{reference.text}: nothing is downloaded to this node")
        return self._remote

    def _note(self, model: LocatedModel) -> None:
        """Models of the folder are left out: the folder reports them itself."""
        if self._folder is not None and model.reference in self._folder.models:
            return
        known = self._models.pop(model.reference, None)
        self._models[model.reference] = model
        if known != model:
            while len(self._models) > MOST_NOTED:
                del self._models[next(iter(self._models))]
            self._changed()

    def _evicted(self, references: Iterable[str]) -> None:
        if [reference for reference in references if self._models.pop(reference, None) is not None]:
            self._changed()
