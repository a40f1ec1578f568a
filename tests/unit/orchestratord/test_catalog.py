import pytest

from llorch.cache_type import CacheType
from llorch.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason
from llorch.gguf.facts import ModelFacts
from llorch.options.model import DEFAULT_CONTEXT
from orchestratord.core.facts.catalog import Catalog
from orchestratord.core.facts.model import (
    VALUES,
    ModelRecord,
    ModelSpec,
    ModelState,
    Origin,
    SourceFacts,
)

TRAINED_8K = ModelFacts("llama", 8192, (), 0, 32_000, 512, 1000, 100, 100, tied_output=True)


def catalog() -> Catalog:
    made = Catalog()
    made.register(ModelSpec("smollm2", "pkg:x/y", aliases=("small",)), Origin.PACKAGE, "package x 1")
    made.register(ModelSpec("coder", "file:/coder.gguf", context=8192), Origin.FILE, "file")
    return made


@pytest.mark.req("ORCH-1033")
def test_a_model_is_found_by_name_and_by_alias() -> None:
    assert catalog().get("small").name == "smollm2"
    assert catalog().get("smollm2").name == "smollm2"


@pytest.mark.req("ORCH-1033")
def test_an_unknown_name_is_refused_with_the_three_nearest_names() -> None:
    made = catalog()
    for name in ("smollm3", "phi"):
        made.register(ModelSpec(name, f"file:/{name}.gguf"), Origin.CALL, "call")
    with pytest.raises(NotFound, match=r"nearest names are: smollm2, smollm3, small$") as refused:
        made.get("smolm2")
    assert refused.value.reason is Reason.MODEL_NOT_FOUND


def test_an_empty_catalog_says_how_to_add_a_model() -> None:
    with pytest.raises(NotFound, match="llorch models add"):
        Catalog().get("coder")


@pytest.mark.req("ORCH-1033")
def test_each_value_is_that_of_the_strongest_origin_that_has_it() -> None:
    made = catalog()
    made.register(ModelSpec("smollm2", slots=2, context=512), Origin.CALL, "call", 5)
    made.register(ModelSpec("smollm2", context=1024, cache_type=CacheType.Q8_0), Origin.FILE, "file")
    model = made.get("smollm2")
    assert (model.spec.source, model.slots, model.context, model.cache_type) == ("pkg:x/y", 2, 1024, "q8_0")
    assert {value: model.origin_of(value) for value in VALUES if value not in ("split_shares", "vram_claim_mib")} == {
        "source": Origin.PACKAGE,
        "aliases": Origin.PACKAGE,
        "slots": Origin.CALL,
        "context": Origin.FILE,
        "cache_type": Origin.FILE,
        "split": Origin.DEFAULT,
        "idle_unload_s": Origin.DEFAULT,
        "engine": Origin.DEFAULT,
    }


def test_a_call_that_would_not_be_heard_is_told_so() -> None:
    with pytest.raises(FailedPrecondition, match=r"^source, context of model 'coder': set in the settings file"):
        catalog().register(ModelSpec("coder", "file:/other.gguf", context=512), Origin.CALL, "call")


def test_a_call_may_say_what_the_file_leaves_open_or_says_as_well() -> None:
    made = catalog()
    made.register(ModelSpec("coder", "file:/coder.gguf", slots=2), Origin.CALL, "call")
    assert (made.get("coder").slots, made.get("coder").context) == (2, 8192)


def test_a_model_without_a_source_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="source"):
        catalog().register(ModelSpec("new", context=512), Origin.CALL, "call")
    assert catalog().find("new") is None


@pytest.mark.parametrize(("name", "aliases"), [("small", ()), ("new", ("coder",)), ("new", ("small",))])
def test_a_name_that_is_taken_is_refused_and_nothing_has_changed(name: str, aliases: tuple[str, ...]) -> None:
    made = catalog()
    with pytest.raises(AlreadyExists):
        made.register(ModelSpec(name, "file:/x.gguf", aliases=aliases), Origin.CALL, "call")
    assert made.get("small").name == "smollm2"
    assert made.find("new") is None


@pytest.mark.parametrize(("name", "aliases"), [("small", ()), ("new", ("small",))])
def test_an_alias_gives_way_to_the_settings_file(name: str, aliases: tuple[str, ...]) -> None:
    made = catalog()
    made.register(ModelSpec(name, "file:/x.gguf", aliases=aliases), Origin.FILE, "file")
    assert made.get("small").name == name
    made.register(ModelSpec("smollm2", slots=2), Origin.CALL, "call")
    assert made.get("small").name == name
    assert made.get("smollm2").spec.aliases == ()


def test_a_changed_model_gives_its_old_aliases_back() -> None:
    made = Catalog()
    made.register(ModelSpec("a", "file:/a.gguf", aliases=("x", "y")), Origin.CALL, "call")
    made.register(ModelSpec("a", "file:/a.gguf", aliases=("y",)), Origin.CALL, "call")
    assert made.find("x") is None
    assert made.get("y").name == "a"


def test_a_retired_model_takes_no_tasks_and_stays_retired_when_it_changes() -> None:
    made = catalog()
    made.set_state("smollm2", ModelState.RETIRED)
    made.register(ModelSpec("smollm2", slots=2), Origin.CALL, "call")
    with pytest.raises(FailedPrecondition) as refused:
        made.get_active("small")
    assert refused.value.reason is Reason.MODEL_RETIRED
    made.set_state("smollm2", ModelState.ACTIVE)
    assert made.get_active("small").slots == 2


@pytest.mark.parametrize(("name", "remedy"), [("coder", "settings file"), ("smollm2", "retire it")])
def test_a_model_of_another_origin_is_not_deleted_by_a_call(name: str, remedy: str) -> None:
    made = catalog()
    with pytest.raises(FailedPrecondition, match=remedy):
        made.refuse_to_delete(made.get(name))


def test_deleting_takes_back_what_calls_have_said() -> None:
    made = catalog()
    made.register(ModelSpec("smollm2", slots=2), Origin.CALL, "call")
    made.register(ModelSpec("mine", "file:/m.gguf", aliases=("m",)), Origin.CALL, "call")
    for name in ("small", "m"):
        made.refuse_to_delete(made.get(name))
        made.withdraw(made.get(name).name, Origin.CALL)
    assert made.get("smollm2").slots == 4
    assert made.find("mine") is None
    assert made.find("m") is None
    assert made.by_source("file:/m.gguf") == []


def test_what_is_known_of_a_file_counts_for_every_model_that_has_it() -> None:
    made = Catalog()
    made.register(ModelSpec("a", "file:/x.gguf"), Origin.CALL, "call")
    assert (made.get("a").context, made.get("a").origin_of("context")) == (DEFAULT_CONTEXT, Origin.DEFAULT)
    made.learn(SourceFacts("file:/x.gguf", 100, TRAINED_8K))
    made.register(ModelSpec("b", "file:/x.gguf", context=65_536), Origin.CALL, "call")
    made.register(ModelSpec("c", "file:/x.gguf", context=512), Origin.CALL, "call")
    contexts = {model.name: (model.context, model.origin_of("context")) for model in made.by_source("file:/x.gguf")}
    assert contexts == {"a": (8192, Origin.MODEL), "b": (8192, Origin.MODEL), "c": (512, Origin.CALL)}
    made.register(ModelSpec("a", "file:/y.gguf"), Origin.CALL, "call")
    assert (made.get("a").size_mib, made.get("a").context) == (None, DEFAULT_CONTEXT)


def test_only_what_calls_have_made_of_a_model_is_kept() -> None:
    made = catalog()
    assert made.record_of("coder") is None
    made.set_state("coder", ModelState.RETIRED)
    assert made.record_of("coder") == ModelRecord("coder", ModelState.RETIRED)
    spec = ModelSpec("smollm2", slots=2)
    made.register(spec, Origin.CALL, "call", 7)
    assert made.record_of("smollm2") == ModelRecord("smollm2", ModelState.ACTIVE, spec, "call", 7)


@pytest.mark.parametrize("file_first", [True, False])
def test_a_restored_record_meets_the_settings_file_in_any_order(*, file_first: bool) -> None:
    """What the file says now may contradict what a call has said before; it wins, and nothing is refused."""
    made = Catalog()
    record = ModelRecord("coder", ModelState.RETIRED, ModelSpec("coder", "file:/old.gguf", ("c",), slots=2), "call", 7)
    file = ModelSpec("coder", "file:/new.gguf"), Origin.FILE, "file"
    if file_first:
        made.register(*file)
    made.restore(record)
    if not file_first:
        made.register(*file)
    model = made.get("c")
    assert (model.spec.source, model.slots, model.state) == ("file:/new.gguf", 2, ModelState.RETIRED)
    made.restore(ModelRecord("coder"))
    assert (made.get("coder").slots, made.get("coder").state) == (4, ModelState.ACTIVE)
    assert made.find("c") is None


def test_what_a_call_said_of_a_nodes_model_waits_for_the_node() -> None:
    made = Catalog()
    made.restore(ModelRecord("phi", spec=ModelSpec("phi", slots=2)))
    assert made.find("phi") is None
    made.register(ModelSpec("phi", "dir:phi.gguf"), Origin.NODE, "models_dir of garage")
    assert (made.get("phi").slots, made.get("phi").origin_of("source")) == (2, Origin.NODE)
    made.withdraw("phi", Origin.NODE)
    assert made.find("phi") is None
    assert made.record_of("phi") == ModelRecord("phi", spec=ModelSpec("phi", slots=2))
