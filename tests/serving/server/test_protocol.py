"""The Open Inference Protocol over HTTP and gRPC, by tritonclient and by hand: answers are a Stream's bits, refusals have their names and codes."""

import json
import queue

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
grpcclient = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
httpclient = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

from running_server import Running
from served import I, alone, frames, lstm, same
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

import fastrnn as fr
from fastrnn.serving.server.generation import Options
from fastrnn.serving.server.messages import MESSAGES, TABLE

T = 10


def classifier():
    """Whole sequences, both directions: no stream."""
    return fr.compile(fr.GRU(I, 3, bidirectional=True, seed=4))


@pytest.fixture(scope="module")
def server():
    with Running({"lstm": lstm(), "both": classifier()}, options=Options(capacity=64, idle_timeout_s=None)) as running:
        yield running


@pytest.fixture(params=["http", "http json", "grpc"])
def client(request, server):
    """(client, a function that makes its inputs)."""
    module = grpcclient if request.param == "grpc" else httpclient
    with module.InferenceServerClient(server.grpc if request.param == "grpc" else server.url) as one:

        def inputs(**arrays):
            made = []
            for name, a in arrays.items():
                made.append(module.InferInput(name, list(a.shape), {"f": "FP32", "i": "INT64"}[a.dtype.kind]))
                made[-1].set_data_from_numpy(a, **({"binary_data": request.param == "http"} if module is httpclient else {}))
            return made

        one.kind = request.param
        yield one, inputs


def refusal(client, code, grpc_code, call):
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert caught.value.status() == (f"StatusCode.{grpc_code}" if client.kind == "grpc" else str(code)), caught.value
    return caught.value.message()


def test_health_and_metadata(client):
    client, _ = client
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("lstm") and client.is_model_ready("lstm", "1")
    assert not client.is_model_ready("lstm", "9") and not client.is_model_ready("other")
    options = {"as_json": True} if client.kind == "grpc" else {}
    assert "sequence" in client.get_server_metadata(**options)["extensions"]
    found = client.get_model_metadata("lstm", **options)
    assert [one["name"] for one in found["inputs"]] == ["x"] and [one["name"] for one in found["outputs"]] == ["y"]  # no h0, c0
    assert [int(n) for n in found["inputs"][0]["shape"]] == [-1, -1, I] and found["inputs"][0]["datatype"] == "FP32"
    refusal(client, 404, "NOT_FOUND", lambda: client.get_model_metadata("other"))


@pytest.mark.parametrize("of", [7, "anna"])
def test_a_sequence_is_a_stream(client, server, of):
    client, inputs = client
    of = f"{of} {client.kind}" if isinstance(of, str) else of + 10 * ("http", "http json", "grpc").index(client.kind)
    (xs,), ys = frames(1, T), []
    for k, x in enumerate(xs):
        ys.append(client.infer("lstm", inputs(x=x[None]), sequence_id=of, sequence_start=k == 0, sequence_end=k == T - 1, request_id=str(k)))
        assert (ys[-1].get_response().id if client.kind == "grpc" else ys[-1].get_response()["id"]) == str(k)
    assert same([y.as_numpy("y") for y in ys], [y[None] for y in alone(lstm(), xs)])
    assert "no stream" in refusal(client, 404, "NOT_FOUND", lambda: client.infer("lstm", inputs(x=xs[:1]), sequence_id=of))


def test_a_chunk_is_as_many_steps(client):
    client, inputs = client
    (xs,) = frames(1, T, seed=3)
    first = client.infer("lstm", inputs(x=xs[:4, None]), sequence_id="c" + client.kind, sequence_start=True).as_numpy("y")
    rest = client.infer("lstm", inputs(x=xs[4:, None]), sequence_id="c" + client.kind, sequence_end=True).as_numpy("y")
    assert first.shape == (4, 1, 7) and same(list(np.concatenate([first, rest])[:, 0]), alone(lstm(), xs))


def test_steps_have_numbers_and_tokens(client):
    client, inputs = client
    (xs,), session, token = frames(1, T, seed=1), lstm(), ""
    wanted, of = alone(session, xs), f"t {client.kind}"
    for k in range(T):  # each step at a "server" of its own: a sequence of another id

        def ask(k=k, token=token):
            return client.infer(
                "lstm", inputs(x=xs[k][None]), sequence_id=f"{of} {k}", sequence_start=True, parameters={"state_token": token, "step": k}
            )

        answer, again = ask(), ask()
        tokens = [
            (a.get_response().parameters["state_token"].string_param if client.kind == "grpc" else a.get_response()["parameters"]["state_token"])
            for a in (answer, again)
        ]
        assert same([answer.as_numpy("y")[0], again.as_numpy("y")[0]], [wanted[k]] * 2) and tokens[0] == tokens[1] != token
        token = tokens[0]
    assert "step 1 is next" in refusal(
        client, 409, "FAILED_PRECONDITION", lambda: client.infer("lstm", inputs(x=xs[:1]), sequence_id=f"{of} 0", parameters={"step": 2})
    )


def test_without_an_id_whole_sequences(client):
    client, inputs = client
    x, session = frames(1, 12)[0].reshape(4, 3, I), lstm()
    for name, one in (("lstm", session), ("both", classifier())):
        y = client.infer(name, inputs(x=x)).as_numpy("y")
        assert y.tobytes() == one.run({"x": x})["y"].tobytes()
        assert client.infer(name, inputs(x=x), sequence_id=0).as_numpy("y").tobytes() == y.tobytes()  # 0 is no id


def test_ragged_batches_are_each_row_alone(client):
    client, inputs = client
    x, lengths = frames(1, 12, seed=2)[0].reshape(4, 3, I), np.array([4, 0, 2])
    y = client.infer("both", inputs(x=x, lengths=lengths)).as_numpy("y")
    assert y.shape == (4, 3, 6)
    for row, n in enumerate(lengths):
        assert y[:n, row : row + 1].tobytes() == classifier()(x[:n, row : row + 1])[0].tobytes() and not y[n:, row].any()
    for wrong in (np.array([4, 0]), np.array([5, 0, 0]), np.array([-1, 0, 0])):
        assert "lengths must be" in refusal(client, 400, "INVALID_ARGUMENT", lambda wrong=wrong: client.infer("both", inputs(x=x, lengths=wrong)))


def test_what_is_refused_and_how(client):
    client, inputs = client
    (xs,), of = frames(1, 2), f"r {client.kind}"
    x = inputs(x=xs[:1])

    def ask(made=x, model="lstm", **options):
        return lambda: client.infer(model, made, **options)

    assert "other" in refusal(client, 404, "NOT_FOUND", ask(model="other"))
    assert "no stream" in refusal(client, 404, "NOT_FOUND", ask(sequence_id=of))
    client.infer("lstm", x, sequence_id=of, sequence_start=True)
    assert "started already" in refusal(client, 409, "ALREADY_EXISTS", ask(sequence_id=of, sequence_start=True))
    for made, match in (
        (inputs(x=xs[:1, :3]), "shape"),
        (inputs(x=np.zeros((1, I), np.int64)), "float32"),
        (inputs(z=xs[:1]), "missing"),
        (inputs(x=xs[:1], z=xs[:1]), "z"),
    ):
        assert match in refusal(client, 400, "INVALID_ARGUMENT", ask(made, sequence_id=of))
    assert "sequence_id" in refusal(client, 400, "INVALID_ARGUMENT", ask(parameters={"step": 3}))
    assert "not known" in refusal(client, 400, "INVALID_ARGUMENT", ask(sequence_id=of, priority=3))
    assert "no stream" not in refusal(client, 400, "INVALID_ARGUMENT", ask(model="both", sequence_id=of, sequence_start=True))
    for token, match in (("%%%", "base64"), ("AAAA", "not an exported stream")):
        assert match in refusal(client, 400, "INVALID_ARGUMENT", ask(sequence_id=of + "2", sequence_start=True, parameters={"state_token": token}))
    assert "sequence_start" in refusal(client, 400, "INVALID_ARGUMENT", ask(sequence_id=of, parameters={"state_token": "AAAA"}))
    client.infer("lstm", x, sequence_id=of, sequence_end=True)  # none of it has moved or ended the sequence


def test_streams_of_requests_are_answered_in_order(server):
    (xs, zs), answers = frames(2, 50, seed=5), queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for k in range(50):
            for of, rows in ((901, xs), (902, zs)):
                x = grpcclient.InferInput("x", [1, I], "FP32")
                x.set_data_from_numpy(rows[k][None])
                client.async_stream_infer("lstm", [x], sequence_id=of, sequence_start=k == 0, sequence_end=k == 49, request_id=f"{of} {k}")
        client.async_stream_infer("lstm", [x], sequence_id=903, request_id="unknown")
        found = [answers.get(timeout=20) for _ in range(101)]
        client.stop_stream()
    assert [r.get_response().id for r, e in found[:100]] == [f"{of} {k}" for k in range(50) for of in (901, 902)]
    for offset, rows in ((0, xs), (1, zs)):
        assert same([r.as_numpy("y")[0] for r, _ in found[offset:100:2]], alone(lstm(), rows))
    assert found[100][0] is None and "UnknownStreamError" in found[100][1].message()


def test_messages_are_the_public_ones():
    """Their descriptors, in a pool of their own, have tritonclient's fields: names, numbers, types."""

    def described(of):
        return sorted(
            (
                f.number,
                f.name,
                f.type,
                getattr(f, "is_repeated", None),
                f.message_type and f.message_type.full_name,
                f.containing_oneof and f.containing_oneof.name,
            )
            for f in of.fields
        )

    for path in TABLE:
        theirs = service_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"inference.{path}")
        assert described(theirs) == described(MESSAGES[path].DESCRIPTOR), path
        assert theirs is not MESSAGES[path].DESCRIPTOR


# By hand.


def test_json_answers_have_the_bits_and_words_for_what_is_not_finite(server):
    (xs,) = frames(1, 3)
    xs[1, 0] = np.inf
    want = alone(lstm(), xs)
    for k, x in enumerate(xs):
        data = [v if np.isfinite(v) else "Infinity" for v in x.tolist()]
        body = {
            "inputs": [{"name": "x", "shape": [1, I], "datatype": "FP32", "data": data}],
            "parameters": {"sequence_id": "json", "sequence_start": k == 0},
        }
        status, _, answer = server.send("/v2/models/lstm/infer", json.dumps(body).encode())
        got = json.loads(answer, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["outputs"][0]
        assert status == 200 and np.array(got["data"], np.float32).tobytes() == want[k].tobytes()


@pytest.mark.parametrize(
    "body, match",
    [
        (b"", "no JSON"),
        (b"[1]", "object"),
        (b"{}", "input"),
        (b"[" * 100_000, "no JSON"),
        (b'{"inputs": 3}', "list"),
        (b'{"inputs": [3]}', "object"),
        (b'{"x": 1}', "known are"),
        (b'{"id": 3}', "id must"),
        (b'{"parameters": []}', "object"),
        (b'{"parameters": {"sequence_id": [1]}}', "sequence_id"),
        (b'{"parameters": {"sequence_id": 1.5}}', "sequence_id"),
        (b'{"parameters": {"sequence_start": 1}}', "true or false"),
        (b'{"parameters": {"step": true, "sequence_id": 1}}', "int64"),
        (b'{"parameters": {"sequence_end": true}}', "sequence_id"),
        (b'{"inputs": [{"name": "x"}]}', "datatype"),
        (b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1]}]}', "datatype"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1], "data": []}]}', "whole numbers"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}]}', "entries"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [9999999999, 9999999999], "data": []}]}', "too many"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["a"]}]}', "something else"),
        (b'{"inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [300]}]}', "x"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [[1], 2]}]}', "lists"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}]}', "list"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"shared_memory_region": "a"}}]}', "known are"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}', "0 bytes are left"),
        (b"\xff\xfe", "no JSON"),
        (b'{"outputs": [{"name": "x", "parameters": {"classification": 3}}]}', "known are"),
    ],
)
def test_malformed_bodies_are_refused(server, body, match):
    status, _, answer = server.send("/v2/models/lstm/infer", body)
    assert status == 400 and match in json.loads(answer)["error"]


def test_other_ways_to_be_refused(server):
    body = b"0" * (server.server.limits.body_bytes + 1)
    assert server.send("/v2/models/lstm/infer", body)[0] == 413
    assert server.send("/v2/models/lstm/infer", b"{}", {"content-encoding": "gzip"})[0] == 415
    assert server.send("/v2/models/lstm/infer", b"{}", {"origin": "http://elsewhere.example"})[0] == 403
    for length in ("-1", "x", "99999", "9" * 30):
        assert server.send("/v2/models/lstm/infer", b"{}", {"inference-header-content-length": length})[0] == 400
    assert server.get("/v2/models/lstm/infer")[0] == 405 and server.get("/nothing")[0] == 404 and server.get("/../../etc/passwd")[0] == 404
    status, head, answer = server.get("/v2/models/%00/ready")
    assert status == 404 and json.loads(answer)["name"] == "unknown"


def test_where_all_are_taken_the_answer_says_when_to_come_back():
    (xs,) = frames(1, 1)
    with Running({"lstm": lstm()}, options=Options(capacity=1, idle_timeout_s=None)) as server:
        assert server.infer("lstm", {"x": xs}, sequence_id=1, sequence_start=True)[0] == 200
        status, answer = server.infer("lstm", {"x": xs}, sequence_id=2, sequence_start=True)
        assert status == 503 and answer["name"] == "PoolFullError"
        body = json.dumps(
            {
                "inputs": [{"name": "x", "shape": [1, I], "datatype": "FP32", "data": xs.ravel().tolist()}],
                "parameters": {"sequence_id": 2, "sequence_start": True},
            }
        )
        assert server.send("/v2/models/lstm/infer", body.encode())[1]["retry-after"] == "1"


def test_a_second_start_may_end_the_first():
    (xs,) = frames(1, 3)
    with Running({"lstm": lstm()}, restart=True) as server:
        for start in (True, False, True, False):
            status, answer = server.infer("lstm", {"x": xs[:1] if start else xs[1:2]}, sequence_id=1, sequence_start=start)
            assert status == 200 and answer["arrays"]["y"].tobytes() == alone(lstm(), xs[:2])[0 if start else 1].tobytes()
