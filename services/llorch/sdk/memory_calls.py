"""Calls about what is in the memory of which GPU."""

from llama_orch.v2 import fleet_service_pb2
from llorch.sdk.caller import Caller
from llorch.sdk.fill import filled
from llorch.sdk.task_options import Texts


class MemoryCalls(Caller):
    async def load_model(self, name: str, target: str = "") -> str:
        """Loads a model, at a place if one is given; the id of the worker that has it, or will have it."""
        request = filled(fleet_service_pb2.LoadModelRequest, model=name, target=target)
        answer: fleet_service_pb2.LoadModelResponse = await self._call(self._stubs.fleet.LoadModel, request)
        return answer.worker_id

    async def unload_model(self, name: str, *, even_if_busy: bool = False) -> list[str]:
        """Takes a model out of all memory; the ids of the workers that were told to stop."""
        request = filled(fleet_service_pb2.UnloadModelRequest, model=name, even_if_busy=even_if_busy)
        answer: fleet_service_pb2.UnloadModelResponse = await self._call(self._stubs.fleet.UnloadModel, request)
        return list(answer.worker_ids)

    async def start_worker(self, model: str, node_id: str, device_ids: Texts = ()) -> str:
        """Loads a model once more, on a node or on devices of it; the id of the worker that will have it."""
        request = filled(fleet_service_pb2.StartWorkerRequest, model=model, node_id=node_id, device_ids=device_ids)
        answer: fleet_service_pb2.StartWorkerResponse = await self._call(self._stubs.fleet.StartWorker, request)
        return answer.worker_id

    async def stop_worker(self, worker_id: str, *, even_if_busy: bool = False) -> None:
        """Takes one worker's model out of memory; a busy worker is refused unless told otherwise."""
        request = filled(fleet_service_pb2.StopWorkerRequest, worker_id=worker_id, even_if_busy=even_if_busy)
        await self._call(self._stubs.fleet.StopWorker, request)

    async def release_gpu(self, gpu: str, for_ms: int | None = None) -> list[str]:
        """Takes a GPU such as `garage/3090` away from llama-orch, for a time or until it is resumed; the ids of the
        workers that have to leave first. Idle ones leave at once, busy ones when their tasks have ended.
        """
        request = filled(fleet_service_pb2.ReleaseDeviceRequest, device=gpu, duration_ms=for_ms)
        answer: fleet_service_pb2.ReleaseDeviceResponse = await self._call(self._stubs.fleet.ReleaseDevice, request)
        return list(answer.worker_ids)

    async def resume_gpu(self, gpu: str) -> None:
        """Gives a GPU back to llama-orch."""
        await self._call(self._stubs.fleet.ResumeDevice, filled(fleet_service_pb2.ResumeDeviceRequest, device=gpu))
