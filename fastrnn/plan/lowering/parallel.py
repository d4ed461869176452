"""What runs at once when a plan may use several threads. Nothing here changes a bit: a part computes the chains it would compute alone.

Of one layer, the batch is split (rows; no thread waits for another), or else its hidden units are (units; one barrier a step); the two directions
of a layer run at once, and so do layers that read one another's output, a few steps apart (a wavefront). Small work stays on one thread.

The constants were measured on two cores of a Zen 4 (benchmarks/suites/bench_threads.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastrnn.model.sizes import Whole, largest, less, smallest, value_of
from fastrnn.plan import policy
from fastrnn.plan.lowering.memory import View
from fastrnn.plan.program import KernelStep, Step
from fastrnn.plan.weights.packed import Packed

# Workers that runtime/executor/threads.h has at most, their caller included; each part of a call takes work space.
MOST_THREADS = 64
# Waking a sleeping thread takes up to 50 us: what is to be split takes longer than this alone.
WORTH_NS = 60_000.0
# A barrier takes 0.2 to 0.4 us: a step that is split takes longer than this alone.
STEP_WORTH_NS = 3_000.0
# A part of a batch with fewer rows than this leaves multipliers idle, as one thread would not.
LEAST_ROWS = 4
# Steps projected at once by layers in a wavefront: the next layer starts so many steps later.
WAVE_CHUNK = 8


@dataclass(frozen=True)
class Share:
    """How a layer is computed: so many directions at once, the rows of each in `rows` parts, or its units in `units`; why."""

    directions: int = 1
    rows: int = 1
    units: int = 1
    why: str = ""

    def row_ranges(self, B: Whole) -> list[tuple[Whole, Whole]]:
        """(first, count) of each part of B rows, as native/arrays/ops.h deals them out."""
        return even_parts(B, self.rows)


def even_parts(n: Whole, parts: int) -> list[tuple[Whole, Whole]]:
    """(first, count) of each part, the larger ones first."""
    each, more = divmod(n, parts)
    return [(part * each + smallest(part, more), each + less(part, more)) for part in range(parts)]


def share_of_layer(threads: int, packed: Sequence[Packed], T: Whole, B: Whole) -> Share:
    """How a layer of T steps and B rows is split over at most so many threads."""
    if threads == 1:
        return Share()
    kernel = packed[0].kernel
    step_ns = policy.estimate_ns(B * (2 * packed[0].multiplies), packed[0].weight_bytes)
    if step_ns * T < WORTH_NS:
        return Share(why=f"one thread: {value_of(step_ns * T) / 1e3:.0f} us of work")
    directions = min(len(packed), threads)
    each, said = threads // directions, "directions at once; " if directions > 1 else ""
    rows = int(min(each, B // LEAST_ROWS))
    parts = kernel is not None and kernel.backend == "native"  # other backends' kernels compute no parts
    if rows > 1 and (rows == each or not parts):
        return Share(directions, rows, 1, f"{said}rows on {rows} threads")
    units = min(each, -(-packed[0].units // kernel.lanes)) if parts else 1  # a block of units is not divided
    if units > 1 and step_ns >= STEP_WORTH_NS:
        return Share(directions, 1, units, f"{said}units on {units} threads")
    return Share(
        directions,
        max(rows, 1),
        1,
        f"{said}rows on {rows} threads" if rows > 1 else said.rstrip("; ") or f"one thread: {value_of(step_ns) / 1e3:.1f} us a step",
    )


def row_parts(threads: int, flops: Whole, T: Whole, B: Whole, whole: bool = False, squares: bool = False) -> list[tuple[Whole, Whole, Whole, Whole]]:
    """(first t, count, first b, count) of each part of a grid of rows that meet no one: what a matrix product may be split into. whole: not along b. squares: only between
    every second t and b."""
    if squares:
        halves = row_parts(threads, flops, (T + 1) // 2, (B + 1) // 2, whole)
        whole_grid = len(halves) == 1  # whose odd ends need no division
        return (
            [(0, T, 0, B)]
            if whole_grid
            else [(2 * t, smallest(2 * n_t, T - 2 * t), 2 * b, smallest(2 * n_b, B - 2 * b)) for t, n_t, b, n_b in halves]
        )
    if threads == 1 or flops < WORTH_NS * policy.FLOPS_PER_NS or whole and T < threads:
        return [(0, T, 0, B)]
    if T >= threads:
        return [(first, count, 0, B) for first, count in even_parts(T, threads)]
    parts = int(max(1, min(threads, B // LEAST_ROWS)))
    return [(0, T, first, count) for first, count in even_parts(B, parts)]


def at_once(steps: Sequence[Step]) -> list[Step]:
    """The calls of one node that read nothing of one another, marked to run at once."""
    first, *rest = steps
    return [replace(first, together=len(steps)), *rest] if rest and isinstance(first, KernelStep) else list(steps)


def wavefronts(steps: Sequence[Step | None], worth: Sequence[Whole]) -> list[Step | None]:
    """Layers in a row, each the only reader in step with the one before, marked to run at once. worth: nanoseconds of each call."""
    result, k = list(steps), 0
    while k < len(result):
        end = k + 1
        while end < len(result) and min(worth[k], worth[end]) >= WORTH_NS and _follows(result[end - 1], result[end]):
            if any(_overlap(result[j], made, result[end], read) for j in range(k, end) for made in ("y", "hn", "cn") for read in ("h0", "c0")):
                break
            end += 1
        if end - k > 1:
            for j in range(k, end):
                args = result[j].args.copy()
                args["chunk"] = smallest(args["chunk"], WAVE_CHUNK)
                result[j] = replace(result[j], args=args, together=end - k if j == k else 0, follows=j > k)
        k = end
    return result


def _follows(before: Step | None, step: Step | None) -> bool:
    """Whether a call reads step by step what the call before it writes, and both go forward, undivided, in kernels that count their steps."""
    calls = [s for s in (before, step) if isinstance(s, KernelStep) and s.kernel.backend == "native" and "w_h" in s.pointers]
    if len(calls) < 2 or any(s.together or s.args["parts"] > 1 or s.args["reverse"] or s.args["T"] <= WAVE_CHUNK for s in calls):
        return False
    y, x, a, b = before.pointers["y"], step.pointers["x"], before.args, step.args
    same_rows = a["T"] == b["T"] and a["B"] == b["B"] and a["y_t"] == b["x_t"] and (a["B"] == 1 or a["y_b"] == b["x_b"]) and a["P"] == b["I"]
    same_lengths = _start(before.pointers.get("lengths")) == _start(step.pointers.get("lengths"))
    return bool(_start(y) == _start(x) and same_rows and same_lengths)


def _start(view: View | None) -> tuple | None:
    return None if view is None else (view.space, view.index, id(view.array), view.offset)


def _overlap(before: KernelStep, made: str, step: KernelStep, read: str) -> bool:
    """Whether what one call leaves lies where another finds its initial state."""
    a, b = before.pointers.get(made), step.pointers.get(read)
    if a is None or b is None or (a.space, a.index, id(a.array)) != (b.space, b.index, id(b.array)):
        return False
    (a_first, a_end), (b_first, b_end) = _extent(before, made), _extent(step, read)
    return a_first < b_end and b_first < a_end


def _extent(step: KernelStep, field: str) -> tuple[int, int]:
    """Where the memory of a call's y, or of one of its states, begins and ends."""
    args, offset = step.args, step.pointers[field].offset
    ways = [largest(args["B"] - 1, 0) * args[f"{field}_b"], largest(args["T"] - 1, 0) * args["y_t"] if field == "y" else 0]
    row = args["H" if field in ("c0", "cn") else "P"]
    return offset + 4 * sum(min(way, 0) for way in ways), offset + 4 * (sum(max(way, 0) for way in ways) + row)


def describe(steps: Sequence[Step]) -> list[str]:
    """A line for each group of calls that run at once, or call in parts: which, and on how many threads."""
    lines, k = [], 0
    while k < len(steps):
        step = steps[k]
        if not isinstance(step, KernelStep) or not (step.together or step.args["parts"] > 1):
            k += 1
            continue
        group = [s for s in steps[k : k + max(step.together, 1)] if isinstance(s, KernelStep)]
        threads = sum(max(int(s.args["parts"]), 1) for s in group)
        wave = "one following the other, step by step" if any(s.follows for s in group) else "at once" if len(group) > 1 else "in parts"
        lines.append(f"{threads} threads: {', '.join(dict.fromkeys(s.node for s in group))} {wave}")
        k += len(group)
    return lines
