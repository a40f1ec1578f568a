"""Every field and value of the contract has a use in `services/`, or a requirement that it waits for."""

from support import contract_usage, requirements


def waiting() -> dict[str, str]:
    return dict(requirements.waiting_parts())


def test_every_field_has_its_writer_and_its_reader_or_waits_for_a_requirement() -> None:
    assert contract_usage.unused_fields() - waiting().keys() == set()


def test_every_enum_value_is_named_or_waits_for_a_requirement() -> None:
    assert contract_usage.unused_values() - waiting().keys() == set()


def test_what_waits_is_unused_and_its_requirement_is_not_done() -> None:
    unused = contract_usage.unused_fields() | contract_usage.unused_values()
    assert waiting().keys() - unused == set(), "these are used by now, or not part of the contract"
    assert len(waiting()) == len(requirements.waiting_parts()), "a part is listed twice"
    rows = requirements.read()
    states = {identifier: rows[identifier].state for identifier in waiting().values()}
    assert {identifier for identifier, state in states.items() if state.startswith("done")} == set()


def test_every_rpc_between_daemons_is_called_by_one_or_meant_for_people() -> None:
    assert contract_usage.rpcs_without_caller() <= contract_usage.FOR_PEOPLE


def test_a_field_that_only_its_writer_names_is_found() -> None:
    """Without the list: the finder sees the kinds that it is for."""
    unused = contract_usage.unused_fields()
    assert "WorkerEndpoint.tls_name" in unused, "neither written nor read"
    assert "StepFrame.slots_free" in unused, "written by a worker, read by none"
    assert "WorkerEndpoint.access_token" not in unused
