"""Steps that a mask leaves out, for recurrent layers: Keras keeps the state there and repeats the last output, or gives 0.

Any mask becomes lengths: steps that are kept move to the front, the layer runs over as many, and each step takes the output of the last kept one up to it.
"""

from __future__ import annotations

from fastrnn.converters.keras_import.site import Site, Tensor


class Kept:
    """What follows from a mask (B, T)."""

    def __init__(self, g: Site, mask: Tensor):
        self.g, self.mask = g, mask
        self._whole = g.emit("Cast", mask, to="int64")
        self.so_far = g.emit("CumSum", self._whole, g.constant(1, "int64"))
        self.lengths = g.reduce("ReduceSum", self._whole, [1])
        self._source: Tensor | None = None

    def packed(self, x: Tensor) -> Tensor:
        """x (B, T, ...) with the kept steps in front, in their order."""
        return self._moved(x, self._sources())

    def _moved(self, x: Tensor, at: Tensor) -> Tensor:
        """Steps of each row of x (B, T, F) by their numbers (B, T): rows of one table."""
        g = self.g
        batch, steps = (g.emit("Slice", g.emit("Shape", self.mask), g.ints(k), g.ints(k + 1), g.ints(0)) for k in (0, 1))
        start = g.emit("CumSum", g.emit("Expand", steps, batch), g.constant(0, "int64"), exclusive=1)
        rows = g.emit("Add", at, g.emit("Unsqueeze", start, g.ints(1)))
        return g.emit("Gather", g.reshape(x, -1, *(g.known(x, k) for k in range(2, x.rank))), rows, axis=0)

    def _sources(self) -> Tensor:
        """Which step stands at each place: kept ones by their number, then the others."""
        if self._source is None:
            g = self.g
            steps = g.emit("Slice", g.emit("Shape", self.mask), g.ints(1), g.ints(2), g.ints(0))
            number = g.emit(
                "Sub",
                g.emit("CumSum", g.emit("ConstantOfShape", g.emit("Shape", self.mask), value=1, dtype="int64"), g.constant(1, "int64")),
                g.constant(1, "int64"),
            )
            late = g.emit("Where", self.mask, number, g.emit("Add", number, steps))
            ordered = g.emit("TopK", late, steps, axis=1, largest=0, sorted=1)
            self._source = g.emit("Where", g.emit("Less", ordered, steps), ordered, g.emit("Sub", ordered, steps))
        return self._source

    def spread(self, y: Tensor, backwards: bool, zeros: bool) -> Tensor:
        """Outputs (B, T, H) of the packed steps at their places; between them that of the step before, in the order in which they were taken, or 0."""
        g = self.g
        if backwards:
            at = g.emit("Sub", self.so_far, self._whole)  # past the last kept step an output is 0 already
        else:
            at = g.emit("Max", g.emit("Sub", self.so_far, g.constant(1, "int64")), g.constant(0, "int64"))
        moved = self._moved(y, at)
        if not zeros and backwards:
            return moved
        shown = self.mask if zeros else g.emit("Greater", self.so_far, g.constant(0, "int64"))
        return g.emit("Where", g.emit("Unsqueeze", shown, g.ints(2)), moved, g.floats(0))

    def last(self, h: Tensor, backwards: bool, zeros: bool) -> Tensor:
        """The output (B, H) of the last step taken, where h is the last state: 0 where none was kept, or where that step was not."""
        g = self.g
        shown = g.take(self.mask, 1, 0 if backwards else -1) if zeros else g.emit("Greater", self.lengths, g.constant(0, "int64"))
        return g.emit("Where", g.emit("Unsqueeze", shown, g.ints(1)), h, g.floats(0))
