"""torch module → ONNX graphs: tracing, and the passes that make a graph smaller and faster."""
