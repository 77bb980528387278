"""figures.py - what the benchmark programs share: numbers as text, and the time of processes."""

import math
import pathlib
import statistics


def number(x):
    return f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


def spread(values):
    """The median, and the range if there is one."""
    if not values:
        return "-"
    text = number(statistics.median(values))
    return text + (f" [{number(min(values))}-{number(max(values))}]" if len(values) > 1 else "")


def mean(values):
    """The geometric mean."""
    return math.exp(statistics.fmean(math.log(v) for v in values))


def family(pid):
    """A process and its descendants."""
    yield pid
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def cpu_seconds(pid):
    """Processor time of a process and its descendants so far."""
    nanoseconds = 0
    for member in family(pid):
        for stat in pathlib.Path(f"/proc/{member}/task").glob("*/schedstat"):
            try:
                nanoseconds += int(stat.read_text().split()[0])
            except OSError:
                pass  # the thread has just ended
    return nanoseconds * 1e-9


def markdown(rows):
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def columns(rows):
    """The same as text: the first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) if n else cell.ljust(width)
                               for n, (cell, width) in enumerate(zip(row, widths))).rstrip()
                     for row in rows)
