"""What is told of a world as it goes on, to what looks at it from outside. Here nothing looks."""

from collections.abc import Sequence

from llorch.errors import LlorchError
from orchestratord.core import effects, events
from orchestratord.core.facts.records import RecordChange
from orchestratord.simulation.host import Host
from orchestratord.simulation.process import Process, SimulatedRun


class Watch:
    def heard(self, event: events.Event) -> None:
        """The brain took it."""

    def refused(self, event: events.Event, error: LlorchError) -> None:
        """The brain did not take it."""

    def wants(self, effect: effects.Effect) -> None:
        """What the brain wants, before it is carried out."""

    def check(self, event: events.Event) -> None:
        """All that the brain wanted after an event was carried out."""

    def process_began(self, host: Host, process: Process) -> None:
        """It has not taken its memory yet."""

    def ran_out_of_memory(self, host: Host, process: Process) -> None:
        """The host did not have what the process takes."""

    def run_began(self, process: Process, run: SimulatedRun) -> None:
        """The worker has taken it."""

    def ended_its_worker(self, process: Process, task_id: str) -> None:
        """The process is about to end, of this task."""

    def written(self, changes: Sequence[RecordChange]) -> None:
        """The store has them, and the brain does not know yet."""
