"""The learning rate over a run, as a share of its highest value."""

from __future__ import annotations

import math

from lookonce.training.recipes import Settings


def rate(step: int, steps: int, settings: Settings) -> float:
    """Share of the highest learning rate at a step of `steps`, 0 < share <= 1.

    constant, steps and cosine climb during burn_in steps with the fourth power, as Darknet's burn_in
    does; one_cycle climbs linearly for the first tenth and falls as a cosine to a hundredth.
    A run shorter than its burn-in would never arrive, so burn-in takes a tenth of the run at most.
    Source: darknet/src/network.c, get_current_rate (power 4).
    """
    done = min((step + 1) / max(steps, 1), 1.0)
    if settings.schedule == "one_cycle":
        return done / 0.1 if done < 0.1 else 0.01 + 0.99 * _fall((done - 0.1) / 0.9)
    burn_in = min(settings.burn_in, steps // 10)
    if step < burn_in:
        return float(((step + 1) / burn_in) ** 4)
    match settings.schedule:
        case "steps":
            return float(0.1 ** sum(done > milestone for milestone in settings.milestones))
        case "cosine":
            return 0.01 + 0.99 * _fall((step - burn_in) / max(steps - burn_in, 1))
        case _:
            return 1.0


def _fall(share: float) -> float:
    """Half a cosine from 1 to 0."""
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2
