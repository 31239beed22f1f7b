"""Steps of a conversation: each is announced when it has passed, the first failure ends it."""

import os
import sys
import time
import traceback
from urllib.parse import urlsplit

# The longest that any one answer may take, in seconds.
PATIENCE = 20


class Wrong(Exception):
    """An answer that is not the one that must come."""


def same(what, came, wanted):
    if came != wanted:
        raise Wrong(f"{what} is {came!r}, not {wanted!r}")


def holds(what, condition):
    if not condition:
        raise Wrong(f"{what} does not hold")


def refused(kind, text, call):
    """The call ends with an exception of that kind whose text contains `text`."""
    try:
        call()
    except kind as error:
        words = text_of(error)
        holds(f"{text!r} in {words!r}", text in words)
        return error
    raise Wrong(f"{text!r} was expected, and nothing was refused")


def text_of(error):
    details = getattr(error, "details", None)
    if callable(details):
        return details()
    return f"{error} {getattr(error, 'detail_text', '')}"


def await_until(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Wrong(f"waited in vain until {what}")
        time.sleep(0.02)


def address():
    """Host and port of the URL on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: one URL")
    parts = urlsplit(sys.argv[1])
    return parts.hostname, parts.port


class Steps:
    """A list of functions in the order of their definition."""

    def __init__(self):
        self.steps = []

    def __call__(self, function):
        self.steps.append(function)
        return function

    def run(self, *words):
        for step in self.steps:
            try:
                step(*words)
            except Exception as error:
                fail(step, error)
            passed(step)

    async def run_async(self, *words):
        for step in self.steps:
            try:
                await step(*words)
            except Exception as error:
                fail(step, error)
            passed(step)


def passed(step):
    print("ok", name_of(step), flush=True)


def fail(step, error):
    if not isinstance(error, Wrong):
        traceback.print_exception(error)
    print(f"FAILED {name_of(step)}: {type(error).__name__}: {error}", flush=True)
    sys.stderr.flush()
    # Threads of a client that still wait must not keep the program.
    os._exit(1)


def name_of(step):
    return step.__name__.replace("_", " ").strip()
