# What a Runner is made of: the program's records, and where each address and number that depends on a call goes. Part of _executor.pyx.


def _bind_slots(Runner self, everything, formulas):
    cdef int k, d
    cdef Slot *slot
    states = {kept.input: i for i, kept in enumerate(self.program.states)}
    self.only_input = self.only_output = -1
    for k, wanted in enumerate(everything):
        slot = &self.slots[k]
        if len(wanted.shape) > MAX_RANK:
            raise UnsupportedModelError(f"{wanted.name!r} has {len(wanted.shape)} dimensions; at most {MAX_RANK} are supported")
        slot.dtype, slot.rank, slot.itemsize = wanted.dtype.num, len(wanted.shape), wanted.dtype.itemsize
        for d in range(slot.rank):
            slot.size[d] = formulas.number(wanted.shape[d])
        slot.state = states.get(wanted.name, -1) if k < self.n_inputs else -1
        if wanted.low is not None:
            if slot.state >= 0:
                raise UnsupportedModelError(f"state {wanted.name!r} serves as an index or a length; only inputs may, their range is checked")
            slot.limited, slot.low_value, slot.high_value = 1, formulas.number(wanted.low), formulas.number(wanted.high)
            self._owned.append(None)
        if wanted.value is not None:
            value = np.require(wanted.value, requirements="CA")
            self._keep.append(value)
            slot.wanted, slot.nbytes = <char *><size_t>value.ctypes.data, value.nbytes
        if slot.state >= 0:
            continue
        if k < self.n_inputs:
            self.n_free_inputs, self.only_input = self.n_free_inputs + 1, k
        else:
            self.n_free_outputs, self.only_output = self.n_free_outputs + 1, k


def _bind_blocks(Runner self, formulas):
    """The blocks of the work space, those that are kept first."""
    cdef int k
    blocks = self.program.blocks
    self.n_blocks, self.n_events = len(blocks.nbytes), len(blocks.events)
    self.block_bytes = <int64_t *>_room(self.n_blocks, sizeof(int64_t))
    self.block_offsets = <int64_t *>_room(self.n_blocks, sizeof(int64_t))
    self.block_at = <char **>_room(self.n_blocks, sizeof(char *))
    self.ranges = <fr_range *>_room(self.n_events, sizeof(fr_range))
    self.events = <int *>_room(self.n_events, sizeof(int))
    for k, event in enumerate(blocks.events):
        self.events[k] = event
    self._keep.append(blocks)


def _bind_steps(Runner self, formulas):
    cdef int k
    # a cache line for each call's barrier and for its count of steps
    self._meeting = aligned_zeros((self.n_steps, 2, 8), np.int64)
    cdef size_t meeting = self._meeting.ctypes.data
    self.most_threads = 1
    self._args_array = np.zeros(self.n_steps, ARGS)
    self.args = <fr_args *><size_t>self._args_array.ctypes.data
    self._python = [None] * self.n_steps
    cdef size_t base = self._args_array.ctypes.data
    patches, places, scalars, asking = [], [], [], []
    for k, number in enumerate(self.program.blocks.nbytes):
        if number is not None:
            scalars.append((<size_t>&self.block_bytes[k], formulas.number(number), False))
    for k in range(self.n_slots):
        if self.slots[k].limited:
            scalars.append((<size_t>&self.slots[k].low, self.slots[k].low_value, False))
            scalars.append((<size_t>&self.slots[k].high, self.slots[k].high_value, False))

    def point(size_t field, view):
        """Notes where an address goes."""
        offset = formulas.number(view.offset)
        if view.space == "slot":
            patches.append((field, view.index, offset))
        elif view.space == "work":
            places.append((field, 0, view.index, offset))
        else:
            places.append((field, _memory(self, view.array, formulas, scalars), -1, offset))

    for k, step in enumerate(self.program.steps):
        if isinstance(step, PythonStep):
            self.controls[k].kind = RUN_PYTHON
            self._python[k] = (step, *([None if view is None else _described(self, view, formulas, scalars) for view in views] for views in (step.inputs, step.outputs)))
        elif isinstance(step, JumpStep):
            self.controls[k].kind, self.controls[k].target = JUMP, step.target
            if step.condition is not None:
                point(<size_t>&self.controls[k].data, step.condition)
        elif isinstance(step, CheckStep):
            self.controls[k].kind = CHECK
            count = 1
            for n in step.view.shape:
                count = count * n
            for field, value in ((<size_t>&self.controls[k].count, count), (<size_t>&self.controls[k].low, step.low), (<size_t>&self.controls[k].high, step.high)):
                scalars.append((field, formulas.number(value), False))
            point(<size_t>&self.controls[k].data, step.view)
        else:
            self.kernels[k] = <fr_run><size_t>step.kernel.run
            record = self._args_array[k:k + 1]
            for field, value in step.args.items():
                if isinstance(value, Size):
                    scalars.append((base + k * ARGS.itemsize + ARGS.fields[field][1], formulas.number(value), ARGS.fields[field][0].kind == "f"))
                elif field == "act":
                    record[field][0] = value
                else:
                    record[field] = value
            for field, view in step.pointers.items():
                point(base + k * ARGS.itemsize + ARGS.fields[field][1], view)
                record[field] = 1  # for work_bytes, which may ask whether a pointer is there
            if step.work is not None:
                places.append((base + k * ARGS.itemsize + ARGS.fields["work"][1], 0, step.work, formulas.number(0)))
                asking.append((k, step.work, step.kernel.work_bytes))
            if step.args["parts"] > 1:
                record["barrier"] = meeting + 128 * k
            if step.follows:
                record["ready"] = meeting + 128 * (k - 1) + 64
                self._args_array[k - 1:k]["done"] = record["ready"]
            if step.in_turn:
                record["beside"] = base + (k + 1) * ARGS.itemsize
            if k and getattr(self.program.steps[k - 1], "in_turn", False):  # done by the call before
                self.controls[k].kind, self.controls[k].target = JUMP, k + 1
            elif step.together or step.args["parts"] > 1:
                self.controls[k].kind, self.controls[k].count = TOGETHER, max(step.together, 1)
                self.controls[k].target = sum(max(int(s.args["parts"]), 1) for s in self.program.steps[k:k + self.controls[k].count])
                self.most_threads = max(self.most_threads, self.controls[k].target)
    self.n_commits = len(self.program.states)
    self.commits = <Commit *>_room(self.n_commits, sizeof(Commit))
    for k, kept in enumerate(self.program.states):
        point(<size_t>&self.commits[k].source, kept.following)
        nbytes = kept.following.dtype.itemsize
        for n in kept.following.shape:
            nbytes = nbytes * n
        scalars.append((<size_t>&self.commits[k].nbytes, formulas.number(nbytes), False))
    self.estimate = formulas.number(self.program.estimated_ns)
    _note(self, patches, places, scalars, asking)


def _note(Runner self, patches, places, scalars, asking):
    cdef int k
    self.n_patches, self.n_places, self.n_scalars, self.n_asking = len(patches), len(places), len(scalars), len(asking)
    self.patches = <Patch *>_room(self.n_patches, sizeof(Patch))
    self.places = <Place *>_room(self.n_places, sizeof(Place))
    self.scalars = <Scalar *>_room(self.n_scalars, sizeof(Scalar))
    self.asks = <fr_work_bytes *>_room(self.n_asking, sizeof(fr_work_bytes))
    self.asking = <int *>_room(2 * self.n_asking, sizeof(int))
    for k, (field, slot, offset) in enumerate(patches):
        self.patches[k].field, self.patches[k].slot, self.patches[k].offset = <char **><size_t>field, slot, offset
    for k, (field, address, block, offset) in enumerate(places):
        self.places[k].field, self.places[k].base, self.places[k].block, self.places[k].offset = <char **><size_t>field, <char *><size_t>address, block, offset
    for k, (field, value, is_float) in enumerate(scalars):
        self.scalars[k].field, self.scalars[k].value, self.scalars[k].is_float = <void *><size_t>field, value, is_float
    for k, (step, block, address) in enumerate(asking):
        self.asking[2 * k], self.asking[2 * k + 1], self.asks[k] = step, block, <fr_work_bytes><size_t>address


def _bind_formulas(Runner self, formulas, guards):
    cdef int k
    rows, values = formulas.arrays()
    self._formulas = np.ascontiguousarray(rows)
    self.formulas = <fr_formula *><size_t>self._formulas.ctypes.data
    self.n_values, self.n_guards = len(rows), len(guards)
    self.values = <int64_t *>_room(self.n_values, sizeof(int64_t))
    for k, value in enumerate(values.tolist()):
        self.values[k] = value
    for k in range(self.n_dimensions):
        self.values[k] = -1  # none yet
    self.guards = <fr_guard *>_room(self.n_guards, sizeof(fr_guard))
    for k, (value, zero, holds) in enumerate(guards):
        self.guards[k].value, self.guards[k].zero, self.guards[k].holds = value, zero, holds


def _memory(Runner self, array, formulas, list scalars):
    """The address of an array that stays; of one that holds Sizes, of a table that is filled in when sizes change."""
    if not has_sizes(array):
        array = array if array.dtype != object else array.astype(np.int64)
        self._keep.append(array)
        return array.ctypes.data
    for before, table in self._tables:
        if before is array:
            return table.ctypes.data
    table = aligned_zeros((array.size,), np.int64)
    self._tables.append((array, table))
    for k, value in enumerate(array.ravel()):
        if isinstance(value, Size):
            scalars.append((table.ctypes.data + 8 * k, formulas.number(value), False))
        else:
            table[k] = value
    return table.ctypes.data


def _described(Runner self, view, formulas, list scalars):
    """A view as _array reads it: where it is, and the values that its offset, shape and strides are."""
    base = None if view.space in ("slot", "work") else _memory(self, view.array, formulas, scalars)
    dtype = np.dtype(np.int64) if view.dtype == object else view.dtype
    return (view.space, view.index, base, formulas.number(view.offset), dtype.num, dtype.itemsize,
            [formulas.number(n) for n in view.shape], [formulas.number(n) for n in view.strides])
