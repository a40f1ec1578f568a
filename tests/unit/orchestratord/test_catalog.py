import pytest

from llorch.errors import AlreadyExists, FailedPrecondition, NotFound, Reason
from orchestratord.core.catalog import Catalog, ModelSpec, ModelState, Origin


def catalog() -> Catalog:
    made = Catalog()
    made.register(ModelSpec("smollm2", "pkg:x/y", aliases=("small",)), Origin.PACKAGE, "package", 0)
    made.register(ModelSpec("coder", "file:/coder.gguf"), Origin.FILE, "file", 0)
    return made


@pytest.mark.req("ORCH-1033")
def test_a_model_is_found_by_name_and_by_alias() -> None:
    assert catalog().get("small").name == "smollm2"
    assert catalog().get("smollm2").name == "smollm2"


def test_an_unknown_name_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(NotFound) as refused:
        catalog().get("smolm2")
    assert refused.value.reason is Reason.MODEL_NOT_FOUND
    assert "smollm2" in refused.value.message


def test_an_empty_catalog_says_how_to_add_a_model() -> None:
    with pytest.raises(NotFound, match="llorch models add"):
        Catalog().get("coder")


def test_the_settings_file_wins_over_a_call() -> None:
    with pytest.raises(FailedPrecondition, match="settings file"):
        catalog().register(ModelSpec("coder", "file:/other.gguf"), Origin.CALL, "call", 1)


def test_a_call_changes_a_model_of_a_package() -> None:
    made = catalog()
    made.register(ModelSpec("smollm2", "file:/mine.gguf", context=512), Origin.CALL, "call", 1)
    assert made.get("smollm2").context == 512
    assert made.find("small") is None


@pytest.mark.parametrize(("name", "aliases"), [("small", ()), ("new", ("coder",)), ("new", ("small",))])
def test_a_name_that_is_taken_is_refused(name: str, aliases: tuple[str, ...]) -> None:
    made = catalog()
    with pytest.raises(AlreadyExists):
        made.register(ModelSpec(name, "file:/x.gguf", aliases=aliases), Origin.CALL, "call", 1)
    assert made.get("small").name == "smollm2"


def test_a_retired_model_takes_no_tasks() -> None:
    made = catalog()
    made.get("coder").state = ModelState.RETIRED
    with pytest.raises(FailedPrecondition) as refused:
        made.get_active("coder")
    assert refused.value.reason is Reason.MODEL_RETIRED


def test_a_model_of_the_settings_file_is_not_deleted_by_a_call() -> None:
    with pytest.raises(FailedPrecondition):
        catalog().delete("coder")
