"""Waits for conditions."""

import time

# How often a condition is looked at; it takes no part in what a test finds.
LOOK_EVERY_S = 0.05

CEILING_S = 120


def until(condition, what, ceiling_s=CEILING_S):
    """Returns the first true value of `condition()`; fails after the ceiling."""
    end = time.monotonic() + ceiling_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(LOOK_EVERY_S)
    raise AssertionError(f"after {ceiling_s} s still not: {what}")
