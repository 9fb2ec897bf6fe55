"""How routing developed while the run trained: density and λ, load, entropy, decisions that changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vmoe.report.metrics import METRICS, Metrics, Moment, Served
from vmoe.report.plots import curves, dynamics, load_over_time, stability
from vmoe.report.run_files import RunFiles

from .blocks import Absent, Block, ByLayer, Plot, Shown, Words
from .reasons import why
from .series import Service, last_line, mean_line, service
from .training import STEP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAME_DENSITY = 0.002  # how far it is apart at most where all tokens activate as many experts
LEAST_SPAN = 0.02  # of entropies and densities that an axis shows
MOST_LAYERS = 12  # lines of one figure
DENSITY, ENTROPY, LEAST = "routing.density", "routing.entropy", "routing.entropy_min"
ADAPTED = "balance_coefficient"  # λ
NO_COUNTS = "its log has no counts by layer, which vmoe train writes unless train.routing_every is null."
Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def density(files: RunFiles, history: History) -> list[Block]:
    """Of the training lines, or of evaluations where only those count the routing."""
    metrics = files.metrics or Metrics()
    moments = _having(metrics.train, DENSITY) or _having(metrics.evaluations, DENSITY)
    if not moments:
        return [Absent(f"No density over training: {why(files, METRICS)}")]
    values = [moment.values[DENSITY] for moment in moments]
    adapts = all(ADAPTED in moment.values for moment in moments)
    if max(values) - min(values) < SAME_DENSITY and not adapts:
        told = (
            f"Density, the active pairs of token and expert over all pairs, is {values[-1]:.3f} all through training."
        )
        return [Words(told)]
    return [_dynamics(files, moments, adapts=adapts), *([_density_by_layer(history)] if history.layers else [])]


def _density_by_layer(history: History) -> Block:
    lines = history.lines(lambda served: served.density)
    return Plot(
        "density_by_layer",
        "Density of each layer",
        lambda: spanning(curves(lines, xlabel=STEP, ylabel="density ρ")),
        f"Active pairs over all pairs, layer by layer. {history.basis}{chosen(lines, history.layers)}",
    )


def _dynamics(files: RunFiles, moments: list[Moment], *, adapts: bool) -> Block:
    dense, even = mean_line(moments, DENSITY), mean_line(moments, ENTROPY)
    strength = last_line(moments, ADAPTED).values if adapts else None
    entropy = even.values if len(even.steps) == len(dense.steps) else None
    target = target_density(files)
    words = ["ρ: active pairs of token and expert over all pairs, mean over the MoE layers."]
    if adapts:
        words.append(
            "λ: the coefficient of the balance loss, which grows while ρ is above its target and shrinks while it is "
            "below. Where λ still climbs at the end, ρ has not settled."
        )
    if target is not None:
        words.append(f"The target is that of the config, {target:.3g}.")
    if entropy is not None:
        words.append("Entropy: that of the load over ln E, mean over the layers; 1 is even.")
    return Plot(
        "dynamics",
        "Density, and the λ that steers it" if adapts else "Density",
        lambda: dynamics(dense.steps, dense.values, strength, target_density=target, entropy=entropy),
        " ".join(words),
    )


def target_density(files: RunFiles) -> float | None:
    """The density that the config's gate aims at: its own target, or k of E experts."""
    if files.config is None:
        return None
    own = files.config.value("moe", "gate", "target_density")
    k, experts = files.config.value("moe", "gate", "k"), files.config.value("moe", "num_experts")
    if _is_number(own):
        return float(own)
    return k / experts if _is_number(k) and _is_number(experts) and 0 < k <= experts else None


def entropy(files: RunFiles, history: History) -> Block:
    """Entropy of each layer's load over training, above the least there can be."""
    metrics = files.metrics or Metrics()
    least = mean_line(_having(metrics.train, LEAST) or _having(metrics.evaluations, LEAST), LEAST)
    bounds = {"least possible, mean": (least.steps, least.values)} if least.steps else {}
    return _entropy_by_layer(history, bounds) if history.layers else _mean_entropy(files, metrics, bounds)


def _entropy_by_layer(history: History, bounds: Lines) -> Block:
    lines = history.lines(lambda served: served.entropy)
    return Plot(
        "entropy_over_time",
        "Routing entropy of each layer",
        lambda: spanning(curves({**lines, **bounds}, xlabel=STEP, ylabel="entropy of the load")),
        "Entropy of each layer's load over ln E: 1 is perfectly even. The least possible at the density, ln k / ln E "
        f"with k experts a token, has all tokens at the same experts. {history.basis}{chosen(lines, history.layers)}",
    )


def _mean_entropy(files: RunFiles, metrics: Metrics, bounds: Lines) -> Block:
    """Where the log has no counts by layer."""
    line = mean_line(_having(metrics.evaluations, ENTROPY) or _having(metrics.train, ENTROPY), ENTROPY)
    if not line.steps:
        return Absent(f"No entropy over training: {why(files, METRICS)}")
    return Plot(
        "entropy_over_time",
        "Routing entropy",
        lambda: curves(
            {"mean over layers": (line.steps, line.values), **bounds}, xlabel=STEP, ylabel="entropy of the load"
        ),
        f"Entropy of the load over ln E, mean over the MoE layers: 1 is perfectly even. Layer by layer: {NO_COUNTS}",
    )


def load(files: RunFiles, history: History) -> Block:
    """Which expert served how much, step by step, a heat map a layer."""
    if not history.layers:
        reason = why(files, METRICS) if files.metrics is None else NO_COUNTS
        return Absent(f"No load over training: {reason}")
    caption = (
        "Share of the layer's active pairs that each expert takes, over training; a column sums to 100 %. The bar "
        "marks the fair share 1/E. A dark row is an expert that starves, a bright one takes the work of others. "
        f"Rows of one colour from some step on are a load that has settled. {history.basis}"
    )
    shown = [
        Shown(layer, partial(load_over_time, [served.load for served in one.served], one.steps))
        for layer, one in history.layers.items()
    ]
    return ByLayer("load_over_time", "Load of each expert", shown, caption)


def changes(files: RunFiles) -> Block:
    """How far decisions still changed."""
    metrics = files.metrics or Metrics()
    moments = [moment for moment in metrics.evaluations if moment.changed]
    names = list(dict.fromkeys(name for moment in moments for name in moment.changed))
    if not moments:
        reason = (
            why(files, METRICS)
            if files.metrics is None
            else ("the log does not say it; that takes two evaluations, and train.probe_samples above 0 in the config.")
        )
        return Absent(f"No changes of decisions: {reason}")
    shares = {
        name: [moment.changed.get(name, float("nan")) for moment in moments] for name in evenly(names, MOST_LAYERS)
    }
    caption = (
        "Share of the tokens of a fixed sample (the probe) whose set of active experts is another one than at the "
        "evaluation before. Falling to 0: routing has settled. Staying high: experts keep getting other tokens to "
        f"learn from.{chosen(shares, names)}"
    )
    steps = [float(moment.step) for moment in moments]
    return Plot("stability", "Tokens whose experts changed", lambda: stability(steps, shares), caption)


@dataclass(frozen=True)
class History:
    """What each layer's experts served over training, by its name; basis: of what that was counted, a sentence."""

    layers: Mapping[str, Service]
    basis: str

    @classmethod
    def of(cls, metrics: Metrics) -> History:
        """By the training lines, or where these do not say it, by the evaluations."""
        found, moments = _services(metrics.train), [moment for moment in metrics.train if moment.layers]
        if not found:
            found, moments = _services(metrics.evaluations), [one for one in metrics.evaluations if one.layers]
            return cls(found, f"Counted in {len(moments):,} evaluations.")
        one = next(iter(found.values()))
        tokens = sum(served.tokens for served in one.served)
        each = f", up to {one.moments} of them a point" if one.moments > 1 else ""
        return cls(found, f"Counted in training: {tokens:,} tokens a layer, {len(moments):,} lines of the log{each}.")

    def lines(self, figure: Callable[[Served], float]) -> dict[str, tuple[list[float], list[float]]]:
        """A figure of the layers, of at most `MOST_LAYERS`, as `curves` takes it."""
        chosen = {name: self.layers[name] for name in evenly(list(self.layers), MOST_LAYERS)}
        return {name: (one.steps, [figure(served) for served in one.served]) for name, one in chosen.items()}


def _services(moments: Sequence[Moment]) -> dict[str, Service]:
    names = dict.fromkeys(name for moment in moments for name in moment.layers)
    return {name: service(moments, name) for name in names}


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of them, the first and the last among them."""
    if len(names) <= most:
        return list(names)
    return [names[round(number * (len(names) - 1) / (most - 1))] for number in range(most)]


def spanning(ax: Axes) -> Axes:
    """With a y axis on which noise does not look like a slope."""
    low, high = ax.get_ylim()
    room = max(0.0, LEAST_SPAN - (high - low)) / 2
    ax.set_ylim(low - room, high + room)
    return ax


def chosen(shown: Collection[str], of: Collection[str]) -> str:
    """That not all layers are shown, where that is so."""
    return f" {len(shown)} of {len(of)} layers, evenly chosen." if len(shown) < len(of) else ""


def _having(moments: Sequence[Moment], key: str) -> list[Moment]:
    return [moment for moment in moments if key in moment.values]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
