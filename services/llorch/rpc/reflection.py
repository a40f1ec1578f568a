"""Server reflection, so that `buf curl` and `grpcurl` need no proto files."""

from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._base import BaseReflectionServicer

SERVICE = reflection.SERVICE_NAME


class ReflectionServicer(BaseReflectionServicer):  # type: ignore[misc]  # the base is untyped
    """The library's answers behind a coroutine: its own asynchronous servicer is a generator, which is never closed."""

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> None:  # noqa: N802  # the contract's name
        async for request in requests:
            await context.write(self._answer(request))

    def _answer(self, request: Any) -> Any:
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                return self._file_by_filename(request, request.file_by_filename)
            case "file_containing_symbol":
                return self._file_containing_symbol(request, request.file_containing_symbol)
            case "file_containing_extension":
                extension = request.file_containing_extension
                return self._file_containing_extension(
                    request, extension.containing_type, extension.extension_number
                )
            case "all_extension_numbers_of_type":
                return self._all_extension_numbers_of_type(request, request.all_extension_numbers_of_type)
            case "list_services":
                return self._list_services(request)
        code, text = grpc.StatusCode.INVALID_ARGUMENT.value
        error = reflection_pb2.ErrorResponse(error_code=code, error_message=text)
        return reflection_pb2.ServerReflectionResponse(error_response=error, original_request=request)
