from typing import Any

import pytest

from llorch.errors import InvalidArgument
from llorch.sdk.task_spec import generate_spec


def test_a_text_is_what_a_user_says() -> None:
    spec = generate_spec("smollm2", "Hi", {"system": "Be brief."})

    assert [(m.role, m.content[0].text) for m in spec.generate.chat.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]


def test_raw_gives_the_text_as_it_is() -> None:
    spec = generate_spec("smollm2", "Once upon", {"raw": True})

    assert spec.generate.prompt == "Once upon"


def test_messages_are_taken_over() -> None:
    spec = generate_spec("smollm2", [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], {})

    assert [m.role for m in spec.generate.chat.messages] == ["user", "assistant"]


def test_options_land_in_their_places_and_absent_ones_stay_absent() -> None:
    spec = generate_spec("smollm2", "Hi", {"max_tokens": 5, "temperature": 0.0, "stop": ["\n"], "deadline_ms": 900})

    assert spec.generate.max_tokens == 5
    assert spec.generate.sampling.HasField("temperature")
    assert not spec.generate.sampling.HasField("seed")
    assert list(spec.generate.stop) == ["\n"]
    assert spec.deadline_ms == 900


@pytest.mark.parametrize(
    ("prompt", "options", "field"),
    [
        ("Hi", {"max_tokens": -1}, "max_tokens"),
        ("Hi", {"seed": 2**64}, "seed"),
        ("Hi", {"temperature": "hot"}, "temperature"),
        ("Hi", {"max_token": 5}, "max_token"),
        ("\udcff", {}, "messages"),
        ("\udcff", {"raw": True}, "prompt"),
        ([{"role": "user"}], {}, "messages"),
        ([{"role": "user", "content": "Hi"}], {"raw": True}, "raw"),
    ],
)
def test_what_the_contract_cannot_hold_is_refused_by_name(prompt: Any, options: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        generate_spec("smollm2", prompt, options)
    assert refused.value.violations[0].field == field
