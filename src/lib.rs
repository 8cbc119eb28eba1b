//! msq-onnx.
