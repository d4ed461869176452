"""Models by name, and what a request of theirs does. Every method that is not said to be safe belongs to the server's event loop.

A model that is replaced keeps its older generations for as long as they have callers: a sequence ends on the weights it began on, unless the
operator has states moved, which takes the callers one by one, between two of their steps.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fastrnn.errors import FastRNNError, OverloadedError, StateError, UnknownStreamError
from fastrnn.runtime.session import Session
from fastrnn.serving.server.asked import Answered, Asked, Caller, Sequence, token_of
from fastrnn.serving.server.generation import Generation, Options
from fastrnn.serving.server.load import Load
from fastrnn.serving.server.refusals import Refused, refused

LOG = logging.getLogger("fastrnn")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
ANSWERED_S = 10.0  # within which requests that were taken are answered at the end
REMEMBERED_S = 60.0  # how long a generation without callers is kept, which may be asked once more for the last answers of those that ended


class Served:
    """A name and its generations, the newest last. restart: a second start of a sequence ends the first, as Triton does."""

    def __init__(self, name: str, options: Options, restart: bool, executor: ThreadPoolExecutor):
        self.name, self.options, self.restart, self._executor = name, options, restart, executor
        self.generations: list[Generation] = []
        self._moving: dict[Caller, asyncio.Future] = {}
        self._versions = 0

    @property
    def newest(self) -> Generation:
        return self.generations[-1]

    def add(self, session: Session) -> Generation:
        """A new generation, which takes all callers that start from now on."""
        made = Generation(self._versions + 1, session, self.options, self._executor)
        self._versions += 1
        self.generations.append(made)
        return made

    def of_version(self, version: str) -> Generation:
        """The newest, or the one that a version names. Raises Refused."""
        for generation in self.generations:
            if not version and generation is self.newest or str(generation.version) == version:
                return generation
        raise Refused("unknown", f"model {self.name!r} has no version {version!r}; those are {', '.join(str(g.version) for g in self.generations)}")

    def metadata(self, version: str) -> dict:
        """As the protocol has it; states are not listed."""
        generation = self.of_version(version)
        return {
            "name": self.name,
            "versions": [str(g.version) for g in self.generations],
            "platform": "fastrnn",
            "inputs": generation.inputs,
            "outputs": generation.outputs,
        }

    # A step of a sequence.

    async def step(self, caller: Caller, asked: Asked, sequence: Sequence) -> Answered:
        """The answer to one step, or chunk of steps, of a sequence. Raises Refused."""
        if (moving := self._moving.get(caller)) is not None:
            await moving
        outputs = self._wanted(asked.outputs)
        if asked.version:
            choices = [self.of_version(asked.version)]
        else:
            held = [g for g in self.generations if g.batcher is not None and caller in g.batcher]
            choices = held or ([self.newest] if sequence.start else self.generations[::-1])
        if choices[0].batcher is None:
            raise Refused("invalid", f"model {self.name!r} has no sequences: {choices[0].unstreamable}")
        error: Exception | None = None
        for generation in choices:  # of callers that have ended, whoever remembers the last answer
            if generation.batcher is None:
                continue
            try:
                return await self._on(generation, caller, asked, sequence, outputs)
            except UnknownStreamError as unknown:
                error = error or unknown
            except StateError as other:
                token = sequence.state is not None and caller not in generation.batcher
                raise Refused("invalid", str(other), "StateError") if token else refused(other, sequence.start) from other
            except FastRNNError as other:
                raise refused(other) from other
        raise refused(error) from error

    async def _on(self, generation: Generation, caller: Caller, asked: Asked, sequence: Sequence, outputs: list[str]) -> Answered:
        inputs, batcher = generation.read(asked.inputs), generation.batcher
        steps = batcher.chunk(inputs)
        options = {"start": sequence.start, "end": sequence.end, "step": sequence.step, "state": sequence.state, "export": sequence.export}
        try:
            y = await self._run(batcher, caller, inputs, steps, options)
        except StateError:
            if not (self.restart and sequence.start and caller in batcher):
                raise
            batcher.end(caller)
            y = await self._run(batcher, caller, inputs, steps, options)
        parameters = {}
        if sequence.export:
            y, state = y
            parameters["state_token"] = token_of(state)
        named = dict(zip(batcher.output_names, y if isinstance(y, tuple) else (y,)))
        return Answered(self.name, str(generation.version), asked.id, {name: named[name] for name in outputs}, parameters)

    @staticmethod
    async def _run(batcher, caller: Caller, inputs: dict[str, np.ndarray], steps: int | None, options: dict):
        if steps is None:
            return await batcher.step(caller, inputs, **options)
        fields = {f.name: f for f in batcher.fields or ()}
        for name, a in inputs.items():  # what all rows share is given once
            if name in fields and fields[name].axis is None or name not in fields and not a.ndim:
                inputs[name] = np.broadcast_to(a, (steps, *a.shape))
        return await batcher.push(caller, inputs, **options)

    def _wanted(self, outputs: list[str] | None) -> list[str]:
        names = self.newest.output_names
        if outputs is None:
            return names
        if unknown := next((name for name in outputs if name not in names), None):
            raise Refused("invalid", f"output {unknown!r} is none of {', '.join(names)}")
        return outputs

    async def holder(self, caller: Caller) -> Generation:
        """Where a caller's stream is. Raises Refused."""
        if (moving := self._moving.get(caller)) is not None:
            await moving
        for generation in reversed(self.generations):
            if generation.batcher is not None and caller in generation.batcher:
                return generation
        raise Refused("unknown", f"{caller!r} has no stream any more: it has ended, or was idle for too long", "UnknownStreamError")

    def end(self, caller: Caller) -> None:
        """Ends a caller's stream, if it has one, after what it has asked."""
        for generation in self.generations:
            if generation.batcher is not None and caller in generation.batcher:
                try:
                    generation.batcher.end(caller)
                except FastRNNError as error:  # it has ended meanwhile
                    LOG.debug("%r: %s", caller, error)

    # Replacement.

    async def replace(self, session: Session, move: bool) -> dict:
        """New callers take this session from now on. move: those of older generations go on with it, too, where states have the same names, shapes
        and dtypes; else they end where they are. What became of them: {"version", "moved", "stayed"}."""
        older = list(self.generations)
        made = await asyncio.get_running_loop().run_in_executor(self._executor, self.add, session)
        moved = stayed = 0
        for generation in older:
            for caller in [] if generation.batcher is None else list(generation.batcher):
                if move and made.batcher is not None and await self._move(caller, generation, made):
                    moved += 1
                else:
                    stayed += 1
        self.retire()
        LOG.info("model %s: version %d; %d callers moved, %d stay where they are", self.name, made.version, moved, stayed)
        return {"version": str(made.version), "moved": moved, "stayed": stayed}

    async def _move(self, caller: Caller, old: Generation, new: Generation) -> bool:
        """Whether the caller is now the new one's. A state that does not fit stays."""
        self._moving[caller] = asyncio.get_running_loop().create_future()
        try:
            left = await asyncio.wrap_future(old.batcher.leave(caller))
            try:
                await asyncio.wrap_future(new.batcher.enter(caller, left))
                return True
            except FastRNNError as error:
                LOG.info("caller %r stays: %s", caller, error)
                await asyncio.wrap_future(old.batcher.enter(caller, left))
                return False
        except FastRNNError as error:  # it has ended meanwhile, or its place was taken
            LOG.warning("caller %r is not there any more: %s", caller, error)
            return False
        finally:
            self._moving.pop(caller).set_result(None)

    def retire(self) -> None:
        """Closes older generations that have had no callers for a while."""
        for generation in self.generations[:-1]:
            if generation.empty_for_s() >= REMEMBERED_S:
                self.generations.remove(generation)
                if generation.batcher is not None:
                    self._executor.submit(generation.batcher.close)

    def callers(self) -> int:
        """Who has a stream, of all generations."""
        return sum(len(g.batcher) for g in self.generations if g.batcher is not None)


class Models:
    """All models of a server. State: "ready", then "draining": live sequences go on and none starts. load: of the event loop; opening: connections
    that were taken and have no stream yet."""

    def __init__(self, threads: int = 2):
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="fastrnn-call")
        self._served: dict[str, Served] = {}
        self.draining = self.hurry = False
        self.load, self.opening = Load(), 0

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def add(self, name: str, session: Session, options: Options = Options(), restart: bool = False) -> Served:
        """A model under a name of letters, digits, points, dashes and underscores. Raises Refused."""
        if not NAME.fullmatch(name) or name in self._served:
            raise Refused("invalid", f"a model's name is 1 to 128 letters, digits, points, dashes and underscores, and its own; got {name[:140]!r}")
        served = Served(name, options, restart, self._executor)
        served.add(session)
        self._served[name] = served
        return served

    def of(self, name: str) -> Served:
        """The model of a name. Raises Refused."""
        if name not in self._served:
            raise Refused("unknown", f"model {name[:140]!r} is not here; those are {', '.join(self._served)}")
        return self._served[name]

    async def infer(self, asked: Asked, owner: str | None) -> Answered:
        """The answer to a request. owner: whose sequences its id names. Raises Refused."""
        served, sequence = self.of(asked.model), asked.sequence()
        if sequence is not None:
            caller = Caller(owner, "sequence", sequence.id)
            if sequence.start and sequence.step is None:
                self.check_start()
            elif sequence.start and not any(g.batcher is not None and caller in g.batcher for g in served.generations):
                self.check_start()
            return await served.step(caller, asked, sequence)
        if self.draining:
            raise Refused("draining", "this server is draining")
        generation = served.of_version(asked.version)
        try:
            return Answered(served.name, str(generation.version), asked.id, await generation.call(asked.inputs, asked.outputs))
        except FastRNNError as error:
            raise refused(error) from error

    def check_start(self) -> None:
        """Raises Refused where no sequence may start now."""
        if self.draining:
            raise Refused("draining", "this server is draining: sequences that have begun go on for a while, and none begins")
        try:
            self.load.check(self.callers())
        except OverloadedError as error:
            raise refused(error) from error

    def callers(self) -> int:
        """Who has a stream, or will have one in a moment."""
        return self.opening + sum(served.callers() for served in self)

    def tick(self) -> None:
        """Each TICK_S: measures the load, and lets go of models that nobody uses any more."""
        self.load.tick(self.callers(), sum(g.batcher.stepping_s for served in self for g in served.generations if g.batcher is not None))
        for served in self:
            served.retire()

    async def drain(self, timeout_s: float) -> bool:
        """Nothing starts any more; waits until callers have ended, timeout_s at most, and then until what they asked is answered. Whether all had
        ended."""
        self.draining, until = True, time.monotonic() + timeout_s
        while (left := sum(served.callers() for served in self)) and time.monotonic() < until and not self.hurry:
            await asyncio.sleep(0.05)
        for served in self:
            for generation in served.generations:
                if generation.batcher is not None:
                    await asyncio.to_thread(generation.batcher.drain, ANSWERED_S)
        return not left

    def close(self) -> None:
        """Ends all streams."""
        for served in self:
            for generation in served.generations:
                if generation.batcher is not None:
                    generation.batcher.close()
        self._executor.shutdown()
