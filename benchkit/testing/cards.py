"""Checks of every kind of plugin: its card and its options."""

from __future__ import annotations

from benchkit.protocols import API_VERSION, card_of
from benchkit.registry.options import ANY_OPTION, Option, check_options, is_plain
from benchkit.testing.check import require, rule
from benchkit.testing.subject import Subject


@rule("card", likely="give the plugin the decorator benchkit.card with title and summary, or a docstring")
def card(subject: Subject) -> None:
    """A card says what the plugin is: a title and a summary of one line each, for this plugin interface."""
    facts = card_of(subject.plugin)
    for name, text in (("title", facts.title), ("summary", facts.summary)):
        plain = isinstance(text, str) and text.strip() and "\n" not in text.strip()
        require(plain, given=f"the card's {name}", expected="one line of text", got=repr(text))
    require(facts.api == API_VERSION, given="the card's api", expected=str(API_VERSION), got=str(facts.api))
    whole = not facts.url or facts.url.startswith(("https://", "http://"))
    require(whole, given="the card's url", expected="an http or https address, or nothing", got=repr(facts.url))
    names = [option.name for option in subject.known_options]
    unknown = sorted({name for options in facts.ignores.values() for name in options} - {*names})
    expected, got = f"options among {', '.join(names) or 'none'}", ", ".join(unknown)
    require(not unknown, given="the card's ignores", expected=expected, got=got)


@rule("options", likely="the annotation, the default and the card's range of an option contradict one another")
def options(subject: Subject) -> None:
    """Every option has a type that a study file can spell, and its default lies within its own range."""
    for option in subject.known_options:
        if option.name == ANY_OPTION:
            continue
        where = f"the option {option.name!r}"
        require(
            option.type != "any",
            given=where,
            expected="a type annotation of plain data, such as float, int, bool, str or tuple[int, ...]",
            got="no type that a study file can be checked against",
            likely="annotate the parameter, or give it a default of the type it takes",
        )
        _range(option, where)
        if is_plain(option.default) and option.default is not None:
            problems = check_options((option,), {option.name: option.default}, "option")
            given = f"{where} at its default {option.default!r}"
            require(not problems, given=given, expected=option.expected, got="; ".join(problems))


def _range(option: Option, where: str) -> None:
    if option.low is None or option.high is None:
        return
    given = f"the card's range of {where}"
    require(option.low <= option.high, given=given, expected="low <= high", got=f"{option.low:g}..{option.high:g}")
    require(
        not option.log or option.low > 0,
        given=given,
        expected="low > 0, because a search goes over the logarithm",
        got=f"low = {option.low:g} with log = True",
    )


RULES = (card, options)
