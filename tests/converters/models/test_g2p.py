"""g2p-en: letters to phonemes by an encoder and a decoder stepped from Python, against plain NumPy in float64."""

import numpy as np
import pytest

import fastrnn as fr

LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
VOWELS, CONSONANTS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW", "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
# ARPAbet in the order of its letters, vowels with their stress; one vowel also stands there without.
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *sorted([f"{v}{stress}" for v in VOWELS.split() for stress in range(3)] + CONSONANTS.split() + ["UW"])]
START, STOP, LONGEST = PHONEMES.index("<s>"), PHONEMES.index("</s>"), 20
WORDS = ("activationist", "recurrent", "network", "hello", "phoneme", "zyzzyva", "knight", "latency", "a", "quizzically", "streaming", "psychology")


@pytest.fixture
def weights(shared):
    with np.load(shared / "models/g2p-en/checkpoint20.npz") as file:
        return dict(file)


def gru(weights, side):
    """A side's GRU under torch's names, whose gate order the file has."""
    return {f"{side}.{long}_{way}_l0": weights[f"{side}_{short}_{way}"] for long, short in (("weight", "w"), ("bias", "b")) for way in ("ih", "hh")}


def letters(word):
    return [LETTERS.index(letter) for letter in word] + [LETTERS.index("</s>")]


def cell(w, side, x, h):
    """One step in float64."""
    wide = {k: a.astype(np.float64) for k, a in w.items()}
    i_r, i_z, i_n = np.split(x @ wide[f"{side}_w_ih"].T + wide[f"{side}_b_ih"], 3)
    h_r, h_z, h_n = np.split(h @ wide[f"{side}_w_hh"].T + wide[f"{side}_b_hh"], 3)
    r, z = 1 / (1 + np.exp(-(i_r + h_r))), 1 / (1 + np.exp(-(i_z + h_z)))
    return (1 - z) * np.tanh(i_n + r * h_n) + z * h


def plain(w, word):
    """Phonemes, and the logits of each step, without fastrnn."""
    h, logits, said = np.zeros(256), [], [START]
    for letter in letters(word):
        h = cell(w, "enc", w["enc_emb"][letter].astype(np.float64), h)
    while len(said) <= LONGEST:
        h = cell(w, "dec", w["dec_emb"][said[-1]].astype(np.float64), h)
        logits.append(h @ w["fc_w"].astype(np.float64).T + w["fc_b"])
        said.append(int(logits[-1].argmax()))
        if said[-1] == STOP:
            break
    return said[1:], np.array(logits)


def greedy(w, encoder, decoder, word):
    """The same by an encoder over the word and a decoder that keeps its state; fastrnn's arrays throughout."""
    _, h = encoder(np.ascontiguousarray(w["enc_emb"][letters(word)]))
    decoder.reset()
    decoder.state = {"h0": h[:, None]}
    said, logits = [START], []
    while len(said) <= LONGEST:
        y = decoder.step(w["dec_emb"][said[-1]][None])
        logits.append(y[0] @ w["fc_w"].T + w["fc_b"])
        said.append(int(logits[-1].argmax()))
        if said[-1] == STOP:
            break
    return said[1:], np.array(logits)


def decoder_of(layer):
    """A stream over a layer's parameters."""
    from fastrnn.model.stack import stack_model

    return fr.compile(stack_model(layer.options, layer.state_dict(), "decoder")).stream()


def test_greedy_decoding_says_what_float64_says(weights, tmp_path):
    np.savez(tmp_path / "g2p.npz", **gru(weights, "enc"), **gru(weights, "dec"))
    layers = fr.from_state_dict(tmp_path / "g2p.npz")
    assert {name: type(layer) for name, layer in layers.items()} == {"enc": fr.GRU, "dec": fr.GRU} and len(PHONEMES) == len(weights["dec_emb"])
    decoder, spoken = decoder_of(layers["dec"]), {}
    for word in WORDS:
        said, logits = greedy(weights, layers["enc"], decoder, word)
        expected, exact = plain(weights, word)
        assert said == expected, word
        assert np.abs(logits - exact).max() <= 5e-6 * np.abs(exact).max()
        spoken[word] = " ".join(PHONEMES[k] for k in said if k != STOP)
    assert spoken["activationist"] == "AE2 K T IH0 V EY1 SH AH0 N IH0 S T"
    assert len(set(spoken.values())) == len(WORDS)


def test_words_encoded_as_one_ragged_batch_give_the_same_bits(weights):
    encoder = fr.GRU(256, 256)
    encoder.load_state_dict({name.removeprefix("enc."): a for name, a in gru(weights, "enc").items()})
    tokens = [letters(word) for word in WORDS]
    x = np.zeros((max(map(len, tokens)), len(tokens), 256), np.float32)
    for row, word in enumerate(tokens):
        x[: len(word), row] = weights["enc_emb"][word]
    _, together = encoder(x, lengths=[len(word) for word in tokens])
    for row, word in enumerate(tokens):
        assert np.array_equal(together[0, row], encoder(np.ascontiguousarray(weights["enc_emb"][word]))[1][0])
