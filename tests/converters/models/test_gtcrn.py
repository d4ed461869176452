"""gtcrn from its checkpoint: a module written here after the ONNX graph, the graph itself, and what fastrnn makes of either, frame by frame."""

import numpy as np
import pytest

import fastrnn as fr

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
from torch import nn
from torch.nn import functional as F

FRAMES, TOLERANCE = 60, 2e-5
CACHES = ("conv_cache", "tra_cache", "inter_cache")
DILATIONS = (1, 2, 5)
PLACES = {1: slice(0, 2), 2: slice(2, 6), 5: slice(6, 16)}  # of each dilation's history in a convolution cache of 16 frames


class Attention(nn.Module):
    """A gate for each channel out of its energy over time; x (1, 8, 1, F), hidden (1, 1, 16)."""

    def __init__(self):
        super().__init__()
        self.att_gru, self.att_fc = nn.GRU(8, 16), nn.Linear(16, 8)

    def forward(self, x, hidden):
        energy = (x * x).mean(dim=-1).permute(2, 0, 1)
        gate, hidden = self.att_gru(energy, hidden)
        return x * torch.sigmoid(self.att_fc(gate)).permute(1, 2, 0)[..., None], hidden


class Edge(nn.Module):
    """A strided convolution over frequency, at either end of the network."""

    def __init__(self, conv, act=None):
        super().__init__()
        self.conv, self.bn, self.act = conv, nn.BatchNorm2d(conv.out_channels), act or nn.PReLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Block(nn.Module):
    """Half of the channels through a depthwise convolution over time, whose history is given; then the halves are shuffled."""

    def __init__(self, conv, dilation):
        super().__init__()
        transposed = conv is nn.ConvTranspose2d
        self.point_conv1, self.point_bn1, self.point_act = conv(24, 16, 1), nn.BatchNorm2d(16), nn.PReLU()
        self.depth_conv = conv(16, 16, 3, groups=16, dilation=(dilation, 1), padding=(2 * dilation if transposed else 0, 1))
        self.depth_bn, self.depth_act = nn.BatchNorm2d(16), nn.PReLU()
        self.point_conv2, self.point_bn2, self.tra = conv(16, 8, 1), nn.BatchNorm2d(8), Attention()

    def forward(self, x, history, hidden):
        first, second = x[:, :8], x[:, 8:]
        padded = F.pad(first, (1, 1))
        neighbours = torch.stack([padded[..., k : k + first.shape[-1]] for k in range(3)], dim=2).flatten(1, 2)
        h = torch.cat([history, self.point_act(self.point_bn1(self.point_conv1(neighbours)))], dim=2)
        y = self.point_bn2(self.point_conv2(self.depth_act(self.depth_bn(self.depth_conv(h)))))
        y, hidden = self.tra(y, hidden)
        return torch.stack([y, second], dim=2).flatten(1, 2), h[:, :, 1:], hidden


class Halves(nn.Module):
    """Two GRUs, one for each half of the features."""

    def __init__(self, size, bidirectional):
        super().__init__()
        self.rnn1, self.rnn2 = (nn.GRU(8, size, batch_first=True, bidirectional=bidirectional) for _ in range(2))

    def forward(self, x, hidden=None):
        given = (None, None) if hidden is None else (hidden[..., :8].contiguous(), hidden[..., 8:].contiguous())
        (y1, h1), (y2, h2) = self.rnn1(x[..., :8], given[0]), self.rnn2(x[..., 8:], given[1])
        return torch.cat([y1, y2], dim=-1), torch.cat([h1, h2], dim=-1)


class DualPath(nn.Module):
    """Over frequency in both directions, then over time for each frequency; x (1, 16, 1, 33), hidden (1, 33, 16)."""

    def __init__(self):
        super().__init__()
        self.intra_rnn, self.intra_fc, self.intra_ln = Halves(4, True), nn.Linear(16, 16), nn.LayerNorm((33, 16), eps=1e-8)
        self.inter_rnn, self.inter_fc, self.inter_ln = Halves(8, False), nn.Linear(16, 16), nn.LayerNorm((33, 16), eps=1e-8)

    def forward(self, x, hidden):
        x = x.permute(0, 2, 3, 1)
        x = x + self.intra_ln(self.intra_fc(self.intra_rnn(x[0])[0])[None])
        y, hidden = self.inter_rnn(x[0].permute(1, 0, 2), hidden)
        x = x + self.inter_ln(self.inter_fc(y).permute(1, 0, 2)[None])
        return x.permute(0, 3, 1, 2), hidden


class Bands(nn.Module):
    """257 bins to 129 bands and back: the upper 192 by a matrix."""

    def __init__(self):
        super().__init__()
        self.erb_fc, self.ierb_fc = nn.Linear(192, 64, bias=False), nn.Linear(64, 192, bias=False)


class Stack(nn.Module):
    """A list of layers under the name that the checkpoint has for it."""

    def __init__(self, name, layers):
        super().__init__()
        setattr(self, name, nn.ModuleList(layers))


class Gtcrn(nn.Module):
    """mix (1, 257, 1, 2) and three caches -> the enhanced frame and the caches."""

    def __init__(self):
        super().__init__()
        wide = {"kernel_size": (1, 5), "stride": (1, 2), "padding": (0, 2)}
        self.erb = Bands()
        self.encoder = Stack(
            "en_convs", [Edge(nn.Conv2d(9, 16, **wide)), Edge(nn.Conv2d(16, 16, groups=2, **wide)), *(Block(nn.Conv2d, d) for d in DILATIONS)]
        )
        self.dpgrnn1, self.dpgrnn2 = DualPath(), DualPath()
        self.decoder = Stack(
            "de_convs",
            [
                *(Block(nn.ConvTranspose2d, d) for d in DILATIONS[::-1]),
                Edge(nn.ConvTranspose2d(16, 16, groups=2, **wide)),
                Edge(nn.ConvTranspose2d(16, 2, **wide), nn.Tanh()),
            ],
        )

    def blocks(self, layers, dilations, x, skips, conv_cache, tra_cache):
        """Three blocks one behind the other, with their shares of the caches."""
        histories, hiddens, outputs = {}, [], []
        for k, (layer, dilation) in enumerate(zip(layers, dilations)):
            x, histories[dilation], hidden = layer(x + skips[k] if skips else x, conv_cache[:, :, PLACES[dilation]], tra_cache[k])
            hiddens.append(hidden)
            outputs.append(x)
        return outputs, torch.cat([histories[d] for d in DILATIONS], dim=2), torch.stack(hiddens)

    def forward(self, mix, conv_cache, tra_cache, inter_cache):
        real, imaginary = mix[..., 0].permute(0, 2, 1), mix[..., 1].permute(0, 2, 1)
        features = torch.stack([torch.sqrt(real * real + imaginary * imaginary + 1e-12), real, imaginary], dim=1)
        bands = torch.cat([features[..., :65], self.erb.erb_fc(features[..., 65:])], dim=-1)
        padded = F.pad(bands, (1, 1))
        x = torch.stack([padded[..., k : k + 129] for k in range(3)], dim=2).flatten(1, 2)
        convs, others = self.encoder.en_convs, self.decoder.de_convs
        e0 = convs[0](x)
        e1 = convs[1](e0)
        encoded, conv0, tra0 = self.blocks(convs[2:], DILATIONS, e1, None, conv_cache[0], tra_cache[0])
        x, inter0 = self.dpgrnn1(encoded[-1], inter_cache[0])
        x, inter1 = self.dpgrnn2(x, inter_cache[1])
        decoded, conv1, tra1 = self.blocks(others[:3], DILATIONS[::-1], x, encoded[::-1], conv_cache[1], tra_cache[1])
        mask = others[4](others[3](decoded[-1] + e1) + e0)
        mask = torch.cat([mask[..., :65], self.erb.ierb_fc(mask[..., 65:])], dim=-1)
        out = torch.stack([real * mask[:, 0] - imaginary * mask[:, 1], imaginary * mask[:, 0] + real * mask[:, 1]], dim=1)
        return out.permute(0, 3, 2, 1), torch.stack([conv0, conv1]), torch.stack([tra0, tra1]), torch.stack([inter0, inter1])


@pytest.fixture
def folder(shared):
    return shared / "models/gtcrn"


@pytest.fixture
def module(folder):
    """The module with the checkpoint's weights, every one of them."""
    made = Gtcrn().eval()
    made.load_state_dict(torch.load(folder / "stream_model_trained_on_dns3.tar", weights_only=True, map_location="cpu")["model"])
    return made


def zeros(session):
    return {v.name: np.zeros(v.shape, np.float32) for v in session.get_inputs() if v.name in CACHES}


def frames():
    return (np.random.default_rng(0).standard_normal((FRAMES, 1, 257, 1, 2)) * 0.3).astype(np.float32)


def agree(got, want):
    assert got.shape == want.shape and np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


def test_checkpoint_graph_and_engines_agree_over_a_stream(folder, module):
    """torch on the checkpoint, ONNX Runtime and fastrnn on the graph, each with caches of its own over 60 frames."""
    session = onnxruntime.InferenceSession(str(folder / "gtcrn_simple.onnx"), providers=["CPUExecutionProvider"])
    caches, mine = zeros(session), [torch.zeros(a.shape) for a in zeros(session).values()]
    stream = fr.compile(fr.from_onnx(folder / "gtcrn_simple.onnx"), states={name: f"{name}_out" for name in CACHES}).stream()
    rows = {"torch": [], "onnxruntime": [], "fastrnn": []}
    for frame in frames():
        with torch.no_grad():
            y, *mine = module(torch.from_numpy(frame), *mine)
        theirs, *after = session.run(None, {"mix": frame, **caches})
        caches = dict(zip(CACHES, after, strict=True))
        for name, out in (("torch", y.numpy()), ("onnxruntime", theirs), ("fastrnn", stream.step(frame))):
            rows[name].append(np.array(out))
    for name in ("torch", "onnxruntime"):
        agree(np.stack(rows["fastrnn"]), np.stack(rows[name]))
    for name, cache in zip(CACHES, mine, strict=True):
        agree(stream.state[name], cache.numpy())
        agree(stream.state[name], caches[name])


def test_layers_of_the_checkpoint_are_those_of_the_graph(folder, module):
    """14 GRUs by key pattern, the prefix behind "model"; one of them against torch."""
    layers = fr.from_state_dict(folder / "stream_model_trained_on_dns3.tar", prefix="dpgrnn1")
    assert (
        sorted(layers) == ["inter_rnn.rnn1", "inter_rnn.rnn2", "intra_rnn.rnn1", "intra_rnn.rnn2"]
        and len(fr.from_state_dict(module.state_dict())) == 14
    )
    x = torch.randn(33, 5, 8)
    with torch.no_grad():
        want = nn.GRU.forward(module.dpgrnn1.intra_rnn.rnn2, x.transpose(0, 1))[0].transpose(0, 1)
    agree(layers["intra_rnn.rnn2"](x.numpy())[0], want.numpy())


@pytest.mark.sweep
def test_the_module_itself_agrees_through_torch_export(module):
    """from_torch captures the module by example inputs; its outputs over a stream are torch's."""
    mine = [torch.zeros(2, 1, 16, 16, 33), torch.zeros(2, 3, 1, 1, 16), torch.zeros(2, 1, 33, 16)]
    session = fr.compile(fr.from_torch(module, (torch.from_numpy(frames()[0]), *mine)))
    caches = [a.numpy() for a in mine]
    for frame in frames()[:20]:
        with torch.no_grad():
            y, *mine = module(torch.from_numpy(frame), *mine)
        got, *caches = session(frame, *caches)
        agree(got, y.numpy())
    for cache, other in zip(caches, mine, strict=True):
        agree(cache, other.numpy())
