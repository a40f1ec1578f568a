"""`python -m orchestratord.preflight`: whether a start would take the settings and the tables beside them.

`llorch doctor` asks. It takes the orchestrator's own flags, prints nothing and changes nothing; what can't be right is
told as a start tells it, with the same exit code.
"""

import sys
from typing import NoReturn

from llorch import lifeline
from llorch.errors import LlorchError
from llorch.identifiers import new_id
from llorch.settings import load, refuse
from orchestratord.core.brain import Brain
from orchestratord.core.state import BrainConfig
from orchestratord.model_sources import models_of_packages
from orchestratord.settings import OrchestratorSettings
from orchestratord.settings_file import events_of_file


def main() -> NoReturn:
    lifeline.end_with_parent()
    settings = load(OrchestratorSettings, sys.argv[1:])
    try:
        take_tables(settings)
    except LlorchError as error:
        refuse(OrchestratorSettings, error)
    sys.exit(0)


def take_tables(settings: OrchestratorSettings) -> None:
    """As a brain takes them that has nothing stored. Raises leaves of the error tree."""
    brain = Brain(BrainConfig(), new_id)
    if settings.package_models:
        for event in models_of_packages():
            brain.handle(event, 0.0)
    for heading, event_of_file in events_of_file(settings.config):
        with heading:
            brain.handle(event_of_file, 0.0)


if __name__ == "__main__":
    main()
