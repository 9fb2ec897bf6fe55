"""Colours of experts and of amounts, as CSS: each with a light and a dark form, on both of which text is readable."""

from __future__ import annotations

# Apart from each other for every kind of colour vision: distances of at least 0.08 in OKLab, also where simulated
# without red, green or blue cones. Black is readable on the light forms, white on the dark ones. In an order in which
# neighbours differ most.
EIGHT = (
    *(("#7598ff", "#45339b"), ("#ed7940", "#aa5b1c"), ("#acf5ea", "#106457"), ("#f1f47a", "#5c5002")),
    *(("#bf8db4", "#8d4f8d"), ("#a4c39c", "#677863"), ("#0ccffd", "#013b3f"), ("#fcb638", "#472f00")),
)
GOLDEN_ANGLE = 137.508  # puts each hue in the widest gap between those before it
LEVELS = 7  # of amounts


def colors_of(num_experts: int) -> tuple[tuple[str, str], ...]:
    """For each expert its colour on a light and on a dark page."""
    return EIGHT if num_experts <= len(EIGHT) else tuple(map(_generated, range(num_experts)))


def _generated(expert: int) -> tuple[str, str]:
    """Hues by the golden angle, in turn at three lightnesses."""
    hue, step = expert * GOLDEN_ANGLE % 360, expert % 3
    return f"oklch({0.74 + 0.09 * step:.2f} 0.12 {hue:.0f})", f"oklch({0.34 + 0.09 * step:.2f} 0.1 {hue:.0f})"


def _level(level: int) -> tuple[str, str]:
    """From little to much: away from the page's own lightness, from yellow to blue."""
    hue = 100 + 165 * level / (LEVELS - 1)
    light = (0.96, 0.89, 0.82, 0.75, 0.55, 0.46, 0.37)[level]
    dark = (0.28, 0.35, 0.42, 0.49, 0.56, 0.76, 0.88)[level]
    return f"oklch({light} {0.06 + 0.012 * level:.3f} {hue:.0f})", f"oklch({dark} 0.09 {365 - hue:.0f})"


def css_of(num_experts: int) -> str:
    """Classes for text: e0, e1, … of experts, s0, … of amounts. For what is filled: f0, f1, …, and again s0, …; for the
    numbers of experts, in an element of class ``numbered``: again e0, e1, …
    """
    rules = []
    for expert, (light, dark) in zip(range(num_experts), colors_of(num_experts), strict=False):
        color = f"light-dark({light}, {dark})"
        rules.append(f".e{expert} {{ background-color: {color}; }} .f{expert} {{ fill: {color}; }}")
        rules.append(f'.numbered .e{expert}::before {{ content: "{expert}"; }}')
        rules.append(f'.numbered .e{expert}.nl::before {{ content: "{expert}↵"; }}')
    for level in range(LEVELS):
        light, dark = _level(level)
        text = f"light-dark({'#000' if level < 4 else '#fff'}, {'#fff' if level < 5 else '#000'})"
        color = f"light-dark({light}, {dark})"
        rules.append(f".s{level} {{ background-color: {color}; fill: {color}; color: {text}; }}")
    return "\n".join(rules)
