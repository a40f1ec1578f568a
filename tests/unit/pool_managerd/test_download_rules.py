"""The rules of downloads: what may be fetched, what an answer means, what has to leave the disk."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, LlorchError, PermissionDenied, ResourceExhausted
from pool_managerd.devices.device import Device
from pool_managerd.models.cache_room import LEFT_FREE_BYTES, Disk, Kept, make_room
from pool_managerd.models.download.answer import Interrupted, RangeRefused, read_answer
from pool_managerd.models.download.policy import DownloadPolicy, is_public
from pool_managerd.models.download.progress import SlownessWatch, SpeedMeter
from pool_managerd.models.where_it_fits import where_it_fits

GIB = 2**30
POLICY = DownloadPolicy()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org", "https://example.org/"),
        ("https://EXAMPLE.org:443/a?b=c#d", "https://example.org/a?b=c"),
        ("https://example.org.:8443/a", "https://example.org:8443/a"),
        ("https://[2606:2800::1]/a", "https://[2606:2800::1]/a"),
    ],
)
def test_a_url_is_read_once_and_asked_for_as_it_was_read(url: str, expected: str) -> None:
    assert POLICY.location(url).url == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "HTTPS+x://example.org/",
        "//example.org/",
        "https://",
        "https://exa mple.org/",
        "https://example.org:99999/",
        "https://example.org:x/",
        "https://-example.org/",
        "https://ex\u00e4mple.org/",
        "https://example.org\\@10.0.0.1/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://user@example.org/",
        "https://example.org/\n",
    ],
)
def test_what_two_parsers_could_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(PermissionDenied):
        POLICY.location(url)


def test_a_redirect_is_resolved_against_where_it_came_from() -> None:
    start = POLICY.location("https://example.org/a/b")
    assert POLICY.redirected(start, "c?d").url == "https://example.org/a/c?d"
    assert POLICY.redirected(start, "//cdn.example.org/x").url == "https://cdn.example.org/x"


@pytest.mark.parametrize(
    ("host", "allowed"), [("huggingface.co", True), ("cdn.hf.co", True), ("hf.co.evil.org", False), ("hf.co", False)]
)
def test_hosts_are_allowed_by_name_or_pattern(host: str, allowed: bool) -> None:
    policy = DownloadPolicy(hosts=("huggingface.co", "*.hf.co"))
    if allowed:
        assert policy.location(f"https://{host}/").host == host
    else:
        with pytest.raises(PermissionDenied, match="download_hosts"):
            policy.location(f"https://{host}/")


def test_a_private_host_may_be_inside_only_if_the_reference_names_it() -> None:
    policy = DownloadPolicy(private_hosts=("nas.lan",))
    inside = [ipaddress.ip_address("192.168.1.5")]
    policy.check_addresses("nas.lan", inside, first_host="nas.lan")
    for host, first in (("nas.lan", "example.org"), ("router.lan", "router.lan")):
        with pytest.raises(PermissionDenied, match="download_private_hosts"):
            policy.check_addresses(host, inside, first_host=first)


@pytest.mark.parametrize("text", ["93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822", "2002:5db8:d822::1"])
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for wrapped in (
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
    ):
        assert is_public(wrapped) == is_public(address)


def test_a_whole_file_begins_at_zero_and_a_part_where_it_was_asked_from() -> None:
    whole = read_answer("h", 200, {"content-length": "10", "etag": '"a"'}, 5)
    assert (whole.offset, whole.total, whole.validator) == (0, 10, '"a"')
    part = read_answer("h", 206, {"content-range": "bytes 5-9/10", "etag": 'W/"a"'}, 5)
    assert (part.offset, part.total, part.validator) == (5, 10, "")


@pytest.mark.parametrize("content_range", ["", "bytes 4-9/10", "bytes 5-8/10", "bytes 5-9/*", "bytes */10", "5-9/10"])
def test_another_part_than_was_asked_for_is_not_taken(content_range: str) -> None:
    with pytest.raises(RangeRefused):
        read_answer("h", 206, {"content-range": content_range}, 5)


@pytest.mark.parametrize(("status", "tries_again"), [(500, True), (429, True), (416, True), (404, False), (403, False)])
def test_a_status_says_whether_to_try_again(status: int, tries_again: bool) -> None:
    with pytest.raises(LlorchError) as refused:
        read_answer("h", status, {}, 0)
    assert isinstance(refused.value, Interrupted) is tries_again


def test_a_file_that_comes_compressed_is_refused_by_name() -> None:
    with pytest.raises(FailedPrecondition, match="compressed"):
        read_answer("h", 200, {"content-encoding": "gzip"}, 0)


def test_speed_is_that_of_the_last_seconds() -> None:
    meter = SpeedMeter()
    assert meter.note(0.0, 0) == 0.0
    assert meter.note(1.0, 100) == 100.0
    for second in range(2, 20):
        speed = meter.note(float(second), 100 + 10 * (second - 1))
    assert speed == pytest.approx(10.0)


def test_slowness_is_judged_window_by_window() -> None:
    watch = SlownessWatch(10.0, 100, 0.0)
    assert not watch.is_too_slow(5.0, 1)
    assert not watch.is_too_slow(10.0, 1000)
    assert watch.is_too_slow(20.0, 998)


def kept(name: str, used_at: float, *files: tuple[str, int]) -> Kept:
    return Kept(name, used_at, files or ((name, 10 * GIB),))


def test_the_oldest_go_and_no_more_than_needed() -> None:
    models = [kept("a", 3), kept("b", 1), kept("c", 2)]
    assert make_room(5 * GIB, models, Disk(100 * GIB, 35 * GIB), ()) == []
    assert make_room(6 * GIB, models, Disk(100 * GIB, 35 * GIB), ()) == ["b"]
    assert make_room(16 * GIB, models, Disk(100 * GIB, 35 * GIB), ()) == ["b", "c"]
    assert make_room(6 * GIB, models, Disk(100 * GIB, 35 * GIB), ("b",)) == ["c"]


def test_a_full_disk_counts_as_a_budget_does() -> None:
    models = [kept("a", 1), kept("b", 2)]
    assert make_room(GIB, models, Disk(LEFT_FREE_BYTES + GIB, None), ()) == []
    assert make_room(2 * GIB, models, Disk(LEFT_FREE_BYTES + GIB, None), ()) == ["a"]


def test_a_file_that_another_model_keeps_brings_no_room() -> None:
    shared = ("shared", 10 * GIB)
    models = [kept("a", 1, shared), kept("b", 2, shared, ("own", 2 * GIB))]
    with pytest.raises(ResourceExhausted):
        make_room(GIB, models, Disk(100 * GIB, 12 * GIB), ("b",))


def test_where_all_of_it_is_not_enough_nothing_goes() -> None:
    with pytest.raises(ResourceExhausted, match="model_cache_mib") as refused:
        make_room(40 * GIB, [kept("a", 1)], Disk(100 * GIB, 35 * GIB), ())
    assert "40960 MiB" in refused.value.message


Sizes = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 50), st.floats(0, 100)), max_size=12)


@given(
    Sizes,
    st.integers(0, 60),
    st.integers(0, 100),
    st.one_of(st.none(), st.integers(0, 120)),
    st.sets(st.integers(0, 11)),
)
def test_room_is_really_made_and_what_is_in_use_stays(
    sizes: list[tuple[int, int, float]], needed: int, free: int, budget: int | None, busy: set[int]
) -> None:
    models = [kept(str(number), at, (f"blob-{blob}-{size}", size)) for number, (blob, size, at) in enumerate(sizes)]
    in_use = {str(number) for number in busy}
    disk = Disk(LEFT_FREE_BYTES + free, budget)
    try:
        gone = make_room(needed, models, disk, in_use)
    except ResourceExhausted:
        gone = []
    else:
        left = dict(file for model in models if model.reference not in gone for file in model.files)
        before = dict(file for model in models for file in model.files)
        assert free + sum(before.values()) - sum(left.values()) >= needed
        assert budget is None or not gone or sum(left.values()) + needed <= budget
    assert not set(gone) & in_use


def test_a_choice_is_told_with_the_devices_that_could_hold_it() -> None:
    small = Device("a", DeviceKind.CUDA, 0, "RTX 3060", 12 * 1024, 0, 0)
    large = Device("b", DeviceKind.CUDA, 1, "RTX 3090", 24 * 1024, 0, 0)
    assert where_it_fits(5 * GIB, (small, large)) == "fits RTX 3060, RTX 3090"
    assert where_it_fits(20 * GIB, (small, large)) == "fits RTX 3090"
    assert where_it_fits(40 * GIB, (small, large)) == "fits no device here"
