"""Places are named as people name them, kept by id, and shown by name."""

import pytest

from llorch.errors import InvalidArgument, NotFound
from orchestratord.core.facts.targets import Place, devices_of, resolve, show, why_missing
from support.placement import BIG, SMALL, Scene, card


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.node("garage")
    scene.node("attic", card("GPU-aaaa1111", index=0), card("GPU-aaaa2222", index=1))
    return scene


@pytest.mark.parametrize(
    ("text", "device_ids"),
    [
        ("garage", ()),
        ("garage/3090", (BIG.device_id,)),
        ("garage/RTX 3060", (SMALL.device_id,)),
        ("garage/rtx-3060", (SMALL.device_id,)),
        ("garage/RTX3060", (SMALL.device_id,)),
        ("garage/1", (SMALL.device_id,)),
        ("garage/GPU-306", (SMALL.device_id,)),
        ("garage/3060+3090", (SMALL.device_id, BIG.device_id)),
        ("attic/aaaa2", ("GPU-aaaa2222",)),
    ],
)
def test_a_place_is_found_by_what_people_call_it(scene: Scene, text: str, device_ids: tuple[str, ...]) -> None:
    place = resolve(scene.state.fleet, text)
    assert (place.node_id, place.device_ids) == (text.partition("/")[0], device_ids)
    assert resolve(scene.state.fleet, show(scene.state.fleet, place)) == place, "what is shown means the same"


def test_an_index_goes_before_a_part_of_a_name(scene: Scene) -> None:
    scene.node("cellar", card("GPU-a", "RTX 3060", index=0), card("GPU-b", "RTX 0", index=1))
    assert resolve(scene.state.fleet, "cellar/0").device_ids == ("GPU-a",)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("a6000", 0),
        ("6000", 0),
        ("RTX A6000", 0),
        ("RTX 3090", 1),
        ("rtx3090 ti", 2),
        ("3090ti", 2),
        ("t4", 3),
        ("l4", 4),
    ],
)
def test_a_card_is_found_by_whole_words_of_its_name(scene: Scene, text: str, index: int) -> None:
    names = ("NVIDIA RTX A6000", "RTX 3090", "RTX 3090 Ti", "Tesla T4", "NVIDIA L4")
    scene.node("hall", *(card(f"GPU-{number}", name, index=number) for number, name in enumerate(names)))
    assert resolve(scene.state.fleet, f"hall/{text}").device_ids == (f"GPU-{index}",)


@pytest.mark.parametrize("text", ["9", "90", "309", "600", "5", "t", "tes", "rt", "x", "-", "0x", "1.", "00", "٣"])
def test_neither_a_number_that_no_card_has_nor_half_a_word_is_a_card(scene: Scene, text: str) -> None:
    scene.node("hall", card("GPU-a", "NVIDIA RTX A6000", index=0), card("GPU-b", "Tesla T4 5 GPU 9", index=1))
    with pytest.raises(NotFound, match=r"it has: 0 \(NVIDIA RTX A6000, GPU-a\), 1 "):
        resolve(scene.state.fleet, f"hall/{text}")


def test_a_pool_is_a_place_that_follows_its_devices(scene: Scene) -> None:
    place = resolve(scene.state.fleet, "pool-garage")
    node = scene.state.fleet.nodes["garage"]
    assert place == Place("garage", pool_id="pool-garage")
    assert devices_of(node, place) == (BIG.device_id, SMALL.device_id)
    assert place.covers(node, (BIG.device_id, SMALL.device_id))
    node.pools.clear()
    assert not place.covers(node, (BIG.device_id,))


def test_cards_of_one_name_are_shown_by_index(scene: Scene) -> None:
    place = resolve(scene.state.fleet, "attic/1")
    assert show(scene.state.fleet, place) == "attic/1"


def test_a_card_that_is_gone_is_shown_by_its_id(scene: Scene) -> None:
    assert show(scene.state.fleet, Place("garage", ("GPU-gone",))) == "garage/GPU-gone"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("garag", NotFound, "the nodes are: attic, garage"),
        ("garag/0", NotFound, "the nodes are: attic, garage"),
        ("garage/9", NotFound, r"has no GPU that '9' means; it has: 0 \(RTX 3090, GPU-3090\)"),
        ("garage/4090", NotFound, r"it has: 0 \(RTX 3090, GPU-3090\), 1 \(RTX 3060, GPU-3060\)"),
        ("garage/", NotFound, "has no GPU that '' means"),
        ("attic/3090", InvalidArgument, "means 2 GPUs"),
        ("garage/0+3090", InvalidArgument, "the same GPU twice"),
    ],
)
def test_what_is_not_there_or_not_clear_is_told_with_what_there_is(
    scene: Scene, text: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        resolve(scene.state.fleet, text)


def test_a_place_of_several_devices_is_all_of_them_and_nothing_else(scene: Scene) -> None:
    node = scene.state.fleet.nodes["garage"]
    both = resolve(scene.state.fleet, "garage/3090+3060")
    assert both.covers(node, (SMALL.device_id, BIG.device_id))
    assert not both.covers(node, (BIG.device_id,))
    assert both.touches(node, (BIG.device_id,))
    assert not both.touches(scene.state.fleet.nodes["attic"], (BIG.device_id,))


def test_a_name_of_a_node_and_of_another_ones_pool_means_neither(scene: Scene) -> None:
    scene.node("pool-garage")
    with pytest.raises(InvalidArgument, match="'pool-garage' means node 'pool-garage' and a pool of 'garage'"):
        resolve(scene.state.fleet, "pool-garage")


def test_why_a_place_is_not_known_is_told_truly(scene: Scene) -> None:
    fleet = scene.state.fleet
    assert why_missing(fleet, "cellar/0", None) == "no machine and no pool called 'cellar' has ever connected"
    assert "has no GPU that '9' means; it has: 0 (RTX 3090, GPU-3090)" in why_missing(fleet, "garage/9", None)
    assert "means 2 GPUs" in why_missing(fleet, "attic/3090", None)
