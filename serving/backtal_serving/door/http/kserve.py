"""KServe v2's JSON, with the binary extension, to and from the messages of gRPC."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from backtal.errors import InvalidArgument
from backtal_serving.door.http.bodies import parse_json
from backtal_serving.door.http.formats import tensors_of

HEADER_LENGTH = "inference-header-content-length"
BINARY_SIZE, BINARY_DATA, BINARY_OUTPUT = "binary_data_size", "binary_data", "binary_data_output"
MAX_INT64 = 2**63 - 1
KEYS = {
    "request": {"id", "parameters", "inputs", "outputs"},
    "input": {"name", "shape", "datatype", "parameters", "data"},
    "output": {"name", "parameters"},
}


def read_request(
    body: bytes, header_length: str | None, *, max_json_bytes: int
) -> tuple[Any, frozenset[str] | None]:
    """A ModelInferRequest, and the outputs that are wanted as binary; None is all of them.

    Raises InvalidArgument for what is no request of KServe's.
    """
    length = _header_length(header_length, len(body))
    if length > max_json_bytes:
        raise InvalidArgument(
            f"the request has {length} bytes of JSON, allowed are {max_json_bytes}: "
            "send tensors as binary data"
        )
    binary = memoryview(body)[length:]
    document = _object(parse_json(body[:length], "the request"), "request")
    request = service_pb2.ModelInferRequest(id=_text(document.get("id", ""), "id"))
    parameters = _mapping(document.get("parameters", {}), "parameters")
    all_binary = parameters.pop(BINARY_OUTPUT, False) is True
    _set_parameters(request.parameters, parameters)
    for item in _list(document.get("inputs"), "inputs"):
        binary = _add_input(request, _object(item, "input"), binary)
    if binary:
        raise InvalidArgument(f"{len(binary)} bytes of binary data belong to no input")
    wanted = _add_outputs(request, _list(document.get("outputs", []), "outputs"), all_binary)
    return request, None if all_binary and not request.outputs else frozenset(wanted)


def write_response(
    response: Any, binary_outputs: frozenset[str] | None
) -> tuple[list[bytes], int | None]:
    """The body's parts and, where a part is binary, the length of its JSON."""
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    tensors = tensors_of(response)
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        described: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if binary_outputs is None or output.name in binary_outputs:
            described["parameters"] = {BINARY_SIZE: len(raw)}
            binary.append(raw)
        else:
            described["data"] = _plain(tensors[output.name])
        outputs.append(described)
    document = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        **({"id": response.id} if response.id else {}),
        "outputs": outputs,
    }
    header = json.dumps(document).encode()
    return [header, *binary], len(header) if binary else None


def _add_input(request: Any, item: Mapping[str, Any], binary: memoryview) -> memoryview:
    name = _text(item.get("name"), "an input's name")
    shape = _shape(item.get("shape"), name)
    datatype = _text(item.get("datatype"), f"{name}'s datatype")
    parameters = _mapping(item.get("parameters", {}), f"{name}'s parameters")
    size = parameters.pop(BINARY_SIZE, None)
    tensor = request.inputs.add(name=name, shape=shape, datatype=datatype)
    _set_parameters(tensor.parameters, parameters)
    if size is None:
        request.raw_input_contents.append(_from_json(item.get("data"), name, datatype))
        return binary
    if "data" in item:
        raise InvalidArgument(f"{name} has both data and {BINARY_SIZE}")
    if not _is_whole(size) or not 0 <= size <= len(binary):
        raise InvalidArgument(
            f"{name} has {BINARY_SIZE} {size!r:.40}, {len(binary)} bytes are left"
        )
    request.raw_input_contents.append(bytes(binary[:size]))
    return binary[size:]


def _from_json(data: Any, name: str, datatype: str) -> bytes:
    if datatype == "BYTES":
        texts = data if isinstance(data, list) else None
        if texts is None or not all(isinstance(text, str) for text in texts):
            raise InvalidArgument(f"data of {name} is no list of texts")
        encoded = [text.encode(errors="surrogatepass") for text in texts]
        tensor = serialize_byte_tensor(np.array(encoded, np.object_))
        return tensor.item() if tensor.size else b""
    try:
        values = np.asarray(data)
        if values.dtype.kind not in "iuf" and values.size:
            raise ValueError
        return values.astype("<f4").tobytes()
    except (ValueError, TypeError, OverflowError):
        raise InvalidArgument(f"data of {name} is no array of numbers") from None


def _add_outputs(request: Any, items: list[Any], all_binary: bool) -> list[str]:
    wanted = []
    for item in items:
        output = _object(item, "output")
        name = _text(output.get("name"), "an output's name")
        parameters = _mapping(output.get("parameters", {}), f"{name}'s parameters")
        if parameters.pop(BINARY_DATA, all_binary) is True:
            wanted.append(name)
        _set_parameters(request.outputs.add(name=name).parameters, parameters)
    return wanted


def _set_parameters(target: Any, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif _is_whole(value) and abs(value) <= MAX_INT64:
            target[name].int64_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        elif isinstance(value, str):
            target[name].string_param = _text(value, name)
        else:
            raise InvalidArgument(
                f"{name[:80]} is {value!r:.80}, allowed are text, number and bool"
            )


def _plain(values: NDArray[Any]) -> list[Any]:
    flat = values.reshape(-1).tolist()
    return [item.decode(errors="replace") if isinstance(item, bytes) else item for item in flat]


def _header_length(text: str | None, body_length: int) -> int:
    if text is None:
        return body_length
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) > body_length:
        raise InvalidArgument(f"{HEADER_LENGTH} is {text[:40]!r}, the body has {body_length} bytes")
    return int(text)


def _object(value: Any, kind: str) -> dict[str, Any]:
    fields = _mapping(value, f"the {kind}")
    unknown = sorted(set(fields) - KEYS[kind])
    if unknown:
        raise InvalidArgument(
            f"the {kind} has {unknown[0][:80]!r}, allowed are {', '.join(sorted(KEYS[kind]))}"
        )
    return fields


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{what} is {value!r:.80}, expected an object")
    return dict(value)


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > 64:
        raise InvalidArgument(f"{what} is {value!r:.80}, expected a list")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} is {value!r:.80}, expected a text")
    # Half of a surrogate pair, which JSON can write and UTF-8 cannot.
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidArgument(f"{what} is {value!r:.80}, which is no Unicode text")
    return value


def _shape(value: Any, name: str) -> list[int]:
    sizes = _list(value, f"{name}'s shape")
    if not all(_is_whole(size) and 0 <= size <= MAX_INT64 for size in sizes):
        raise InvalidArgument(f"{name}'s shape is {value!r:.80}, expected whole numbers")
    return sizes


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
