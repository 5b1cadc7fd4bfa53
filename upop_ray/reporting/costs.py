"""The ledger in a line or two for the terminal."""

from upop_ray.config import Price
from upop_ray.reporting.ledger import PARTS, Hours, Ledger

_NAMES = {
    "start": "start-up",
    "search": "search",
    "retrain": "retraining",
    "evaluate": "evaluation",
    "lost": "lost to failures",
}


def cost_lines(ledger: Ledger, price: Price) -> list[str]:
    """What was spent and on what, and what was saved; nothing where nothing was."""
    lines = []
    if ledger.spent != Hours():
        shown = {_NAMES[part]: ledger.part(part) for part in PARTS} | {"idle": ledger.idle}
        shares = ((name, _share(hours, ledger.spent)) for name, hours in shown.items())
        parts = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005)
        lines.append(f"cost:   {hours_text(ledger.spent, price)}: {parts}")
    if ledger.saved != Hours():
        lines.append(f"saved:  {hours_text(ledger.saved, price)}, for points that were in the store already")
    return lines


def hours_text(hours: Hours, price: Price) -> str:
    """Hours of what there is, and their price where there is one: ``1.5 GPU-hours, 12 CPU-hours, 3.40``."""
    parts = [f"{hours.gpu:.3g} GPU-hours"] if hours.gpu else []
    parts.append(f"{hours.cpu:.3g} CPU-hours")
    if price != Price():
        parts.append(f"{hours.priced(price):.2f} by sweep.price")
    return ", ".join(parts)


def _share(hours: Hours, whole: Hours) -> float:
    """Of the GPUs' time where there are any, else of the CPUs'."""
    return hours.gpu / whole.gpu if whole.gpu else hours.cpu / whole.cpu
