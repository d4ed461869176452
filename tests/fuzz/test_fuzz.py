"""Property tests: whatever is thrown at a door gets the right answer or a typed error, and changes nothing it should not."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastrnn as fr
from fastrnn.model.stack import StackOptions, stack_model

SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
LAYER = fr.LSTM(3, 5, seed=0)
DTYPES = st.sampled_from(["<f4", "<f4", "<f4", ">f4", "<f8", "<f2", "<i4", "<i8", "|b1", "<c8", "|S3", "|O"])


@st.composite
def arrays(draw, shapes):
    """Arrays of any dtype and layout, mostly near what is wanted."""
    shape, dtype = draw(shapes), np.dtype(draw(DTYPES))
    array = np.zeros(shape, dtype)
    if dtype == np.float32:
        array = draw(hnp.arrays(np.float32, shape, elements=st.floats(width=32), fill=st.just(np.float32(0.5))))
    kind = draw(st.sampled_from(["plain", "fortran", "reversed", "strided", "frozen", "offset"]))
    if kind == "fortran":
        array = np.asfortranarray(array)
    elif kind == "reversed" and array.ndim:
        array = array[::-1]
    elif kind == "strided" and array.ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    elif kind == "offset" and dtype == np.float32:
        array = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(np.float32).reshape(array.shape)
    elif kind == "frozen":
        array.flags.writeable = False
    return array


near = st.one_of(st.tuples(st.integers(0, 4), st.integers(0, 3), st.just(3)), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@SETTINGS
@given(
    x=arrays(near),
    lengths=st.one_of(st.none(), st.lists(st.integers(-2, 6), max_size=4), st.just([1.5]), st.text(max_size=2)),
    state=st.one_of(st.none(), st.tuples(arrays(st.just((1, 2, 5))), arrays(st.sampled_from([(1, 2, 5), (1, 1, 5), (5,)]))), st.just(3)),
)
def test_layers(x, lengths, state):
    try:
        y, (h, c) = LAYER(x, state, lengths)
    except fr.FastRNNError:
        return
    assert x.dtype == np.float32 and x.dtype.isnative and x.ndim in (2, 3) and x.shape[-1] == 3
    plain = np.array(x, order="C")
    again, (h2, c2) = fr.LSTM(3, 5, seed=0)(plain, state, lengths)
    for a, b in ((y, again), (h, h2), (c, c2)):
        assert np.array_equal(a, b, equal_nan=True)


OPTIONS = StackOptions("gru", 3, 5)
MODEL = stack_model(OPTIONS, fr.GRU(3, 5, seed=1).state_dict(), "gru")


@SETTINGS
@given(
    x=arrays(st.one_of(st.just((2, 3)), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))),
    out=st.one_of(st.none(), arrays(st.sampled_from([(2, 5), (2, 5), (2, 4), (10,)]))),
)
def test_steps(x, out):
    stream = fr.compile(MODEL).stream(2)
    stream.step(np.full((2, 3), 0.5, np.float32))
    before = stream.state["h0"]
    try:
        y = stream.step(x, out=out)
    except fr.FastRNNError:
        assert np.array_equal(stream.state["h0"], before)
        return
    assert x.dtype == np.float32 and x.dtype.isnative and x.shape == (2, 3) and (out is None or y is out)
    twin = fr.compile(MODEL).stream(2)
    twin.state = {"h0": before}
    assert np.array_equal(y, twin.step(np.array(x, order="C")), equal_nan=True)


@SETTINGS
@given(
    state=st.dictionaries(
        st.sampled_from([*OPTIONS.shapes(), "weight_ih_l1", "x"]), arrays(st.sampled_from([(15, 3), (15, 5), (15,), (3, 15)])), max_size=5
    )
)
def test_state_dicts(state):
    layer = fr.GRU(3, 5, seed=1)
    before = layer.state_dict()
    try:
        layer.load_state_dict(state)
    except fr.FastRNNError:
        assert all(np.array_equal(before[n], a) for n, a in layer.state_dict().items())
    try:
        fr.from_state_dict(state)
    except fr.FastRNNError:
        pass
