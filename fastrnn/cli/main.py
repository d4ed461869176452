"""Arguments, errors and exit codes."""

from __future__ import annotations

import argparse
import os
import sys

import fastrnn
from fastrnn.cli import bench, commands, info, inspection, running, serve
from fastrnn.cli.console import Console, UsageError
from fastrnn.converters.engines import ENGINES
from fastrnn.converters.verify import LENGTHS, SMALL_TOLERANCES, TOLERANCE
from fastrnn.errors import FastRNNError, MissingDependencyError
from fastrnn.model.small import PRECISIONS
from fastrnn.plan.lowering.parallel import MOST_THREADS
from fastrnn.plan.policy import BACKENDS

LARGEST = 1 << 31
DONE, PAST_TOLERANCE, USAGE, UNUSABLE, MISSING = range(5)
INTERRUPTED, READER_GONE = 130, 141  # as a shell names what SIGINT and SIGPIPE end
EXIT_CODES = "exit codes: 0 done; 1 verify or bench found an error past tolerance; 2 wrong usage; 3 a model or data that cannot be used; 4 a package is missing; 130 interrupted"


def positive(text: str) -> int:
    """A whole number from 1."""
    if not 1 <= (value := int(text)) <= LARGEST:
        raise ValueError
    return value


def thread_count(text: str) -> int:
    """As many threads as a pool can have at most."""
    if (value := positive(text)) > MOST_THREADS:
        raise ValueError
    return value


def natural(text: str) -> int:
    """A whole number from 0."""
    if not 0 <= (value := int(text)) <= LARGEST:
        raise ValueError
    return value


def positives(text: str) -> list[int]:
    """Whole numbers from 1, between commas."""
    try:
        return [positive(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers from 1, such as 1,3") from None


def fraction(text: str) -> float:
    """A finite number above 0."""
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value


def json_file(text: str) -> str:
    """A file to write; anything else, such as the model behind a bare --json, is a mistake."""
    if not text.endswith(".json"):
        raise ValueError
    return text


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("fastrnn", description="Recurrent networks on the CPU.", epilog=EXIT_CODES)
    top.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    sub = top.add_subparsers(dest="command", required=True)

    def command(name: str, run, text: str, with_model: bool = True):
        one = sub.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
        one.set_defaults(run=run)
        if name == "bench":
            one.add_argument(
                "--json",
                nargs="?",
                const=True,
                default=False,
                type=json_file,
                metavar="FILE",
                help="print one JSON object, or write it to a .json file",
            )
        else:
            one.add_argument("--json", action="store_true", help="print one JSON object")
        if with_model:
            one.add_argument("model", help=".onnx, .pt2, TorchScript's .pt, .keras, .h5, .tflite or .safetensors")
            one.add_argument(
                "--state",
                action="append",
                default=[],
                metavar="INPUT=OUTPUT[:INDEX]",
                help="an output, or a slice of its axis 0, that feeds an input at the next step",
            )
            one.add_argument(
                "--constant",
                action="append",
                default=[],
                metavar="INPUT=VALUE",
                help="an input fixed at compile time: a number, a list, or a .npy file",
            )
        return one

    def with_precision(one, text: str = "of weights, for all nodes or for one"):
        one.add_argument(
            "--precision", action="append", default=[], metavar="[NODE=]NAME", help=f"{text}: {', '.join(PRECISIONS)} (float32); may be repeated"
        )

    def with_tolerance(one):
        small = ", ".join(f"{number:g} in {name}" for name, number in SMALL_TOLERANCES.items())
        one.add_argument(
            "--tolerance",
            type=fraction,
            help=f"largest error, as a fraction of an output's largest entry ({TOLERANCE:g}; of float32's own results {small})",
        )

    one = command("convert", commands.convert, "Write a model as fastrnn's .safetensors.")
    one.add_argument("-o", "--output", required=True, help="the file to write")
    one.add_argument("--output-names", metavar="NAME,NAME", help="of an .onnx file, the outputs to keep; what feeds no other is left out")
    with_precision(one)

    one = command("inspect", inspection.inspect, "Show a model: inputs, outputs, states (declared or guessed), parameters, and what runs each op.")
    one.add_argument("--backend", default="auto", choices=BACKENDS)
    with_precision(one)
    one.add_argument("--size", action="append", default=[], metavar="DIM=N", help="size of a symbolic dimension: shows what is left once it is known")

    one = command(
        "verify",
        commands.verify,
        "Run the same random inputs, and a stream of steps, through the source's own engine and through fastrnn; "
        "with --precision, through float32 and small weights.",
    )
    with_precision(one)
    one.add_argument(
        "--against",
        default="auto",
        choices=("auto", *ENGINES),
        help="onnxruntime or openvino (for .onnx), keras (for .keras and .h5), torch, reference (NumPy in float64), or auto: what the file was made for, "
        "with --precision fastrnn's float32",
    )
    one.add_argument("--batch", type=positives, default=[1, 3], metavar="N,N", help="batch sizes (1,3)")
    one.add_argument("--size", action="append", default=[], metavar="DIM=N", help="size of a symbolic dimension, 16 if not said")
    one.add_argument(
        "--length", type=positives, default=list(LENGTHS), metavar="N,N", help=f"lengths of a symbolic time axis ({','.join(map(str, LENGTHS))})"
    )
    one.add_argument("--steps", type=positive, default=50, help="length of the stream, for models that stream (50)")
    one.add_argument("--input", action="append", default=[], metavar="NAME=FILE", help=".npy to take instead of random numbers")
    with_tolerance(one)
    one.add_argument("--seed", type=natural, default=0)

    one = command("run", running.run, "Run a model on arrays (.npy) or audio (.wav).")
    with_precision(one)
    one.add_argument("--input", action="append", default=[], required=True, metavar="NAME=FILE", help=".npy, or .wav cut into frames")
    one.add_argument("--output", action="append", default=[], metavar="NAME=FILE", help=".npy, or .wav of the frames put together")
    one.add_argument("--stream", action="store_true", help="inputs hold a step in each entry of axis 0; states are carried (implied by .wav)")
    one.add_argument("--frame", type=positive, help="new samples in a frame of audio; the input's last dimension if not said")
    one.add_argument("--context", type=natural, default=0, help="samples of the frame before that each frame starts with")

    one = command("bench", bench.bench, "Time a model beside other engines: same inputs, results compared first, in turns.")
    with_precision(
        one, "names between commas: small weights to time beside float32, which always is, and compare with it; NODE=NAME holds for all of them"
    )
    one.add_argument("--against", metavar="ENGINE,ENGINE", help=f"{', '.join(ENGINES)}; onnxruntime for .onnx if not said")
    one.add_argument("--batch", type=positives, default=[1], metavar="N,N", help="batch sizes (1)")
    one.add_argument(
        "--steps", type=positives, metavar="N,N", help="lengths of the time axis (1,100), or calls of the stream where states are tied (1)"
    )
    one.add_argument("--size", action="append", default=[], metavar="DIM=N", help="size of a symbolic dimension, 16 if not said")
    one.add_argument("--threads", type=thread_count, default=1, help=f"of every engine, at most {MOST_THREADS} (1)")
    with_tolerance(one)
    one.add_argument("--seed", type=natural, default=0)
    one.add_argument("--plot", metavar="FILE", help="an .svg or .png of the medians; needs fastrnn[plot]")

    one = command("serve", serve.serve, "Serve models over HTTP, gRPC (Open Inference Protocol v2, with sequences) and WebSocket.", with_model=False)
    serve.add_arguments(one, positive, natural, thread_count, fraction)

    command("info", info.info, "The machine: CPU, instruction sets, versions, measured roofline.", with_model=False)
    return top


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    arguments = parser().parse_args(argv)
    try:
        console = Console(arguments.json is True)
        code = arguments.run(arguments, console)
        console.close()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("fastrnn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `fastrnn inspect m.onnx | head`: nobody reads what is left, nor what Python would flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except MissingDependencyError as error:
        print(f"fastrnn: {error}", file=sys.stderr)
        return MISSING
    except UsageError as error:
        print(f"fastrnn: {error}", file=sys.stderr)
        return USAGE
    except (FastRNNError, OSError) as error:
        print(f"fastrnn: {error}", file=sys.stderr)
        return UNUSABLE
    except MemoryError as error:
        print(f"fastrnn: not enough memory: {error}", file=sys.stderr)
        return UNUSABLE
