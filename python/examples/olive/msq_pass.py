"""A pass of ONNX Runtime's Olive that quantizes with msq-onnx.

    PYTHONPATH=. olive run --config workflow.json --package-config package.json

`package.json` tells Olive where the class is, `workflow.json` uses it. In the workflow `weight_bits` may be a list,
over which Olive searches; `options` are all others of `msq_onnx.quantize`.
"""

from pathlib import Path
from typing import Any

from olive.common.config_utils import validate_config
from olive.data.config import DataConfig
from olive.exception import OlivePassError
from olive.hardware.accelerator import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam
from olive.search.search_parameter import Categorical

import msq_onnx


class MsqOnnx(Pass):
    """Quantizes a float ONNX model to 1 to 8 bits, without training."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            "data_config": PassConfigParam(
                type_=DataConfig | dict[str, Any] | None,
                description="Calibration data as Olive describes it; synthetic unless given, here or in `calib`.",
            ),
            "calib": PassConfigParam(
                type_=str | None, description="Path of calibration data as the flag --calib reads it."
            ),
            "weight_bits": PassConfigParam(
                type_=str,
                default_value="8",
                search_defaults=Categorical(["8", "4", "3"]),
                description="Bits of the weights: 1 to 8, or ternary.",
            ),
            "options": PassConfigParam(
                type_=dict[str, Any] | None, description="Other options of `msq_onnx.quantize`."
            ),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        output = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
        output.parent.mkdir(parents=True, exist_ok=True)
        data: Any = config.calib
        if config.data_config:
            container = validate_config(config.data_config, DataConfig).to_data_container()
            data = container.create_calibration_dataloader()
        try:
            msq_onnx.quantize(
                model.model_path, data, output=output, weight_bits=config.weight_bits, **(config.options or {})
            )
        except msq_onnx.Error as error:
            raise OlivePassError(f"msq-onnx, exit code {error.exit_code}: {error.message}") from error
        if output.with_name(f"{output.name}.data").exists():
            return ONNXModelHandler(model_path=str(output.parent), onnx_file_name=output.name)
        return ONNXModelHandler(model_path=str(output))
