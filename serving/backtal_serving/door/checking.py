"""Is this message a request of the model? Triton's own refusals do not say whose fault it was.

What passes has the tensors of the model's configuration, each with as many bytes as its shape
says, and no parameter beyond the wire's. Values are the pipeline's to check.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from backtal.errors import InvalidArgument
from backtal_serving.door.catalogue import ModelSpec, TensorSpec
from backtal_serving.wire import check_parameter_names

MAX_ID_CHARACTERS = 256
MAX_TEXT_CHARACTERS = 64 * 1024
LENGTH_BYTES = 4
ELEMENT_BYTES = {"FP32": 4}
# The fields of typed contents, by datatype; KServe's other way to send a tensor.
CONTENTS = {"FP32": "fp32_contents", "BYTES": "bytes_contents"}
# Triton's own clients set these; all else (priority, timeout, shared memory) is not for strangers.
OWN_PARAMETERS = frozenset({"triton_enable_empty_final_response"})
PARAMETER_KINDS = ("bool_param", "int64_param", "double_param", "string_param")
OUTPUT_PARAMETERS = frozenset({"binary_data"})


def check(request: Any, spec: ModelSpec) -> None:
    """Raise InvalidArgument, by the tensor's or parameter's name, for what is no request."""
    if len(request.id) > MAX_ID_CHARACTERS:
        raise InvalidArgument(
            f"id has {len(request.id)} characters, allowed are {MAX_ID_CHARACTERS}"
        )
    check_parameters(request.parameters)
    _check_names("input", [tensor.name for tensor in request.inputs], spec.inputs)
    _check_names("output", [tensor.name for tensor in request.outputs], spec.outputs)
    for output in request.outputs:
        _check_no_others(f"output {output.name}", output.parameters, OUTPUT_PARAMETERS)
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidArgument(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs"
        )
    for index, tensor in enumerate(request.inputs):
        _check_no_others(f"input {tensor.name}", tensor.parameters, frozenset())
        expected = spec.inputs[tensor.name]
        _check_shape(tensor, expected)
        if raw:
            _check_raw(tensor, raw[index])
        else:
            _check_contents(tensor)


def check_parameters(parameters: Any) -> None:
    """Raise InvalidArgument for a request parameter that no client may set."""
    names = [name for name in parameters if name not in OWN_PARAMETERS]
    # Triton's reserved names are not the pipeline's business; here they are nobody's.
    for name in names:
        if name.startswith("triton_"):
            raise InvalidArgument(f"unknown parameter {name[:80]!r}")
    check_parameter_names(dict.fromkeys(name[:80] for name in names))
    for name in parameters:
        kind = parameters[name].WhichOneof("parameter_choice")
        if kind not in PARAMETER_KINDS:
            raise InvalidArgument(
                f"{name} is {kind or 'empty'}, allowed are {', '.join(PARAMETER_KINDS)}"
            )
    for name in names:
        value = parameters[name].string_param
        if len(value) > MAX_TEXT_CHARACTERS:
            raise InvalidArgument(
                f"{name} has {len(value)} characters, allowed are {MAX_TEXT_CHARACTERS}"
            )


def _check_names(kind: str, names: list[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise InvalidArgument(f"no {kind} {name[:80]!r}, there are {', '.join(known)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgument(f"{kind} {twice} is given twice")


def _check_no_others(where: str, parameters: Any, allowed: frozenset[str]) -> None:
    for name in parameters:
        if name not in allowed:
            raise InvalidArgument(
                f"{where} has the parameter {name[:80]!r}, "
                f"allowed are {', '.join(allowed) or 'none'}"
            )


def _check_shape(tensor: Any, expected: TensorSpec) -> None:
    shape = tuple(tensor.shape)
    fits = len(shape) == len(expected.shape) and all(
        have == want or (want == -1 and have >= 0)
        for have, want in zip(shape, expected.shape, strict=True)
    )
    if tensor.datatype != expected.datatype or not fits:
        raise InvalidArgument(
            f"{tensor.name} is {tensor.datatype[:20]} {list(shape)[:8]}, "
            f"expected {expected.datatype} {list(expected.shape)}"
        )


def _check_raw(tensor: Any, content: bytes) -> None:
    if tensor.HasField("contents"):
        raise InvalidArgument(f"{tensor.name} has both contents and raw contents")
    if tensor.datatype in ELEMENT_BYTES:
        expected = math.prod(tensor.shape) * ELEMENT_BYTES[tensor.datatype]
        if len(content) != expected:
            raise InvalidArgument(
                f"{tensor.name} has {len(content)} bytes, its shape {list(tensor.shape)} "
                f"means {expected}"
            )
        return
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    if len(content) < LENGTH_BYTES or length != len(content) - LENGTH_BYTES:
        raise InvalidArgument(
            f"{tensor.name} has {len(content)} bytes, which are not one text with its length "
            "of 4 bytes in front"
        )


def _check_contents(tensor: Any) -> None:
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    wanted = CONTENTS.get(tensor.datatype, "")
    if filled not in ([wanted], []):
        raise InvalidArgument(f"{tensor.name} has {', '.join(filled)}, expected {wanted}")
    have, want = len(getattr(tensor.contents, wanted, ())), math.prod(tensor.shape)
    if have != want:
        raise InvalidArgument(
            f"{tensor.name} has {have} values, its shape {list(tensor.shape)} means {want}"
        )
