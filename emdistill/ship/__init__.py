"""Where it serves: ONNX and int8, measured on this machine and held against limits."""
