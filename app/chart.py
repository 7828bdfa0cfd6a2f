"""Curves over a run's steps as inline SVG, with a title and a description that a screen reader says."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Curve = Sequence[float | None]  # a value for each step; None = nothing was recorded there

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 44, 34  # around the axes
CURVE_COLORS = ("#0072b2", "#d55e00", "#009e73", "#b0578d")  # told apart by every kind of eye


def line_chart(title: str, curves: Mapping[str, Curve], shaded: int = 0, log: bool = False) -> str:
    """One <svg>: the curves over steps 1, 2, ..., a legend if there are several, the first `shaded` steps in grey.

    log: the values' axis is logarithmic; values that are not above 0 are left out.
    """
    shown = {
        name: [v if v is not None and (v > 0 or not log) else None for v in curve] for name, curve in curves.items()
    }
    values = [value for curve in shown.values() for value in curve if value is not None]
    if not values:
        raise ValueError(f"the chart {title!r} has no value to show")
    steps = max(map(len, curves.values()))
    ticks = log_ticks(min(values), max(values)) if log else linear_ticks(min(values), max(values))
    scale = math.log10 if log else float
    low, high = scale(ticks[0]), scale(ticks[-1])

    def x(step: float) -> float:
        return LEFT + (step - 0.5) / steps * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (scale(value) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f"<title>{escape(title)}</title>", f"<desc>{escape(describe(curves))}</desc>"]
    if shaded:
        parts.append(
            f'<rect x="{x(0.5):.1f}" y="{TOP}" width="{x(min(shaded, steps) + 0.5) - LEFT:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}" fill="#e9ecf0"/>'
        )
    parts.append(_text(LEFT, 14, title, "start", weight=600))
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#d5dae0"/>')
        parts.append(_text(LEFT - 6, y(tick) + 4, f"{tick:g}", "end"))
    for step in sorted({1, *range(5, steps, 5 * math.ceil(steps / 50)), steps}):
        if step == steps or steps - step >= steps / 12:
            parts.append(_text(x(step), HEIGHT - BOTTOM + 16, str(step), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "DDIM step", "middle"))
    for number, curve in enumerate(shown.values()):
        color = CURVE_COLORS[number % len(CURVE_COLORS)]
        points = [(x(step), y(value)) for step, value in enumerate(curve, 1) if value is not None]
        parts.append(f'<path d="{_path(curve, x, y)}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{color}"/>' for a, b in points]
    if len(curves) > 1:
        parts += _legend(list(curves))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n' + "\n".join(parts) + "\n</svg>"


def can_be_drawn(curve: Curve, log: bool = False) -> bool:
    """Whether a curve has any value that the axis can show."""
    return any(value is not None and (value > 0 or not log) for value in curve)


def linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from at or below `low` to at or above `high`."""
    if high == low:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    unit = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / unit + 1e-9), math.ceil(high / unit - 1e-9)
    return [float(f"{i * unit:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from at or below `low` to at or above `high`, at least two."""
    first = math.floor(math.log10(low))
    last = max(math.ceil(math.log10(high)), first + 1)
    return [float(f"1e{i}") for i in range(first, last + 1)]


def describe(curves: Mapping[str, Curve]) -> str:
    """Where each curve begins and ends, in words."""
    sentences = []
    for name, curve in curves.items():
        known = [(step, value) for step, value in enumerate(curve, 1) if value is not None]
        if known:
            (first, a), (last, b) = known[0], known[-1]
            sentences.append(f"{name}: {a:.3g} at step {first}, {b:.3g} at step {last}.")
    return " ".join(sentences)


def _path(curve: Curve, x, y) -> str:
    """A line through the values; it is broken where there is none."""
    commands, pen = [], "M"
    for step, value in enumerate(curve, 1):
        if value is None:
            pen = "M"
        else:
            commands.append(f"{pen}{x(step):.1f} {y(value):.1f}")
            pen = "L"
    return "".join(commands)


def _legend(names: Sequence[str]) -> list[str]:
    parts, left = [], float(LEFT)
    for number, name in enumerate(names):
        color = CURVE_COLORS[number % len(CURVE_COLORS)]
        parts.append(f'<rect x="{left:.0f}" y="26" width="12" height="4" fill="{color}"/>')
        parts.append(_text(left + 17, 32, name, "start"))
        left += 17 + 7 * len(name) + 16
    return parts


def _text(x: float, y: float, words: str, anchor: str, weight: int = 400) -> str:
    style = f'font-size="13" font-weight="{weight}" fill="#1f2328" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
