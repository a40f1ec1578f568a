"""Six models for `support.machines`, each of which one machine alone can serve, each for another reason.

coder        a file that all machines have, pinned to attic
attic-own    in the models_dir of attic: without attic there is no such model
writer       a file that all machines have, pinned to the pool barn:desk
barn-own     in the models_dir of barn
notes        in a package that all machines have; the rule of the app `notebook`, which asks for it, pins it to cellar
cellar-own   in the models_dir of cellar
"""

from pathlib import Path

from llama_orch.v2 import assignment_pb2
from support.machines import DESK, Machines, wait_for
from support.whole_system import gguf

MACHINES = ("attic", "barn", "cellar")
OWN = {name: f"{name}-own" for name in MACHINES}
MODELS = ("coder", "attic-own", "writer", "barn-own", "notes", "cellar-own")
APP = "notebook"
MODELS_OF_APP = frozenset({"notes"})
PIN = assignment_pb2.ASSIGNMENT_MODE_PIN
_PACKAGE = "models_of_a_package"


def write_files(folder: Path) -> None:
    """What lies on the machines before they start. `folder` is that of the machines."""
    for name, model in OWN.items():
        models_dir = folder / name / "models"
        models_dir.mkdir(parents=True, exist_ok=True)
        gguf(models_dir, f"{model}.gguf")
    package = folder / _PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    gguf(package, "notes.gguf")


async def register(running: Machines) -> str:
    """The key of the app."""
    shared = running.folder / "shared"
    shared.mkdir()
    async with running.client() as client:
        for model in ("coder", "writer"):
            await client.register_model(model, f"file:{gguf(shared, f'{model}.gguf')}")
        await client.register_model("notes", f"pkg:{_PACKAGE}/notes.gguf")
        _, key = await client.create_app(APP)
        await client.assign(["attic"], PIN, model="coder")
        await client.assign([f"barn:{DESK}"], PIN, model="writer")
        await client.assign(["cellar"], PIN, model="notes", app=APP)

        async def all_known() -> bool:
            return set(MODELS) <= {model.spec.name for model in await client.models()}

        await wait_for(all_known, "the models of all machines")
    return key
