"""llama-orch: what all daemons share, the Python SDK, and the command line.

The SDK's names are here, and come when they are used: a daemon that imports `llorch` does not pay for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llorch.errors import LlorchError as LlorchError
    from llorch.options.assignment import AssignmentSettings as AssignmentSettings
    from llorch.options.model import ModelSettings as ModelSettings
    from llorch.sdk.answer import Answer as Answer
    from llorch.sdk.answer import CalledTool as CalledTool
    from llorch.sdk.answer import Choice as Choice
    from llorch.sdk.app_calls import AppSettings as AppSettings
    from llorch.sdk.async_client import AsyncClient as AsyncClient
    from llorch.sdk.client import Client as Client
    from llorch.sdk.embeddings import Embeddings as Embeddings
    from llorch.sdk.events import ChoiceEnd as ChoiceEnd
    from llorch.sdk.events import DeterminismReceipt as DeterminismReceipt
    from llorch.sdk.events import End as End
    from llorch.sdk.events import Event as Event
    from llorch.sdk.events import Failed as Failed
    from llorch.sdk.events import FinishReason as FinishReason
    from llorch.sdk.events import Metrics as Metrics
    from llorch.sdk.events import Narration as Narration
    from llorch.sdk.events import Placed as Placed
    from llorch.sdk.events import PlacedDevice as PlacedDevice
    from llorch.sdk.events import PositionLogprobs as PositionLogprobs
    from llorch.sdk.events import Started as Started
    from llorch.sdk.events import TokenLogprob as TokenLogprob
    from llorch.sdk.events import Tokens as Tokens
    from llorch.sdk.events import ToolCallDelta as ToolCallDelta
    from llorch.sdk.failures import TaskFailed as TaskFailed
    from llorch.sdk.failures import Unreachable as Unreachable
    from llorch.sdk.ranking import RankedDocument as RankedDocument
    from llorch.sdk.ranking import Ranking as Ranking
    from llorch.sdk.task_options import ContentPart as ContentPart
    from llorch.sdk.task_options import GenerateOptions as GenerateOptions
    from llorch.sdk.task_options import MediaPart as MediaPart
    from llorch.sdk.task_options import Message as Message
    from llorch.sdk.task_options import PlacementWishes as PlacementWishes
    from llorch.sdk.task_options import Prompt as Prompt
    from llorch.sdk.task_options import SamplingOptions as SamplingOptions
    from llorch.sdk.task_options import SessionBudget as SessionBudget
    from llorch.sdk.task_options import TaskOptions as TaskOptions
    from llorch.sdk.task_options import Tool as Tool
    from llorch.sdk.task_options import ToolCall as ToolCall
    from llorch.sdk.tokens import TokenCount as TokenCount
    from llorch.sdk.tokens import Tokenized as Tokenized

_HOME = {
    "LlorchError": "llorch.errors",
    "Answer": "llorch.sdk.answer",
    "CalledTool": "llorch.sdk.answer",
    "Choice": "llorch.sdk.answer",
    "AppSettings": "llorch.sdk.app_calls",
    "AsyncClient": "llorch.sdk.async_client",
    "Client": "llorch.sdk.client",
    "Embeddings": "llorch.sdk.embeddings",
    "RankedDocument": "llorch.sdk.ranking",
    "Ranking": "llorch.sdk.ranking",
    "ChoiceEnd": "llorch.sdk.events",
    "DeterminismReceipt": "llorch.sdk.events",
    "End": "llorch.sdk.events",
    "Event": "llorch.sdk.events",
    "Failed": "llorch.sdk.events",
    "FinishReason": "llorch.sdk.events",
    "Metrics": "llorch.sdk.events",
    "Narration": "llorch.sdk.events",
    "Placed": "llorch.sdk.events",
    "PlacedDevice": "llorch.sdk.events",
    "PositionLogprobs": "llorch.sdk.events",
    "Started": "llorch.sdk.events",
    "TokenLogprob": "llorch.sdk.events",
    "Tokens": "llorch.sdk.events",
    "ToolCallDelta": "llorch.sdk.events",
    "TaskFailed": "llorch.sdk.failures",
    "Unreachable": "llorch.sdk.failures",
    "ModelSettings": "llorch.options.model",
    "AssignmentSettings": "llorch.options.assignment",
    "ContentPart": "llorch.sdk.task_options",
    "GenerateOptions": "llorch.sdk.task_options",
    "MediaPart": "llorch.sdk.task_options",
    "Message": "llorch.sdk.task_options",
    "PlacementWishes": "llorch.sdk.task_options",
    "Prompt": "llorch.sdk.task_options",
    "SamplingOptions": "llorch.sdk.task_options",
    "SessionBudget": "llorch.sdk.task_options",
    "TaskOptions": "llorch.sdk.task_options",
    "Tool": "llorch.sdk.task_options",
    "ToolCall": "llorch.sdk.task_options",
    "TokenCount": "llorch.sdk.tokens",
    "Tokenized": "llorch.sdk.tokens",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
