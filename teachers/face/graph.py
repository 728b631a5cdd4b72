"""Rewrites OpenVINO's graphs of the face networks to save work; results change by rounding only.

The bias of a depthwise convolution moves into the pointwise one after it (OpenVINO would add each of 34 in a separate
step). The last layer loses the rows of z, which are not used. The blendshape network is rebuilt. Together this saves a
tenth of the time. Convolutions are computed by oneDNN's direct kernels: OpenVINO's own choice takes 1.5 times as long
where vectors have 512 bits, because the first layers' 8 channels fill only half of them.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np


def constant(value: Any) -> np.ndarray | None:
    """The value of an output that depends only on constants, through the nodes that OpenVINO's reader puts before
    weights; else None."""
    node = value.get_node()
    kind = node.get_type_name()
    if kind == "Constant":
        return node.data
    if kind not in {"Convert", "Unsqueeze", "Transpose", "Reshape"}:
        return None
    data, *arguments = (constant(one) for one in node.input_values())
    if data is None or any(argument is None for argument in arguments):
        return None
    if kind == "Convert":
        return data.astype(np.float32)
    if kind == "Transpose":
        return data.transpose(np.asarray(arguments[0]).tolist())
    return data.reshape(list(node.output(0).shape))


def fold_depthwise_bias(model: Any) -> None:
    """W (d + b) + c = W d + (W b + c): the bias b of each depthwise convolution d is added to that of the pointwise
    one, W."""
    from openvino import opset13 as ops

    for depthwise in model.get_ordered_ops():
        chain = _chain(depthwise, ["GroupConvolution", "Add", "Convolution", "Add"])
        if chain is None:
            continue
        _, first, pointwise, second = chain
        bias, weights, offset = (constant(node.input_value(1)) for node in (first, pointwise, second))
        if bias is None or weights is None or offset is None or weights.shape[2:] != (1, 1):
            continue
        moved = weights[:, :, 0, 0].astype(np.float64) @ bias.reshape(-1).astype(np.float64)
        total = ops.constant((offset + moved.reshape(offset.shape)).astype(np.float32))
        pointwise.input(0).replace_source_output(depthwise.output(0))
        second.input(1).replace_source_output(total.output(0))


def _chain(node: Any, kinds: list[str]) -> list[Any] | None:
    """The node and those after it, if they have these kinds and each except the last has one reader."""
    found: list[Any] = []
    for kind in kinds:
        if found:
            readers = list(found[-1].output(0).get_target_inputs())
            if len(readers) != 1:
                return None
            node = readers[0].get_node()
        if node.get_type_name() != kind:
            return None
        found.append(node)
    return found


def planar_bytes(model: Any) -> Any:
    """The network with an input [1, 3, height, width] from 0 to 255 instead of [1, height, width, 3] from 0 to 1.

    The direct kernels read the channels separately; the factor goes into the weights of the first convolution. Raises
    ValueError if the network does not begin with a transposition and a convolution.
    """
    from openvino import Model
    from openvino import opset13 as ops

    (old,) = model.get_parameters()
    (reader,) = old.output(0).get_target_inputs()
    transposed = reader.get_node()
    readers = [one.get_node() for one in transposed.output(0).get_target_inputs()]
    if transposed.get_type_name() != "Transpose" or [one.get_type_name() for one in readers] != ["Convolution"]:
        raise ValueError("its landmark network does not begin with one convolution")
    image = ops.parameter(list(transposed.output(0).shape), np.float32)
    first = readers[0]
    weights = ops.multiply(ops.convert(first.input_value(1), "f32"), ops.constant(np.float32(1 / 255)))
    first.input(0).replace_source_output(image.output(0))
    first.input(1).replace_source_output(weights.output(0))
    return Model(model.get_results(), [image], model.get_friendly_name())


def planar_points(model: Any, points: int) -> Any:
    """The landmark network with two outputs: f4 [1, 2 * points], all x, then all y; and the logit of a face, f4 [1].

    Raises ValueError if the first output is not 3 * points numbers from a convolution over its whole input.
    """
    from openvino import Model
    from openvino import opset13 as ops

    landmarks, presence = (output.get_node().input_value(0) for output in model.outputs[:2])
    add = landmarks.get_node()
    while add.get_type_name() in {"Transpose", "Reshape"}:
        add = add.input_value(0).get_node()
    layer = add.input_value(0).get_node()
    weights, bias = constant(layer.input_value(1)), constant(add.input_value(1))
    if weights is None or bias is None or weights.shape[0] != 3 * points or list(layer.output(0).shape[2:]) != [1, 1]:
        raise ValueError(f"its landmark network does not end in {points} points")
    order = np.arange(3 * points).reshape(points, 3)[:, :2].T.reshape(-1)
    # As a matrix product over height, width, channels: the order of the data.
    matrix = weights.astype(np.float32)[order].transpose(0, 2, 3, 1).reshape(len(order), -1)
    last = ops.transpose(layer.input_value(0), ops.constant(np.array([0, 2, 3, 1])))
    row = ops.reshape(last, ops.constant(np.array([1, matrix.shape[1]])), False)
    product = ops.matmul(row, ops.constant(matrix), False, True)
    shifted = ops.add(product, ops.constant(bias.astype(np.float32).reshape(1, -1)[:, order]))
    logit = ops.reshape(presence, ops.constant(np.array([1])), False)
    return Model([ops.result(shifted), ops.result(logit)], model.get_parameters(), "landmarks")


def mixer(model: Any) -> Any:
    """The blendshape network rebuilt: f4 [1, 146, 2] in, f4 [52] out.

    An MLP-Mixer (arXiv 2105.01601) on 96 tokens made of the points and one learned token: four blocks of two layers
    across tokens and two across channels, with a scaled norm before each pair. OpenVINO's reader turns it into
    convolutions and transpositions. Here it consists of matrix products, and the last block computes only the token
    that is read. Raises ValueError if the layers differ.
    """
    from openvino import Model
    from openvino import opset13 as ops

    def array(values: np.ndarray) -> Any:
        return ops.constant(np.ascontiguousarray(values, np.float32))

    def numbers(*values: int) -> Any:
        return ops.constant(np.array(values))

    def across_tokens(tokens: Any, layer: tuple[np.ndarray, np.ndarray]) -> Any:
        return ops.add(ops.matmul(array(layer[0][None]), tokens, False, False), array(layer[1][None, :, None]))

    def across_channels(tokens: Any, layer: tuple[np.ndarray, np.ndarray]) -> Any:
        return ops.add(ops.matmul(tokens, array(layer[0]), False, True), array(layer[1]))

    def norm(tokens: Any, scale: np.ndarray) -> Any:
        return ops.multiply(ops.mvn(tokens, numbers(2), True, epsilon, "inside_sqrt"), array(scale))

    layers, scales, token, epsilon, unit = _mixer_weights(model)
    points = ops.parameter([1, 146, 2], np.float32)
    centred = ops.subtract(points, ops.reduce_mean(points, numbers(1), True))
    radius = ops.sqrt(ops.reduce_sum(ops.multiply(centred, centred), numbers(2), True))
    shape = ops.multiply(ops.divide(centred, ops.reduce_mean(radius, numbers(1), True)), array(np.array(unit)))
    tokens = ops.concat([array(token), across_channels(across_tokens(shape, layers[0]), layers[1])], 1)
    for block in range(4):
        first, second, third, fourth = layers[2 + 4 * block : 6 + 4 * block]
        hidden = ops.relu(across_tokens(norm(tokens, scales[2 * block]), first))
        if block == 3:
            second = second[0][:1], second[1][:1]
            tokens = ops.slice(tokens, numbers(0), numbers(1), numbers(1), numbers(1))
        tokens = ops.add(tokens, across_tokens(hidden, second))
        hidden = ops.relu(across_channels(norm(tokens, scales[2 * block + 1]), third))
        tokens = ops.add(tokens, across_channels(hidden, fourth))
    scores = ops.sigmoid(across_channels(tokens, layers[-1]))
    return Model([ops.result(ops.reshape(scores, numbers(scores.shape[-1]), False))], [points], "blendshapes")


def _mixer_weights(
    model: Any,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray], np.ndarray, float, float]:
    """Matrix and bias of each layer, scale of each norm, the learned token [1, 1, 64], the norms' epsilon, the unit of
    size."""
    found: dict[str, list[np.ndarray]] = {}
    layers = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        values = [value for value in map(constant, node.input_values()) if value is not None]
        if kind == "Convolution" and values:
            (reader,) = node.output(0).get_target_inputs()
            bias = constant(reader.get_node().input_value(1))
            layers.append((values[0].astype(np.float32)[:, :, 0, 0], np.asarray(bias, np.float32).reshape(-1)))
        elif kind in {"Add", "Multiply", "Concat"}:
            for value in values:
                found.setdefault(f"{kind} {value.size}", []).append(value.reshape(-1))
    block = [(384, 97), (97, 384), (256, 64), (64, 256)]
    expected = [(96, 146), (64, 2), *4 * block, (52, 64)]
    scales, token = found.get("Multiply 64", []), found.get("Concat 64", [])
    epsilons, units = set(np.ravel(found.get("Add 1", []))), np.ravel(found.get("Multiply 1", []))
    sizes = [matrix.shape for matrix, _ in layers]
    if sizes != expected or (len(scales), len(token), len(epsilons), len(units)) != (8, 1, 1, 1):
        raise ValueError(f"its blendshape network has unknown layers: {sizes}")
    return layers, scales, token[0].reshape(1, 1, -1), float(epsilons.pop()), float(units[0])


def with_direct_kernels(model: Any, core: Any, folder: Path) -> Any:
    """The network, marked so that its convolutions run in oneDNN's direct kernels, in a layout of blocked channels.

    OpenVINO accepts the mark only from a file, so the network is written to one in the folder and read again. Where
    such a kernel does not exist, OpenVINO chooses another.
    """
    import openvino

    path = folder / "marked.xml"
    openvino.serialize(model, path, path.with_suffix(".bin"))
    kernels = [f"cpu:jit_{vectors}{kind}" for vectors in ("avx512", "avx2") for kind in ("_1x1", "_dw", "")]
    tree = ElementTree.parse(path)
    for layer in tree.iter("layer"):
        if layer.get("type") in {"Convolution", "GroupConvolution"}:
            notes = ElementTree.Element("rt_info")
            ElementTree.SubElement(notes, "attribute", name="primitives_priority", version="0", value=",".join(kernels))
            layer.insert(1, notes)  # after the layer's own attributes
    tree.write(path)
    return core.read_model(path)
