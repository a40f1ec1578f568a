"""Gives runs their slots, with as much of their prompts in them as is known already.

It comes from the slot itself, from another slot, or from the memory of the host. Belongs to the engine's thread.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf

from worker_orcd.engines.llama_cpp.context import Context
from worker_orcd.engines.llama_cpp.determinism import FixedChunks
from worker_orcd.engines.llama_cpp.host_cache import HostCache, SavedSequence
from worker_orcd.engines.llama_cpp.sequence import Sequence, WaitingChoice
from worker_orcd.engines.llama_cpp.session_file import SavedHead
from worker_orcd.engines.llama_cpp.slots import MIN_REUSE, Kept, Slot, Slots, common_prefix


class SlotKeeper:
    def __init__(self, context: Context, slots: Slots, host: HostCache, fixed: FixedChunks) -> None:
        self._context = context
        self._slots = slots
        self._host = host
        self._fixed = fixed

    @property
    def any_free(self) -> bool:
        return self._slots.any_free

    @property
    def held_tokens(self) -> int:
        return self._slots.held_tokens

    @property
    def warm_prefixes(self) -> int:
        """Conversations that could go on without their beginning being evaluated again."""
        return self._slots.warm + len(self._host)

    @property
    def host_bytes(self) -> int:
        return self._host.used_bytes

    def place(self, choice: WaitingChoice) -> tuple[int, int]:
        """The number of a free slot, and how many of the choice's tokens it has now."""
        placement = self._slots.choose(lambda slot: self._reusable_of_slot(slot, choice))
        found = self._found_in_host(choice)
        if found is not None and found[1] >= placement.reused + MIN_REUSE:
            slot = self._slots.least_wanted()
            self._save(slot)
            if self._restore(slot, found[0]):
                return slot.number, self._trimmed(slot, self._reusable_of_restored(slot, found[0], choice))
            return self.place(choice)  # the slot lost what it had, and the host what was not intact
        slot = placement.slot
        if placement.loses:
            self._save(slot)
        if placement.source is not slot:
            self._copy(placement.source, slot)
        return slot.number, self._trimmed(slot, placement.reused)

    def take(self, sequence: Sequence) -> None:
        self._slots.take(self._slots[sequence.slot], sequence)

    def release(self, sequence: Sequence) -> None:
        self._slots.release(self._slots[sequence.slot])

    def forget(self, sequence: Sequence) -> None:
        """Empties the slot: after a failed decoding its content is unknown."""
        self._context.forget(sequence.slot)
        sequence.evaluated = 0
        self._slots[sequence.slot].watermark = 0

    def cut(self, sequence: Sequence) -> None:
        """An evaluation was given up: what is left of the sequence counts."""
        left = min(sequence.evaluated, self._context.last_position(sequence.slot) + 1)
        if self._context.kind.trims and self._context.trim(sequence.slot, left):
            sequence.evaluated = left
        else:
            self.forget(sequence)

    def copy(self, source: Sequence, target: Sequence) -> None:
        """All that `source` has evaluated, which `target` begins with."""
        self._context.copy(source.slot, target.slot)
        target.evaluated = source.evaluated
        self._slots[target.slot].watermark = self._slots[source.slot].watermark

    def advance(self, sequence: Sequence, end: int) -> None:
        """A piece of the prompt was evaluated, up to `end`."""
        if sequence.deterministic:
            slot = self._slots[sequence.slot]
            slot.watermark = self._fixed.watermark(slot.watermark, sequence.evaluated, end)
        sequence.evaluated = end

    def best_gain(self, heads: SequenceOf[SavedHead], choice: WaitingChoice) -> SavedHead | None:
        """Of which more can be reused than of anything that is here; None if there is none, or no place for it now."""
        host = self._host.find(lambda saved: self._reusable_of_saved(saved, choice))
        here = max(self._slots.most(lambda slot: self._reusable_of_slot(slot, choice)), host[1] if host else 0)
        best = max(heads, key=lambda head: self._reusable_of_saved(head, choice), default=None)
        if best is None or self._reusable_of_saved(best, choice) < here + MIN_REUSE:
            return None
        return best if self._can_restore or self._host.wants(best.tokens, best.state_bytes) else None

    def bring_back(self, saved: SavedSequence) -> None:
        """Into a slot, where a run finds it as what an earlier one left; where none is free, into the host's memory.
        Raises RestoreFailed.
        """
        if not self._can_restore:
            self._host.add(saved)
            return
        slot = self._slots.least_wanted()
        self._save(slot)
        self._slots.empty(slot)
        self._put_back(slot, saved)
        self._slots.fill(slot, Kept(list(saved.tokens), len(saved.tokens), saved.session))

    @property
    def _can_restore(self) -> bool:
        return self._slots.any_free and not self._context.copies_pending

    def idle_of(
        self, session: str, wants: Callable[[int, int], bool] = lambda _tokens, _bytes: True
    ) -> Iterator[SavedSequence]:
        """What slots and the host's memory have of a session, one after the other, the longest first: states are large.
        What another one begins with is left out, and what is not wanted for its tokens and bytes.
        """
        slots = [(slot.tokens[: slot.held], slot) for slot in self._slots.idle_of(session)]
        hosts = [(saved.tokens, saved) for saved in self._host.of_session(session)]
        found: list[tuple[list[int], Slot | SavedSequence]] = sorted([*slots, *hosts], key=lambda one: -len(one[0]))
        given: list[list[int]] = []
        for tokens, where in found:
            if any(other[: len(tokens)] == tokens for other in given):
                continue
            if not wants(len(tokens), self._state_bytes(where)):
                continue
            saved = self._read(where) if isinstance(where, Slot) else where
            # Written, what was damaged here would be proven to be what was written.
            if saved is not None and (saved is not where or self._host.is_intact(saved)):
                given.append(tokens)
                yield saved

    def _found_in_host(self, choice: WaitingChoice) -> tuple[SavedSequence, int] | None:
        """While copies are pending nothing can be restored: the prompt is evaluated, if no slot has it."""
        if self._context.copies_pending:
            return None
        return self._host.find(lambda saved: self._reusable_of_saved(saved, choice))

    def _reusable_of_slot(self, slot: Slot, choice: WaitingChoice) -> int:
        first = self._context.first_position(slot.number) if self._context.kind.window else 0
        return self._reusable(slot.tokens, slot.held, slot.watermark, first, choice)

    def _reusable_of_saved(self, saved: SavedSequence | SavedHead, choice: WaitingChoice) -> int:
        return self._reusable(saved.tokens, len(saved.tokens), saved.watermark, saved.first_position, choice)

    def _reusable_of_restored(self, slot: Slot, saved: SavedSequence, choice: WaitingChoice) -> int:
        """What the library says that it has now counts: windows of a kind that we do not know may keep less."""
        first = self._context.first_position(slot.number) if self._context.kind.window else 0
        return self._reusable(saved.tokens, len(saved.tokens), saved.watermark, first, choice)

    def _reusable(self, tokens: list[int], held: int, watermark: int, first: int, choice: WaitingChoice) -> int:
        """At least one token is left to evaluate: the next one is picked from its logits."""
        wanted = common_prefix(tokens, choice.tokens, min(held, len(choice.tokens) - 1))
        if choice.run.spec.deterministic:
            wanted = self._reusable_bits(wanted, watermark, choice.output.tokens_in)
        return self._context.kind.usable(held, wanted, first) if wanted else 0

    def _reusable_bits(self, common: int, watermark: int, prompt: int) -> int:
        """Layers with a window keep their tokens in an order that depends on what was there before, and sums
        depend on the order.
        """
        return 0 if self._context.kind.window else self._fixed.reusable(common, watermark, prompt)

    def _trimmed(self, slot: Slot, keep: int) -> int:
        """How many tokens the slot has after all but the first `keep` were removed: those, or none."""
        kept = keep if keep and self._context.trim(slot.number, keep) else 0
        if not kept:
            self._context.forget(slot.number)
        slot.watermark = min(slot.watermark, kept)
        return kept

    def _copy(self, source: Slot, target: Slot) -> None:
        self._context.copy(source.number, target.number)
        target.watermark = source.watermark

    def _save(self, slot: Slot) -> None:
        tokens = slot.tokens[: slot.held]
        if not tokens or not self._host.wants(tokens, self._context.state_bytes(slot.number)):
            return
        saved = self._read(slot)
        if saved is not None:
            self._host.add(saved)

    def _state_bytes(self, where: Slot | SavedSequence) -> int:
        return self._context.state_bytes(where.number) if isinstance(where, Slot) else where.state.nbytes

    def _read(self, slot: Slot) -> SavedSequence | None:
        """What the slot holds; None if it can't be read now."""
        state = self._context.save(slot.number)
        if state is None:
            return None
        tokens = slot.tokens[: slot.held]
        first = self._context.kind.first_of_state(len(tokens), self._context.first_position(slot.number))
        return SavedSequence(tokens, state, first, slot.watermark, slot.holder.session)

    def _restore(self, slot: Slot, saved: SavedSequence) -> bool:
        """False if it is not intact any more; the slot is empty then. Raises RestoreFailed."""
        self._slots.empty(slot)
        if not self._host.is_intact(saved):
            self._context.forget(slot.number)
            self._host.drop(saved)
            return False
        self._put_back(slot, saved)
        self._host.want(saved)
        return True

    def _put_back(self, slot: Slot, saved: SavedSequence) -> None:
        self._context.restore(slot.number, saved.state, len(saved.tokens))
        slot.watermark = saved.watermark
