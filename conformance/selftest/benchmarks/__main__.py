"""``python -m conformance.selftest.benchmarks NAME``, in a checkout: what the suite costs."""

from __future__ import annotations

from conformance.cli.main import Command, Later, main, no_options

bench = Later("selftest.benchmarks.bench")
freezing = Later("selftest.benchmarks.freezing")
evaluation = Later("selftest.benchmarks.evaluation")
recording = Later("selftest.benchmarks.recording")
keras_onnx = Later("selftest.benchmarks.keras_onnx")
pairing = Later("selftest.benchmarks.pairing")
report = Later("selftest.benchmarks.report")
routes = Later("selftest.benchmarks.routes")
suite = Later("selftest.benchmarks.suite")
tutorial = Later("selftest.benchmarks.tutorial")

BENCHMARKS = (
    Command(
        "bench",
        "alarms of bench where there is no difference, and a small slow-down that it must find",
        bench.benchmark_options,
        bench.run_benchmark,
    ),
    Command(
        "freezing",
        "time and memory of freezing, beside TensorFlow's own (needs TensorFlow)",
        freezing.benchmark_options,
        freezing.run_benchmark,
    ),
    Command(
        "evaluation",
        "images a second of evaluate, of a straightforward evaluator, the machine's limit; memory",
        evaluation.throughput_options,
        evaluation.run_throughput,
    ),
    Command(
        "recording",
        "recorded inference times beside those of a bare loop",
        recording.overhead_options,
        recording.run_overhead,
    ),
    Command(
        "keras-onnx",
        "Keras' own ONNX export of each model, by ONNX Runtime and by OpenCV",
        keras_onnx.benchmark_options,
        keras_onnx.run_benchmark,
    ),
    Command(
        "pairing",
        "how tightly two processes of one OpenCV agree: in turn, in blocks, and at once",
        pairing.benchmark_options,
        pairing.run_benchmark,
    ),
    Command(
        "report",
        "what a report of 13 OpenCV versions and 15 models takes",
        no_options,
        report.run_benchmark,
    ),
    Command(
        "routes",
        "of how many generated models OpenCV is right by some route, rewritten graphs included",
        routes.benchmark_options,
        routes.run_benchmark,
    ),
    Command(
        "suite",
        "the suite itself: cold, warm, -n 2 and its start, here and in another checkout",
        suite.benchmark_options,
        suite.run_benchmark,
    ),
    Command(
        "tutorial",
        "the suite on a warm mobilenet beside the tutorial's own run",
        tutorial.benchmark_options,
        tutorial.run_benchmark,
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(table=BENCHMARKS, program="python -m conformance.selftest.benchmarks"))
