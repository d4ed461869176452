# The caller's arrays: checked, made, and apart. Part of _pool.pyx.

cdef bint _is_handles(object value) noexcept:
    """Whether value is an int64 array of one dimension, in order."""
    return (cnp.PyArray_CheckExact(value) and cnp.PyArray_TYPE(<cnp.ndarray>value) == cnp.NPY_INT64 and cnp.PyArray_NDIM(<cnp.ndarray>value) == 1
            and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>value) and PyArray_ISBEHAVED_RO(<cnp.ndarray>value))


cdef int64_t _dim(Field *field, int d, int64_t n, int64_t steps) noexcept:
    return n if d == field.rows else steps if d == field.steps else field.shape[d]


cdef int64_t _count(Field *field, int64_t n, int64_t steps) noexcept:
    cdef int64_t count = 1
    for d in range(field.rank):
        count *= _dim(field, d, n, steps)
    return count


cdef tuple _shape(Field *field, int64_t n, int64_t steps):
    return tuple([_dim(field, d, n, steps) for d in range(field.rank)])


cdef bint _fits(Field *field, int64_t n, int64_t steps, object value):
    cdef cnp.ndarray a
    cdef int d
    if not is_array(value):
        return False
    a = <cnp.ndarray>value
    if cnp.PyArray_TYPE(a) != field.dtype or cnp.PyArray_NDIM(a) != field.rank or not cnp.PyArray_IS_C_CONTIGUOUS(a) or not PyArray_ISBEHAVED_RO(a):
        return False
    for d in range(field.rank):
        if cnp.PyArray_DIM(a, d) != _dim(field, d, n, steps):
            return False
    return True


cdef object _input(Tiles tiles, int k, int64_t n, int64_t steps, object value):
    """The array as the tiles read it: a copy where it is strided, or holds integers whose range is checked, which the caller could change meanwhile."""
    if not _fits(&tiles.inputs[k], n, steps, value):
        value = checks.as_input(value, tiles.input_names[k], np.dtype(tiles.kinds[k]), _shape(&tiles.inputs[k], n, steps))
    return value.copy() if tiles.inputs[k].limited else value


cdef object _output(Tiles tiles, int k, int64_t n, int64_t steps, object out):
    cdef Field *field = &tiles.outputs[k]
    cdef cnp.npy_intp shape[16]
    cdef int d
    if out is None:
        for d in range(field.rank):
            shape[d] = _dim(field, d, n, steps)
        return PyArray_EMPTY(field.rank, shape, field.dtype, 0)
    if not _fits(field, n, steps, out) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
        checks.refuse_out(out, tiles.output_names[k], np.dtype(tiles.kinds[len(tiles.input_names) + k]), _shape(field, n, steps))
    return out


cdef int _check_apart(name, cnp.ndarray a, other_name, cnp.ndarray b) except -1:
    cdef char *start = <char *>cnp.PyArray_DATA(a)
    cdef char *other = <char *>cnp.PyArray_DATA(b)
    if start < other + cnp.PyArray_NBYTES(b) and other < start + cnp.PyArray_NBYTES(a):
        raise checks.overlap(name, other_name)
    return 0
