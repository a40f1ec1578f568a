"""`llorch pull`: a model's file onto the machine with the GPU, with a bar that shows how it goes."""

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, as_data, note, print_json
from llorch.cli.pull_display import display
from llorch.errors import AlreadyExists, NotFound, Reason, invalid_field
from llorch.model_reference import parse_reference, shown
from llorch.redaction import redacted

if TYPE_CHECKING:
    from llama_orch.v2 import model_pb2
    from llorch.cli.pull_display import Show
    from llorch.sdk.async_client import AsyncClient

_NO_NAME = re.compile(r"[^A-Za-z0-9._:-]+", re.ASCII)
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_LONGEST_NAME = 128


def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="hf:ORG/REPO:QUANTIZATION, hf:ORG/REPO/FILE, https://HOST/FILE, or the name of a model that is there."
        ),
    ],
    *,
    name: Annotated[str | None, typer.Option(help="Name that tasks use; by default one made from the source.")] = None,
    on: Annotated[list[str] | None, typer.Option(help="Machine to bring it to; may be repeated.")] = None,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Bring a model's file onto a machine and add the model; a download that was interrupted is resumed."""

    async def bring(client: "AsyncClient") -> "model_pb2.Model":
        known = await _known(client, source, name)
        with display() as show:
            await _follow(client, source, on or [], show)
        if known is not None and redacted(source) == source:
            return known
        # The stored secret of a URL may be another one than that which has just worked.
        settings = _said_by_calls(known) if known is not None else {}
        return await client.register_model(name or name_of(source), source, **settings)

    try:
        model = ask(address, token, bring)
    except KeyboardInterrupt:
        note("Stopped. The same command goes on where this was.")
        raise
    if json:
        print_json(as_data(model))
    else:
        note(f'Ready: llorch run {model.spec.name} "Name three colours."')


async def _known(client: "AsyncClient", source: str, name: str | None) -> "model_pb2.Model | None":
    """The model that stands for the source already; refuses a name that means something else before any byte comes."""
    if ":" not in source:
        if name is not None:
            raise invalid_field("--name", f"{source} has a name already")
        return await client.model(source)
    parse_reference(source)
    wanted = name or name_of(source)
    try:
        model = await client.model(wanted)
    except NotFound:
        return None
    if model.spec.source != redacted(source):
        raise AlreadyExists(
            Reason.NAME_TAKEN, f"the name {wanted} means {model.spec.source} already; choose another with --name"
        )
    return model


async def _follow(client: "AsyncClient", source: str, nodes: list[str], show: "Show") -> None:
    async with aclosing(client.pull_model(source, nodes)) as answers:
        async for answer in answers:
            show(answer)


def _said_by_calls(model: "model_pb2.Model") -> dict[str, Any]:
    """What was set for it when it was added: adding it again replaces that."""
    from llama_orch.v2 import model_pb2

    said = ((field.name, value) for field, value in model.spec.ListFields() if field.name not in ("name", "source"))
    return {name: value for name, value in said if model.origins.get(name) == model_pb2.VALUE_ORIGIN_CALL}


def name_of(source: str) -> str:
    """A name for a model from elsewhere: the repository with its quantization, or the file's stem."""
    scheme, _, rest = source.partition(":")
    path = rest.partition("#")[0].partition("?")[0].partition("@")[0]
    last = path.rpartition("/")[2]
    stem = re.sub(r"\.gguf$", "", last, flags=re.IGNORECASE)
    if scheme == "hf" and stem == last:
        repo, _, quantization = last.partition(":")
        repo = re.sub(r"[-_.]gguf$", "", repo, flags=re.IGNORECASE)
        stem = f"{repo}-{quantization}" if quantization else repo
    made = _NO_NAME.sub("-", _SPLIT.sub("", stem)).strip("-")[:_LONGEST_NAME]
    if not made:
        raise invalid_field("--name", f"none can be made from {shown(source)}; give one")
    return made
