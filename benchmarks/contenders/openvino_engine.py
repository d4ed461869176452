"""OpenVINO: latency hint, float32, one thread. Inputs and outputs share memory with its request, the fastest way to call it from Python."""

from contenders import onnx_layer

NAME = "openvino"
SETTINGS = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def compiled(graph: bytes):
    """The graph, compiled for the shapes that it declares."""
    import openvino

    core = openvino.Core()
    return core.compile_model(core.read_model(graph), "CPU", SETTINGS)


def prepare(case):
    """See contenders."""
    import openvino

    request, feeds = compiled(onnx_layer.graph(case)).create_infer_request(), onnx_layer.feeds(case)
    for name, array in feeds.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    request.infer(share_outputs=True)
    y, *states = (request.get_output_tensor(k).data for k in range(1 + len(case.states)))
    ties = [(feeds[f"{s}0"], state) for s, state in zip(case.states, states)]

    def run():
        request.infer(share_outputs=True)

    def carry():
        request.infer(share_outputs=True)
        for first, last in ties:
            first[...] = last

    def result():
        for first, _ in ties:
            first[...] = 0
        run()
        return y[:, 0].copy()

    return carry if case.carried else run, result


def any_size(case):
    """See contenders: one request of a graph that leaves batch and time open."""
    request = compiled(onnx_layer.graph(case, free_batch=True, free_time=True)).create_infer_request()

    def call(x, lengths=None):
        return request.infer(onnx_layer.feeds_of(case, x, lengths), share_inputs=True, share_outputs=True)[0][:, 0].copy()

    return call


def opener(case):
    """See contenders: one request for all, whose states are set back to zero; what a stream of its own would take is more."""
    import openvino

    request, feeds = compiled(onnx_layer.graph(case)).create_infer_request(), onnx_layer.feeds(case)
    for name, array in feeds.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    request.infer(share_outputs=True)
    y, *states = (request.get_output_tensor(k).data for k in range(1 + len(case.states)))
    ties, given = [(feeds[f"{s}0"], state) for s, state in zip(case.states, states)], feeds["x"]

    def start():
        for first, _ in ties:
            first[...] = 0
        return step

    def step(x):
        given[0] = x
        request.infer(share_outputs=True)
        for first, last in ties:
            first[...] = last
        return y[0, 0].copy()

    return start
