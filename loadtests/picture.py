"""The drop as a picture: how many units each design had promised at each moment, and how long buyers waited."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display on a server

from matplotlib import pyplot

from loadtests.tally import Answer, Tally, promised_over_time

_COLOURS = ("#0b6e4f", "#c8553d", "#588b8b", "#8d6a9f")


def draw_drop(path: Path, designs: list[tuple[str, list[Answer], Tally]], units: int) -> None:
    """Write an SVG (or PNG, by the name's ending)."""
    figure, (promised, waited) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for (name, answers, counted), colour in zip(designs, _COLOURS, strict=False):
        began = min((answer.sent for answer in answers), default=0.0)
        steps = promised_over_time(answers)
        label = f"{name} ({counted.oversold_units} oversold)"
        promised.step([at - began for at, _ in steps], [n for _, n in steps], where="post", label=label, color=colour)
        delays = sorted((a.answered - a.sent) * 1e3 for a in answers if a.verb == "hold" and a.status in (201, 409))
        shares = [(rank + 1) / len(delays) for rank in range(len(delays))]
        waited.plot(delays, shares, label=f"{name} (p99 {counted.p99_ms:.0f} ms)", color=colour)
    promised.axhline(units, color="black", linewidth=0.8, linestyle="--", label=f"{units} units there are")
    promised.set(title="Units promised to buyers", xlabel="seconds into the drop", ylabel="units held or sold")
    waited.set(title="Answered within", xlabel="ms (log)", ylabel="share of requests to hold", xscale="log")
    for axes in (promised, waited):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path)
    pyplot.close(figure)
