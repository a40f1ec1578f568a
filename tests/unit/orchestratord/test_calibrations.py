"""What was measured counts for the same load again, by a release whose workers have the same in memory."""

import json
from dataclasses import asdict

from orchestratord.core.facts.calibration import Calibration, Calibrations, kinds_of
from orchestratord.core.facts.model import Model, ModelSpec, Origin
from orchestratord.store.codec import load, upgrade
from support.brain_driver import gpu

DEVICE = gpu()
MODEL = Model(ModelSpec("m", "file:/m.gguf", slots=4, context=8192), Origin.CALL, "a test", 0)
MEASURED = Calibration("file:/m.gguf", 8192, 4, "f16", kinds_of([DEVICE]), (), (9000,), "llama_cpp")


def known(calibration: Calibration) -> tuple[int, ...] | None:
    calibrations = Calibrations()
    calibrations.put(calibration)
    return calibrations.known(MODEL, "llama_cpp", 8192, [DEVICE])


def test_what_was_measured_counts_for_the_same_load() -> None:
    assert known(MEASURED) == (9000,)


def test_what_a_release_measured_whose_workers_made_memory_for_texts_later_does_not_count() -> None:
    earlier = {name: value for name, value in asdict(MEASURED).items() if name != "counts"}
    of_then = load(Calibration, upgrade(Calibration, json.dumps(earlier), 2))
    assert of_then.mib == (9000,)
    assert known(of_then) is None
    assert of_then.record_key == "file:/m.gguf|8192|4|f16|('CUDA RTX 3090',)|()|llama_cpp"
    assert of_then.record_key != MEASURED.record_key
