"""Rewritings of the face networks that save work and change results by rounding alone, on OpenVINO's graphs.

The bias of a depthwise convolution moves into the pointwise one behind it (OpenVINO would add each of 34 in a step of its own);
the last layer loses the rows of z, which nobody reads; and of the blendshape network's last mixer block only the token
that is read is computed. Together a tenth of the time. The first and the third are found by structure: a graph without the
pattern is left as it is.
"""

from typing import Any

import numpy as np

# Functions of OpenVINO's opset by the names of its operations.
_ELEMENTWISE = {
    "Add": "add",
    "Subtract": "subtract",
    "Multiply": "multiply",
    "Power": "power",
    "SquaredDifference": "squared_difference",
    "Relu": "relu",
    "Negative": "negative",
}


def constant(value: Any) -> np.ndarray | None:
    """What an output holds if it depends on constants alone, through what OpenVINO's reader puts before weights; else None."""
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
    numbers = np.asarray(arguments[0]).reshape(-1).tolist()
    if kind == "Unsqueeze":
        return np.expand_dims(data, tuple(numbers))
    return data.transpose(numbers) if kind == "Transpose" else data.reshape(numbers)


def fold_depthwise_bias(model: Any) -> None:
    """W (d + b) + c = W d + (W b + c): the bias b of each depthwise convolution d joins that of the pointwise one, W."""
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
    """The node and those behind it, if their kinds are these and each but the last has one reader."""
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


def planar(model: Any, points: int) -> Any:
    """The landmark network with two outputs: f4 [1, 2 * points], all x, then all y; and the logit of a face, f4 [1].

    Raises ValueError where the first output is not 3 * points numbers from a convolution that sees its input whole.
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
    # As a product of matrices, over height, width, channels: so the data lie.
    matrix = weights.astype(np.float32)[order].transpose(0, 2, 3, 1).reshape(len(order), -1)
    last = ops.transpose(layer.input_value(0), ops.constant(np.array([0, 2, 3, 1])))
    row = ops.reshape(last, ops.constant(np.array([1, matrix.shape[1]])), False)
    product = ops.matmul(row, ops.constant(matrix), False, True)
    shifted = ops.add(product, ops.constant(bias.astype(np.float32).reshape(1, -1)[:, order]))
    logit = ops.reshape(presence, ops.constant(np.array([1])), False)
    return Model([ops.result(shifted), ops.result(logit)], model.get_parameters(), "landmarks")


def read_one_token(model: Any) -> None:
    """Narrow what lies before the slices that pick the first token of a mixer network, as far up as nobody else reads it."""
    for picked in model.get_ordered_ops():
        before = picked.input_value(0).get_node() if picked.get_type_name() == "StridedSlice" else picked
        if picked is before or before.get_type_name() != "StridedSlice":
            continue
        source, kept = before.input_value(0), picked.output(0)
        axes = [axis for axis, size in enumerate(source.shape) if kept.shape[axis] != size]
        begins = [constant(node.input_value(1)) for node in (before, picked)]
        if len(axes) == 1 and kept.shape[axes[0]] == 1 and all(b is not None and not b.any() for b in begins):
            narrow = _First().of(source, axes[0])
            for reader in kept.get_target_inputs():
                reader.replace_source_output(narrow)
    model.validate_nodes_and_infer_types()


class _First(dict[tuple[str, int], Any]):
    """Makes the part of a graph that computes the first index of a tensor along an axis; remembers what it has made."""

    def of(self, value: Any, axis: int) -> Any:
        key = value.get_node().get_name(), axis
        if key not in self:
            self[key] = value if value.shape[axis] == 1 else self._make(value, axis)
        return self[key]

    def _make(self, value: Any, axis: int) -> Any:
        from openvino import opset13 as ops

        node = value.get_node()
        kind, inputs = node.get_type_name(), node.input_values()
        if kind in _ELEMENTWISE:
            narrow = [self.of(one, axis) if len(one.shape) == len(value.shape) else one for one in inputs]
            return getattr(ops, _ELEMENTWISE[kind])(*narrow).output(0)
        if kind == "ReduceMean" and axis not in inputs[1].get_node().data:
            return ops.reduce_mean(self.of(inputs[0], axis), inputs[1], keep_dims=True).output(0)
        if kind == "Transpose" and len(inputs[0].get_target_inputs()) == 1:
            axis_before = int(inputs[1].get_node().data[axis])
            return ops.transpose(self.of(inputs[0], axis_before), inputs[1]).output(0)
        weights = constant(inputs[1]) if kind == "Convolution" else None
        if weights is not None and weights.shape[2:] == (1, 1) and axis > 0:
            rows, source = (weights[:1], inputs[0]) if axis == 1 else (weights, self.of(inputs[0], axis))
            matrix = ops.constant(rows.astype(np.float32))
            return ops.convolution(source, matrix, [1, 1], [0, 0], [0, 0], [1, 1]).output(0)
        return ops.gather(value, ops.constant(np.array([0])), ops.constant(np.array(axis))).output(0)
