"""The options of a placement rule: `Assignment` of the contract."""

from types import MappingProxyType

from llorch.options.option import Table
from llorch.options.task import places

ASSIGNMENT: Table = MappingProxyType(
    {"targets": places('Places: "node", "node/gpu", "node/gpu+gpu" or a pool id.', least=1)}
)
