"""Sunspots a year ahead, and years ahead on its own predictions: small GRUs beside autoregression.

    python examples/forecast/run.py [--quick] [--out FOLDER]          # half a minute; needs fastrnn[examples]

Data: yearly sunspot numbers 1700 to 2008 (US National Geophysical Data Center, as statsmodels ships them). Trained on the years to 1920, a tenth
of the runs of 80 years among them kept for early stopping. Prints squared errors as a share of the variance, and writes forecast.svg.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from statsmodels.datasets import sunspots

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.cli import plot

FIRST, TRAINED = 1700, 1920  # the first year, and the last that is trained on
PERIODS = ((1921, 1955), (1956, 1979), (1980, 2008))
HIDDEN, WINDOW, MEMBERS, ORDER = 16, 80, 5, 9


def series() -> tuple[np.ndarray, float, float]:
    """The numbers as float32, their mean and deviation over the trained years taken out, and these."""
    numbers = sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()
    known = numbers[: TRAINED - FIRST + 1]
    return ((numbers - known.mean()) / known.std()).astype(np.float32), known.mean(), known.std()


def fit(x: np.ndarray, seed: int, epochs: int) -> tr.Sequential:
    """Predicts each year's change from the years before, over windows of the trained part."""
    windows = np.lib.stride_tricks.sliding_window_view(x[: TRAINED - FIRST + 1], WINDOW + 1)[::2].T[:, :, None]
    windows = windows[:, np.random.default_rng(seed).permutation(windows.shape[1])].copy()
    data, kept = (windows[:-1], np.diff(windows, axis=0)), windows.shape[1] // 10
    net = tr.Sequential(tr.GRU(1, HIDDEN), tr.Linear(HIDDEN, 1), seed=seed)
    optimiser = tr.AdamW(net, lr=1e-2, weight_decay=1e-1)
    train, valid = tuple(a[:, kept:] for a in data), tuple(a[:, :kept] for a in data)
    tr.fit(net, tr.mean_squared_error, train, valid, optimiser=optimiser, epochs=epochs, batch_size=16, clip_norm=1.0, patience=15, seed=seed)
    return net


def ahead(nets: list[tr.Sequential], x: np.ndarray) -> np.ndarray:
    """Each year but the first predicted from all years before, the mean of several nets; streamed a year at a time, as years come."""
    streams = [fr.compile(net.to_model()).stream() for net in nets]
    return np.array([value + np.mean([stream.step(value.reshape(1, 1)) for stream in streams]) for value in x[:-1]])


def on_its_own(nets: list[tr.Sequential], x: np.ndarray, years: int) -> np.ndarray:
    """The years after x, each predicted from the predictions before it."""
    streams = [fr.compile(net.to_model()).stream() for net in nets]
    changes, found, value = [stream.push(x[:, None, None])[-1] for stream in streams], [], x[-1]
    for _ in range(years):
        value = np.float32(value + np.mean(changes))
        found.append(value)
        changes = [stream.step(value.reshape(1, 1)) for stream in streams]
    return np.array(found)


def autoregression(x: np.ndarray) -> np.ndarray:
    """Each year from a constant and the ORDER years before, by least squares over the trained years; from year ORDER on."""
    past = np.column_stack([np.ones(len(x) - ORDER), *(x[k : len(x) - ORDER + k] for k in range(ORDER))])
    return past @ np.linalg.lstsq(past[: TRAINED - FIRST + 1 - ORDER], x[ORDER : TRAINED - FIRST + 1], rcond=None)[0]


def main() -> None:
    """Fits, forecasts, compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one net, two epochs: whether it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the plot goes")
    given = parser.parse_args()
    x, mean, deviation = series()
    nets = [fit(x, seed, 2 if given.quick else 100) for seed in range(1 if given.quick else MEMBERS)]
    expected = ahead(nets, x)
    predictions = {"the year before": x[:-1], f"autoregression, {ORDER} years": autoregression(x), f"GRU, the mean of {len(nets)}": expected}
    shown = Table("squared error / variance", *(f"{a} to {b}" for a, b in PERIODS), title="a year ahead")
    for name, found in predictions.items():
        errors = np.concatenate([np.full(len(x) - len(found), np.nan), found]) - x
        shown.add_row(name, *(f"{np.mean(errors[a - FIRST : b - FIRST + 1] ** 2) / x.var():.3f}" for a, b in PERIODS))
    Console().print(shown)
    years, start = np.arange(FIRST, FIRST + len(x)), TRAINED - FIRST + 1
    figure, axes = plot.pyplot().subplots(figsize=(8, 3))
    axes.plot(years[120:], x[120:] * deviation + mean, color="black", linewidth=1, label="observed")
    axes.plot(years[start:], expected[start - 1 :] * deviation + mean, color="#0072b2", linewidth=1, label="a year ahead")
    for begin in range(start, len(x) - 11, 22):
        free = np.append(x[begin - 1], on_its_own(nets, x[:begin], 11)) * deviation + mean
        axes.plot(years[begin - 1 : begin + 11], free, color="#e69f00", label="eleven years on its own" if begin == start else None)
    axes.set(ylabel="sunspot number")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    given.out.mkdir(parents=True, exist_ok=True)
    plot.save(figure, given.out / "forecast.svg")


if __name__ == "__main__":
    main()
