"""Who may raise its epoch, and what a command that was refused means then."""

import asyncio

import pytest

from llama_orch.v2 import control_pb2
from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from orchestratord.runtime.authority import HIGHEST_EPOCH, Authority
from orchestratord.runtime.control import CommandSequence
from orchestratord.store.interface import Incarnation
from support.memory_store import MemoryStore

NODE = "garage"


class OwnStore(MemoryStore):
    """Refuses like one that another orchestrator has taken over, if it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.taken_over = False
        self.rises = 0

    async def raise_epoch(self, above: int) -> Incarnation:
        self.rises += 1
        await asyncio.sleep(0)
        if self.taken_over:
            raise FailedPrecondition(Reason.STALE_EPOCH, "another orchestrator has taken over this one's store")
        return await super().raise_epoch(above)


async def begun() -> tuple[OwnStore, Authority]:
    store = OwnStore()
    return store, Authority(store, await store.begin_incarnation())


def stale(authority: Authority, epoch: int, cluster_id: str = "") -> FailedPrecondition:
    follows = {"cluster_id": cluster_id or authority.cluster_id, "control_epoch": str(epoch)}
    return FailedPrecondition(Reason.STALE_EPOCH, "superseded", metadata=follows)


async def test_a_node_that_has_seen_a_later_epoch_raises_ours_above_it() -> None:
    _, authority = await begun()
    await authority.take_in(NODE, authority.cluster_id, 7)
    assert authority.control_epoch == 8


@pytest.mark.parametrize("cluster_id", ["", "another"])
async def test_epochs_of_another_cluster_are_not_compared(cluster_id: str) -> None:
    store, authority = await begun()
    await authority.take_in(NODE, cluster_id, 7)
    assert (authority.control_epoch, store.rises) == (1, 0)


async def test_a_node_with_our_epoch_of_another_copy_of_the_database_counts_other_commands() -> None:
    _, authority = await begun()
    await authority.take_in(NODE, authority.cluster_id, 1)
    assert authority.control_epoch == 2
    await authority.take_in(NODE, authority.cluster_id, 2)
    assert authority.control_epoch == 2, "this one it has from us"


async def test_a_host_that_is_renamed_is_no_sign_of_an_older_copy() -> None:
    store, authority = await begun()
    await authority.take_in(NODE, "", 0, "host-1")
    await authority.take_in("workshop", authority.cluster_id, 1, "host-1")
    assert (authority.control_epoch, store.rises) == (1, 0)
    await authority.take_in(NODE, authority.cluster_id, 1, "host-2")
    assert authority.control_epoch == 2, "this one has the name, and another orchestrator's epoch"


async def test_a_node_that_tells_its_host_for_the_first_time_is_the_one_that_it_was() -> None:
    """Its pool manager was upgraded, or its disk was full."""
    store, authority = await begun()
    await authority.take_in(NODE, "", 0)
    await authority.take_in(NODE, authority.cluster_id, 1, "host-1")
    await authority.take_in("workshop", authority.cluster_id, 1, "host-1")
    assert (authority.control_epoch, store.rises) == (1, 0)


async def test_nodes_that_come_at_once_raise_it_as_often_as_is_needed() -> None:
    store, authority = await begun()
    comings = (authority.take_in(f"node-{epoch}", authority.cluster_id, epoch) for epoch in (9, 5, 7))
    await asyncio.gather(*comings)
    assert (authority.control_epoch, store.rises) == (10, 1)


async def test_an_orchestrator_that_was_superseded_refuses_the_node() -> None:
    store, authority = await begun()
    store.taken_over = True
    with pytest.raises(FailedPrecondition) as refused:
        await authority.take_in(NODE, authority.cluster_id, 7)
    assert refused.value.reason is Reason.STALE_EPOCH
    assert authority.control_epoch == 1


async def test_an_epoch_that_can_not_be_is_refused() -> None:
    _, authority = await begun()
    with pytest.raises(InvalidArgument):
        await authority.take_in(NODE, authority.cluster_id, HIGHEST_EPOCH + 1)
    with authority.linked(NODE):
        assert not await authority.overcome(NODE, 1, stale(authority, HIGHEST_EPOCH + 1))
    assert authority.control_epoch == 1


async def test_nodes_come_back_to_an_orchestrator_that_rose_above_the_highest_epoch_of_a_node() -> None:
    _, authority = await begun()
    await authority.take_in("mistaken", authority.cluster_id, HIGHEST_EPOCH)
    risen = authority.control_epoch
    assert risen == HIGHEST_EPOCH + 1
    await authority.take_in(NODE, authority.cluster_id, 1)
    await authority.take_in(NODE, authority.cluster_id, risen)
    assert await authority.overcome(NODE, 1, stale(authority, risen))
    with pytest.raises(InvalidArgument, match=r"delete control\.json"):
        await authority.take_in("another", authority.cluster_id, risen + 1)
    await authority.take_in("of another cluster", "another", risen + 1)
    assert authority.control_epoch == risen


async def test_a_refused_command_raises_the_epoch_only_for_a_node_that_is_linked_here() -> None:
    """Two orchestrators on two copies of one database would outbid each other."""
    _, authority = await begun()
    assert not await authority.overcome(NODE, 1, stale(authority, 7))
    with authority.linked(NODE):
        assert await authority.overcome(NODE, 1, stale(authority, 7))
    assert authority.control_epoch == 8
    assert not await authority.overcome(NODE, 8, stale(authority, 20))
    assert await authority.overcome(NODE, 1, stale(authority, 8)), "it was sent before the rise"


async def test_refusals_that_say_nothing_or_speak_of_others_are_not_overcome() -> None:
    _, authority = await begun()
    with authority.linked(NODE):
        for refusal in (
            FailedPrecondition(Reason.STALE_EPOCH, "of an earlier release"),
            stale(authority, 7, "another"),
            FailedPrecondition(Reason.NOT_PERMITTED, "no", metadata=stale(authority, 7).metadata),
            FailedPrecondition(Reason.STALE_EPOCH, "", metadata={**stale(authority, 7).metadata, "control_epoch": "x"}),
        ):
            assert not await authority.overcome(NODE, 1, refusal)
    assert authority.control_epoch == 1


async def test_a_command_is_sent_again_with_the_higher_epoch_and_its_own_number() -> None:
    _, authority = await begun()
    sequence, sent = CommandSequence(authority, lambda: NODE), []

    async def send(control: control_pb2.ControlHeader) -> str:
        sent.append((control.control_epoch, control.command_seq))
        if control.control_epoch < 7:
            raise stale(authority, 7)
        return "done"

    with authority.linked(NODE):
        assert await sequence.command(send) == "done"
    assert sent == [(1, 1), (8, 2)]


async def test_commands_to_a_node_that_outbids_us_every_time_end() -> None:
    _, authority = await begun()
    sequence = CommandSequence(authority, lambda: NODE)

    async def send(control: control_pb2.ControlHeader) -> None:
        raise stale(authority, control.control_epoch + 1)

    with authority.linked(NODE), pytest.raises(FailedPrecondition):
        await sequence.command(send)


async def test_a_command_that_was_answered_after_the_rise_is_known_to_reports_of_a_later_one() -> None:
    """The node may still have carried it out while it already counted commands of the new epoch."""
    _, authority = await begun()
    sequence = CommandSequence(authority, lambda: NODE)
    slow = sequence.next()
    assert sequence.known_from(slow) == 1
    sequence.next()
    await authority.take_in("another node", authority.cluster_id, 7)
    assert sequence.known_from(slow) == 3
