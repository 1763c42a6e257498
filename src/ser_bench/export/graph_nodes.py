"""The nodes and constants of an ONNX graph, collected one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""The first operator set that has the exact GELU."""
IR_VERSION = 10
"""Version of the file format; onnxruntime reads it since 1.18."""
FLOAT, HALF = 1, 10
"""ONNX's numbers of the types float32 and float16."""
Constant = npt.NDArray[Any] | int | float


class GraphNodes:
    """A graph under construction. Every method that adds a node returns the name of its first output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> str:
        """Add a node. A node with several outputs gives them the names `<first>`, `<first>.1`, `<first>.2` …

        Args:
            operator: name of the ONNX operator.
            inputs: names of its inputs; "" for an optional one that is left out.
            outputs: number of its outputs.
            name: name of the node and of its first output; "": a new one.
            attributes: of the operator.
        """
        from onnx import helper

        first = name or f"{operator.lower()}_{len(self._nodes)}"
        names = [first, *(f"{first}.{number}" for number in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=first, **attributes))
        return first

    def constant(self, value: Constant, name: str = "") -> str:
        """Add a constant and return its name: floating-point numbers as float32, integers as int64."""
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array.astype(np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64)
        name = name or f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def linear(self, x: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any], name: str = "") -> str:
        """Return x · weightᵀ + bias, with weight [out, in] and bias [out]; the product is a MatMul called `name`."""
        product = self.add("MatMul", x, self.constant(weight.T), name=name)
        return self.add("Add", product, self.constant(bias))

    def mean(self, x: str, axis: int, keepdims: bool = False) -> str:
        """Return the mean over an axis."""
        return self.add("ReduceMean", x, self.constant(np.array([axis])), keepdims=int(keepdims))

    def sum(self, x: str, axis: int, keepdims: bool = False) -> str:
        """Return the sum over an axis."""
        return self.add("ReduceSum", x, self.constant(np.array([axis])), keepdims=int(keepdims))

    def square(self, x: str) -> str:
        """Return x²."""
        return self.add("Mul", x, x)

    def slice(self, x: str, start: str, end: str, axis: int) -> str:
        """Return x[start:end] along an axis; both are names of int64 [1]."""
        return self.add("Slice", x, start, end, self.constant(np.array([axis])))

    def length(self, x: str, axis: int) -> str:
        """Return the length of an axis, int64 [1]."""
        return self.add("Shape", x, start=axis, end=axis + 1)

    def model(
        self,
        inputs: dict[str, Sequence[int | str]],
        outputs: dict[str, Sequence[int | str]],
        doc: str,
    ) -> onnx.ModelProto:
        """Return the checked model; inputs and outputs are float32, their axes numbers or names.

        The outputs are names of nodes.
        """
        import onnx
        from onnx import helper

        def described(values: dict[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, FLOAT, list(shape)) for name, shape in values.items()]

        graph = helper.make_graph(
            self._nodes, "ser_bench", described(inputs), described(outputs), self._constants, doc_string=doc
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="ser_bench")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model
