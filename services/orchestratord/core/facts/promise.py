"""What a deterministic task holds on to once it has begun: one task never shows bytes of two fingerprints."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the bytes of a worker's answers depend on apart from the request, as it tells it itself.

    `digest` is opaque and only ever compared; it is empty as long as the worker has not proven that it gives the same
    bytes whatever runs beside. `words` say the same to people, part by part.
    """

    digest: str = ""
    words: tuple[str, ...] = field(default=(), compare=False)

    def is_same_as(self, other: "Fingerprint") -> bool:
        """Whether workers of both give the same bytes. Unproven ones never do, not even one and the same."""
        return bool(self.digest) and self.digest == other.digest

    def beside(self, other: "Fingerprint") -> tuple[str, ...]:
        """The words in which it differs from the other."""
        return tuple(word for word in self.words if word not in other.words)


UNPROVEN = Fingerprint()


@dataclass(frozen=True, slots=True)
class Promise:
    """The worker on which a task's output began: its fingerprint, and what of it is known of a place beforehand.

    Of a worker that is yet to be loaded the fingerprint is not known. It can be this one only on `cards` of these kinds
    and names, in their order, and with this `context` per request, in tokens.
    """

    fingerprint: Fingerprint
    cards: tuple[str, ...] = ()
    context: int = 0

    @property
    def words(self) -> str:
        """For people."""
        return ", ".join(self.fingerprint.words) or f"{' + '.join(self.cards)}, with nothing proven"
