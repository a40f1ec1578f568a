"""Devices by the names that people give them, and the pools that settings make of them."""

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import InvalidArgument
from pool_managerd.devices.device import Device
from pool_managerd.devices.naming import by_device_id, devices_named
from pool_managerd.node_state import Pool
from pool_managerd.pools import plan_pools


def card(index: int, device_id: str, name: str) -> Device:
    return Device(device_id, DeviceKind.CUDA, index, name, 24576, 0, 0)


CARDS = (
    card(0, "GPU-8f1c2d3e-0000", "RTX 3090"),
    card(1, "GPU-8f1c9999-1111", "RTX 3090 Ti"),
    card(2, "GPU-aaaa0000-2222", "RTX 3060"),
    card(3, "GPU-bbbb0000-3333", "RTX 3060"),
)


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("GPU-8f1c2d3e-0000", [0]),
        ("2", [2]),
        ("GPU-8f1c2", [0]),
        ("8f1c9", [1]),
        ("GPU-8f1c", [0, 1]),
        ("rtx 3090", [0]),
        ("3090", [0]),
        ("3090 Ti", [1]),
        ("3060", [2, 3]),
        ("RTX", [0, 1, 2, 3]),
        ("4090", []),
        ("8f1", []),
        ("", []),
        ("cpu", []),
    ],
)
def test_a_device_has_many_names(name: str, indices: list[int]) -> None:
    assert [device.index for device in devices_named(name, CARDS)] == indices


def test_a_number_is_an_index_before_it_is_a_word_of_a_name() -> None:
    cards = (card(0, "GPU-a", "Model 1"), card(1, "GPU-b", "Model 2"))
    assert [device.device_id for device in devices_named("1", cards)] == ["GPU-b"]


def test_the_highest_of_several_figures_for_a_device_counts() -> None:
    assert by_device_id({"RTX": 500, "3090": 2000, "0": 1000, "4090": 9}, CARDS) == {
        "GPU-8f1c2d3e-0000": 2000,
        "GPU-8f1c9999-1111": 500,
        "GPU-aaaa0000-2222": 500,
        "GPU-bbbb0000-3333": 500,
    }


def test_without_settings_a_node_is_one_pool() -> None:
    plan = plan_pools("garage", {}, CARDS)
    assert plan.pools == (Pool("garage", tuple(device.device_id for device in CARDS)),)


def test_devices_that_no_pool_names_stay_in_the_one_of_the_node() -> None:
    plan = plan_pools("garage", {"big": ["3090", "3090 Ti"], "desk": ["2"]}, CARDS)
    assert plan.pools == (
        Pool("garage:big", ("GPU-8f1c2d3e-0000", "GPU-8f1c9999-1111")),
        Pool("garage:desk", ("GPU-aaaa0000-2222",)),
        Pool("garage", ("GPU-bbbb0000-3333",)),
    )


def test_a_node_whose_devices_are_all_in_pools_has_no_other() -> None:
    plan = plan_pools("garage", {"all": ["RTX"]}, CARDS)
    assert [pool.pool_id for pool in plan.pools] == ["garage:all"]


def test_a_pool_whose_card_was_taken_out_is_there_and_empty() -> None:
    plan = plan_pools("garage", {"big": ["4090"]}, CARDS[:1])
    assert plan.pools == (Pool("garage:big", ()), Pool("garage", ("GPU-8f1c2d3e-0000",)))
    assert plan.unknown == ("big: 4090",)


def test_a_device_in_two_pools_is_refused_with_both_named() -> None:
    with pytest.raises(InvalidArgument, match="pools") as refused:
        plan_pools("garage", {"big": ["3090"], "desk": ["0"]}, CARDS)
    assert 'is in "big" and in "desk"' in refused.value.violations[0].description
