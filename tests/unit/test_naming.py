"""The ten-second rule: whoever sees a command or an event finds its code by name alone."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from messages import catalog
from messages.struct import Command, kebab

# An actor's handlers and the commands that it must answer, exactly.
ACTORS = {"ipam_actor.handlers": catalog.IpamCommand}


def handlers_of(module_name: str) -> Mapping[type[Command], Callable[..., Any]]:
    handlers: Mapping[type[Command], Callable[..., Any]] = importlib.import_module(module_name).HANDLERS
    return handlers


@pytest.mark.parametrize("module_name", ACTORS)
def test_an_actor_answers_its_commands_and_no_others(module_name: str) -> None:
    assert set(handlers_of(module_name)) == set(ACTORS[module_name].__args__)


@pytest.mark.parametrize("module_name", ACTORS)
def test_a_handler_is_named_as_its_command(module_name: str) -> None:
    named = {command.__name__: handler.__name__ for command, handler in handlers_of(module_name).items()}
    assert named == {name: kebab(name).replace("-", "_") for name in named}


@pytest.mark.parametrize("module_name", ACTORS)
def test_a_handler_that_refuses_says_with_which_codes(module_name: str) -> None:
    silent = [handler.__name__ for handler in handlers_of(module_name).values() if not handler.__doc__]
    assert silent == []


def test_a_commands_type_is_its_place_on_the_bus_and_its_class() -> None:
    for name, command in {**catalog.COMMANDS, **catalog.QUESTIONS}.items():
        construct, verb = catalog.construct_and_verb(name)
        assert catalog.command_type(construct, verb) == name == kebab(command.__name__)


def test_commands_are_imperative_and_events_in_the_past_tense() -> None:
    past = re.compile(r"(ed|Bound|Unbound|Taken|Waiting)$")
    assert [event.__name__ for event in catalog.EVENTS.values() if not past.search(event.__name__)] == []
    assert [command.__name__ for command in catalog.COMMANDS.values() if past.search(command.__name__)] == []


def test_a_message_is_defined_in_the_file_of_its_construct() -> None:
    files = {command: command.__module__.rpartition(".")[2] for command in catalog.COMMANDS.values()}
    assert {
        kind.__name__: file
        for kind, file in files.items()
        if catalog.construct_and_verb(kebab(kind.__name__))[0] != file
    } == {}
